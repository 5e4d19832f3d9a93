"""UNIPEN 1.0, the exchange format of pen recordings (Guyon, Schomaker, Plamondon, Liberman and Janet, 1994).

A file is a succession of statements: a keyword, which stands at the beginning of a line and starts with a dot, and
all that follows it until the next keyword.

    .COORD X Y                        what the numbers of a point are; also T, P, Z, ...
    .WRITER_ID anna                   who writes from here on
    .SEGMENT WORD 0-2,4:10-5:3 OK "hi"    components 0 to 2, 4 from its point 10, 5 up to its point 3 are "hi"
    .PEN_DOWN                         a component: the points that follow
     267  333
    .PEN_UP                           the pen in the air: a component too, if any points follow

Components are numbered from 0, anew in each file and after .START_SET. Segments may come before or after their
components, and overlap: a sentence, its words, their characters.
"""

from __future__ import annotations

import gzip
import os
import re
import sys
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np

from seqdens import DataError, Dataset, Record, Skipped, Source, UsageError
from seqdens.files import check_file
from seqdens_unipen.ink import (
    COLUMNS,
    SHARES,
    Split,
    check_choice,
    files_below,
    hashed_split,
    number,
    points_of,
    quoted,
)

Direction = Literal["auto", "up", "down"]
SplitBy = Literal["writer", "segment"]

ENCODING = "iso-8859-1"
EXPECTED = "a folder of UNIPEN files, such as pendigits-orig.tra.gz and pendigits-orig.tes.gz of the UCI repository"
LARGEST_FILE = 2**26  # characters
LARGEST_UNPACKED, RATIO = 2**24, 20  # characters of an unpacked file, or so many for each byte that it is packed into
LONGEST_LINE = 2**16  # and longest .SEGMENT
MOST_OVERLAPS = 4  # how often the points of a file may come up in the records of one level
KEYWORD = re.compile(r"\.([A-Z]\w*)(.*)", re.DOTALL)
SEGMENT = re.compile(r'(\S+)(?:\s+(\S+)(?:\s+(\S+)(?:\s+"((?:[^"\\]|\\.)*)")?)?)?\s*')
DELINEATED = re.compile(r"(\d{1,9})(?:(?::(\d{1,9}))?-(\d{1,9})(?::(\d{1,9}))?)?")
PENDIGITS_COMMENT = re.compile(r"(\S+)\s+(\d+)\s+\d+")  # digit, writer, number of the digit among the writer's
OFFICIAL = re.compile(r"\.(tra|tes)(\.gz)?$", re.IGNORECASE)


class Unipen(Dataset):
    """Segments of UNIPEN files, one record each: `text` and `label` are what was written, `group` is the writer.

    `root` is a folder of files in the UNIPEN 1.0 format, plain or compressed by gzip, and of nothing else. Points are
    in raw units, y down. What can be read of a damaged file is read, the rest is skipped with its line.

    `group` is the .WRITER_ID; without one, in the digits of Alpaydin and Alimoglu, the writer in the comment below
    each segment; else the file, and where it is several joined into one (as UJIpenchars is), the number of the part.

    The writers of a file *.tes are the test split. Of the others a tenth is for validation and, but for a file
    *.tra, a tenth for test, by a hash of `seed` and the writer, or with `split="segment"` of each segment: for a
    folder of one hand or two.

    An .INCLUDE is read from the same folder, and passed over where it is not there.

    Options:
        level: of the hierarchy, such as WORD; empty for that of the first segment of a file
        y: where it points in the files; auto is down in files named UJIpenchars, up in all others
        split: what is kept together, a writer or only a segment
        seed: of the split
    """

    record_name: ClassVar[str] = "segment"
    columns = COLUMNS

    def __init__(
        self,
        root: Path | None = None,
        *,
        level: str = "",
        y: Direction = "auto",
        split: SplitBy = "writer",
        seed: int = 0,
    ) -> None:
        if root is None:
            raise UsageError(f"unipen needs --data DIR (in Python, root=DIR): {EXPECTED}.")
        check_choice("unipen", "y", y, get_args(Direction))
        check_choice("unipen", "split", split, get_args(SplitBy))
        self.root = Path(root)
        self.level, self.y, self.split, self.seed = level, y, split, seed
        self.notes = (f"split by a hash of the {split}: {SHARES}; of files *.tra none is test, files *.tes all are",)

    def sources(self) -> list[Source]:
        """One source a file, by name; raises `DataError` where there are none, or some that must be unpacked."""
        paths = files_below(self.root, "", EXPECTED)
        if packed := [path for path in paths if path.suffix == ".Z"]:
            raise DataError(f"{packed[0]} is packed by compress; unpack it with `gunzip {packed[0].name}`.")
        return [Source(path.relative_to(self.root).as_posix(), (path,), split_of_file(path)) for path in paths]

    def read(self, source: Source) -> Iterator[Record | Skipped]:
        """The segments of one file, each with what is wrong with it where it cannot be read."""
        path = str(source.paths[0])
        file = Parser(source.paths[0], self.root).parse()
        segments = [segment for part in file.parts for segment in part.segments]
        level = self.level or next((segment.level for segment in segments if not segment.fault), "")
        left = MOST_OVERLAPS * sum(component.size for part in file.parts for component in part.components)
        for count, segment in enumerate(segments):
            if not segment.fault and segment.level != level:
                continue
            try:
                strokes = segment.strokes(left)
                left -= sum(map(len, strokes))
                points = self._points(source, strokes)
            except ValueError as error:
                yield Skipped(path, f".SEGMENT of line {segment.line}: {error}")
            else:
                name, writer = f"{source.name}/{count}", self._writer(source, file, segment)
                split = self._split(source, writer if self.split == "writer" else name)
                yield Record(name, points, split, segment.label, writer, segment.label)
        for fault in file.faults:
            yield Skipped(path, fault)
        if not file.faults and not any(segment.fault or segment.level == level for segment in segments):
            known = quoted(" ".join(sorted({segment.level for segment in segments})))
            there = f" of level {quoted(level)} but of {known}" if segments else ""
            yield Skipped(path, f"has no .SEGMENT{there}")

    def _points(self, source: Source, strokes: list[np.ndarray]) -> np.ndarray:
        points = points_of(strokes)
        down = source.paths[0].name.startswith("UJIpenchars") if self.y == "auto" else self.y == "down"
        if not down:
            points[:, 1] *= -1
        return points

    def _writer(self, source: Source, file: Parser, segment: Segment) -> str:
        name = source.name.removesuffix(".gz")
        if segment.writer:
            return segment.writer
        if segment.number:
            return f"{name}/{segment.number}"
        return f"{name}/{segment.part.file}" if file.parts[-1].file > 1 else name

    def _split(self, source: Source, key: str) -> Split:
        if source.split == "test":
            return "test"
        return hashed_split(key, self.seed, (0.1, 0.0 if OFFICIAL.search(source.name) else 0.1))


def split_of_file(path: Path) -> Split:
    official = OFFICIAL.search(path.name)
    return "test" if official and official[1].lower() == "tes" else "train"


@dataclass(eq=False, slots=True)
class Component:
    """A run of points with the pen down, or in the air; `fault` says why they are not to be used."""

    down: bool
    numbers: array[float] = field(default_factory=lambda: array("d"))  # x, y, x, y, ...
    fault: str = ""

    @property
    def size(self) -> int:
        return len(self.numbers) // 2

    def stroke(self, start: int, stop: int) -> np.ndarray:
        """Points [start, stop) of it, (n, 2)."""
        return np.array(self.numbers[2 * start : 2 * stop]).reshape(-1, 2)


@dataclass(eq=False, slots=True)
class Part:
    """Components that are numbered together, the segments that name them, and the last one of each level.

    `file` counts, from 1, the files that are joined into one.
    """

    file: int
    components: list[Component] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    last: dict[str, Segment] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Segment:
    """A .SEGMENT statement at `line`; where it names no components, it is [first, stop) of its part."""

    part: Part
    line: int
    first: int
    writer: str
    statement: list[str] = field(default_factory=list)
    size: int = 0  # characters
    stop: int | None = None
    number: str = ""  # of the writer, in the digits of Alpaydin and Alimoglu
    level: str = ""
    delineation: str = "?"
    label: str = ""
    fault: str = ""

    def finish(self) -> None:
        """Take the statement apart, once all of it is read."""
        statement = " ".join(self.statement).strip()
        found = SEGMENT.fullmatch(statement)
        if not found or "\0" in statement:
            self.fault = f'.SEGMENT {quoted(statement)} does not read LEVEL COMPONENTS QUALITY "LABEL"'
            return
        self.level, self.delineation = found[1], found[2] or "?"
        label = re.sub(r"\\(.)", lambda escaped: " " if escaped[1] in "nt" else escaped[1], found[4] or "")
        self.label = " ".join(label.split())
        if before := self.part.last.get(self.level):
            before.stop = self.first
        self.part.last[self.level] = self

    def strokes(self, most: int) -> list[np.ndarray]:
        """Its strokes (n, 2), of at most so many points, in the order in which it names them.

        Raises `ValueError` with the reason.
        """
        if self.fault:
            raise ValueError(self.fault)
        strokes = []
        for component, start, stop in self._pieces():
            most -= stop - start
            if most < 0:
                raise ValueError("it and those before it name the same points over and over")
            if component.down:
                strokes.append(component.stroke(start, stop))
        return strokes

    def _pieces(self) -> Iterator[tuple[Component, int, int]]:
        """Components, and which of their points [start, stop)."""
        components = self.part.components
        for first, m, last, n in self._ranges():
            if not first <= last < len(components):
                raise ValueError(f"it names components {first} to {last}, but there are {len(components)}, from 0 on")
            for index in range(first, last + 1):
                component = components[index]
                if component.fault:
                    raise ValueError(component.fault)
                start = m if index == first else 0
                stop = component.size if n is None or index < last else n + 1
                if not start < stop <= component.size:
                    raise ValueError(
                        f"it names points {start} to {stop - 1} of the {component.size} of component {index}"
                    )
                yield component, start, stop

    def _ranges(self) -> Iterator[tuple[int, int, int, int | None]]:
        """First component and point, last component and point (None for all of it)."""
        if self.delineation == "?":
            stop = len(self.part.components) if self.stop is None else self.stop
            if stop == self.first:
                raise ValueError("it names no components, and none follow it")
            yield self.first, 0, stop - 1, None
            return
        for piece in self.delineation.split(","):
            found = DELINEATED.fullmatch(piece)
            if not found:
                raise ValueError(f"components {quoted(piece)} do not read A, A-B or A:M-B:N")
            first, m, last, n = found.groups()
            yield int(first), int(m or 0), int(last or first), None if n is None else int(n)


class Parser:
    """Reads one file: `parts`, and `faults` for what is wrong with it besides single segments."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path, self.root = path, root
        self.parts = [Part(1)]
        self.faults: list[str] = []
        self.coordinates = ["X", "Y"]
        self.writer = ""
        self.left = LARGEST_FILE
        self.keyword = ""
        self.stroke: Component | None = None  # to which points that follow belong
        self.segment: Segment | None = None  # the last
        self.ended = {True: 0, False: 0}  # components with the pen down, by whether .PEN_UP ended them

    def parse(self) -> Parser:
        line, text = 0, "\n"
        try:
            check_file(self.path, self.root, sys.maxsize)
            for line, text in self._lines(self.path):
                self._take(line, text, self.path)
        except ValueError as error:
            self.faults.append(str(error))
            self._cut_off(str(error))
        if not text.endswith("\n"):
            self._cut_off(f"line {line}: the file ends in the middle of a line")
        elif self.stroke and self.stroke.down and self.ended[True] and not self.ended[False]:
            self._cut_off(f"line {line}: the file ends before .PEN_UP")
        self._end_statement()
        return self

    def _cut_off(self, reason: str) -> None:
        if self.stroke:
            self.stroke.fault = self.stroke.fault or reason

    def _lines(self, path: Path) -> Iterator[tuple[int, str]]:
        """The lines of a file with their numbers; raises `ValueError` where it cannot be read, or no further."""
        count, most = 0, LARGEST_FILE
        try:
            with path.open("rb") as file:
                packed = file.read(2) == b"\x1f\x8b"
            if packed:
                most = max(LARGEST_UNPACKED, RATIO * path.stat().st_size)
                self.left = min(self.left, most)
            with gzip.open(path, "rt", encoding=ENCODING) if packed else path.open(encoding=ENCODING) as lines:
                while line := lines.readline(LONGEST_LINE):
                    count += 1
                    self.left -= len(line)
                    if len(line) == LONGEST_LINE or self.left < 0:
                        limits = f"a line below {LONGEST_LINE} and a file below {most} characters"
                        raise ValueError(f"line {count}: too long to be read, which is {limits}")
                    yield count, line
        except (OSError, EOFError, zlib.error) as error:
            reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
            raise ValueError(f"after line {count}: {reason}" if count else reason) from None

    def _take(self, line: int, text: str, path: Path) -> None:
        if statement := KEYWORD.match(text):
            self._end_statement()
            before, self.keyword = self.keyword, statement[1]
            self._begin(line, statement[2], path, before)
        elif self.keyword in ("PEN_DOWN", "PEN_UP", "DT"):
            self._add(line, text)
        elif self.keyword == "SEGMENT" and self.segment:
            self._continue_segment(line, text)
        elif not self.keyword and text.strip():
            raise ValueError(f"line {line}: {quoted(text)} is no keyword, with which a UNIPEN file begins")

    def _continue_segment(self, line: int, text: str) -> None:
        assert self.segment
        self.segment.size += len(text)
        if self.segment.size > LONGEST_LINE:
            raise ValueError(f"line {line}: a .SEGMENT has more than {LONGEST_LINE} characters")
        self.segment.statement.append(text)

    def _begin(self, line: int, rest: str, path: Path, before: str) -> None:
        """A statement. Points that follow .DT, the time for which the pen stood still, go on with their component."""
        if self.keyword == "DT":
            return
        if self.stroke and self.stroke.down:
            self.ended[self.keyword == "PEN_UP"] += 1
        self.stroke = None
        match self.keyword:
            case "PEN_DOWN" | "PEN_UP":
                self.stroke = Component(self.keyword == "PEN_DOWN")
                self._add(line, rest)
            case "SEGMENT":
                part = self.parts[-1]
                self.segment = Segment(part, line, len(part.components), self.writer)
                part.segments.append(self.segment)
                self._continue_segment(line, rest)
            case "COMMENT" if before == "SEGMENT" and self.segment:
                comment = PENDIGITS_COMMENT.fullmatch(rest.strip())
                if comment and comment[1] == self.segment.label:
                    self.segment.number = comment[2]
            case "COORD":
                self.coordinates = rest.split()
                if not {"X", "Y"} <= set(self.coordinates):
                    raise ValueError(f"line {line}: .COORD {quoted(rest)} lacks X or Y")
            case "WRITER_ID":
                self.writer = " ".join(rest.replace("\0", " ").split())
            case "START_SET" | "VERSION" | "HIERARCHY" if self.parts[-1].components:
                self.parts.append(Part(self.parts[-1].file + (self.keyword != "START_SET")))
            case "INCLUDE":
                self._include(line, rest.strip(), path)

    def _end_statement(self) -> None:
        if self.keyword == "SEGMENT" and self.segment:
            self.segment.finish()

    def _add(self, line: int, text: str) -> None:
        """The points of a line to the component; the first makes it one that is counted."""
        values = text.split()
        if not values or not self.stroke:
            return
        if not self.stroke.numbers and not self.stroke.fault:
            self.parts[-1].components.append(self.stroke)
        width = len(self.coordinates)
        x, y = self.coordinates.index("X"), self.coordinates.index("Y")
        try:
            if len(values) % width:
                raise ValueError
            for start in range(0, len(values), width):
                self.stroke.numbers.extend((number(values[start + x]), number(values[start + y])))
        except ValueError:
            wanted = f"numbers of 32 bits for .COORD {quoted(' '.join(self.coordinates))}"
            self.stroke.fault = self.stroke.fault or f"line {line}: {quoted(text)} are not {wanted}"

    def _include(self, line: int, name: str, path: Path) -> None:
        """Take the lines of a file beside this one; where there is none, nothing."""
        try:
            if path != self.path:
                raise ValueError("stands in an included file itself, which UNIPEN forbids")
            if {"/", "\\"} & set(name) or name in ("", ".", ".."):
                raise ValueError("is a path, which UNIPEN forbids")
            included = path.parent / name
            if not os.path.isfile(included):
                return
            if not included.resolve().is_relative_to(self.root.resolve()):
                raise ValueError("leads out of the folder")
            for line_there, text in self._lines(included):
                self._take(line_there, text, included)
        except (OSError, ValueError) as error:
            self.faults.append(f"line {line}: .INCLUDE {quoted(name)}: {error}; it is not read")
        self._end_statement()
        self.keyword, self.stroke = "INCLUDE", None
