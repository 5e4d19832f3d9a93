"""IAM-OnDB: lines of English written by hand on a whiteboard (Liwicki and Bunke, 2005).

A *form* is one text written by one person; a *line* of it is one file of strokes:

    lineStrokes/a01/a01-000/a01-000u-01.xml    line 1 of form a01-000u: <Stroke> of <Point x="" y="">
    ascii/a01/a01-000/a01-000u.txt             what was written: after "CSR:", one text line per line file

T points of a line.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from hashlib import sha256
from math import hypot
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from lxml import etree

from seqdens.datasets.base import Dataset, Record, Skipped, Source, Split
from seqdens.errors import DataError, UsageError
from seqdens.files import check_file
from seqdens.registry import choices

Protocol = Literal["graves", "official"]
PROTOCOLS: dict[str, dict[str, Split]] = {
    "graves": {"trainset": "train", "testset_t": "train", "testset_f": "train", "testset_v": "valid"},
    "official": {"trainset": "train", "testset_v": "valid", "testset_t": "valid", "testset_f": "test"},
}
EXPECTED = (
    "the folder into which lineStrokes-all.tar.gz and ascii-all.tar.gz of IAM-OnDB were unpacked "
    "(it holds lineStrokes/a01/a01-000/a01-000u-01.xml and ascii/a01/a01-000/a01-000u.txt)"
)
LISTS = "trainset.txt, testset_v.txt, testset_t.txt, testset_f.txt"
ENCODING = "iso-8859-1"
PLACEHOLDER = "Please Enter Transcription here"

PARSER = etree.XMLParser(
    resolve_entities=False,
    load_dtd=False,
    no_network=True,
    huge_tree=False,
    dtd_validation=False,
    remove_blank_text=True,
    remove_comments=True,
    remove_pis=True,
)  # without collect_ids=False: with it lxml 6 opens what a document type names, a pipe or a device too
STROKES = etree.XPath("/*/StrokeSet/Stroke")
X_VALUES = etree.XPath("/*/StrokeSet/Stroke/Point/@x", smart_strings=False)
Y_VALUES = etree.XPath("/*/StrokeSet/Stroke/Point/@y", smart_strings=False)

# A line file as they all are: these elements, these attributes in this order, nothing else.
PLAIN = re.compile(
    rb"""<\?xml version="1\.0" encoding="ISO-8859-1"\?>
    <WhiteboardCaptureSession>
    <WhiteboardDescription>
    <SensorLocation corner="\w++"/>
    <DiagonallyOppositeCoords x="-?\d++" y="-?\d++"/>
    <VerticallyOppositeCoords x="-?\d++" y="-?\d++"/>
    <HorizontallyOppositeCoords x="-?\d++" y="-?\d++"/>
    </WhiteboardDescription>
    <StrokeSet>
    (?P<strokes>
    (?:<Stroke colour="\w++" start_time="[\d.]++" end_time="[\d.]++">
    (?:<Point x="-?\d{1,9}" y="-?\d{1,9}" time="[\d.]++"/>
    )++</Stroke>
    )++)</StrokeSet>
    </WhiteboardCaptureSession>
    """.replace(b"\n    ", rb"[ \r\n]*+")
)
PLAIN_SIZE = 1 << 20  # bytes, far below where the parser of XML has limits


class IamOnDB(Dataset):
    """Lines of IAM-OnDB: whole device units, y down, one record a line, `group` the form.

    `root` holds `lineStrokes` and, for texts, `ascii`. The writers' names are in neither, so records are
    grouped by form, which one person wrote.

    The official lists of forms (task IAM-OnDB-t1: trainset.txt, testset_v.txt, testset_t.txt, testset_f.txt)
    are read from `lists`, or else from `root`, `root/splits` or `root/task1`. No writer is in two of them.
    - `protocol="graves"`, as in Graves (2013): train is trainset, testset_t and testset_f (1,535 forms,
      10,741 lines), valid is testset_v (192 forms, 1,438 lines); there is no test split.
    - `protocol="official"`: train is trainset (775 forms, 5,364 lines), valid are the two validation sets
      testset_v and testset_t (408 forms, 2,956 lines), test is testset_f (544 forms, 3,859 lines).

    Without lists, forms are split 85 : 7.5 : 7.5 by a hash of `seed` and their name. `notes`, set by
    `sources()`, says which split it is.

    Graves (2013) removed recording errors by `max_step`, at a threshold that the paper does not state.

    Options:
        protocol: which of the official lists are for training
        lists: folder of the official lists
        max_step: drop points further than that from the last one kept of their stroke, 0 for none
        seed: of the split where there are no lists
    """

    record_name: ClassVar[str] = "line"
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        root: Path | None = None,
        *,
        protocol: Protocol = "graves",
        lists: Path | None = None,
        max_step: float = 0.0,
        seed: int = 0,
    ) -> None:
        if root is None:
            raise UsageError(f"iamondb needs --data DIR (in Python, root=DIR): {EXPECTED}.")
        if protocol not in PROTOCOLS:
            raise UsageError(f"protocol of iamondb is {protocol!r}; {choices(protocol, get_args(Protocol))}")
        if not max_step >= 0:
            raise UsageError(f"max_step of iamondb is {max_step}, but must be 0 (keep every point) or more.")
        self.root = Path(root)
        self.protocol = protocol
        self.lists = None if lists is None else Path(lists)
        self.max_step = max_step
        self.seed = seed

    def sources(self) -> list[Source]:
        """One source per form, by name; sets `notes`.

        Raises `DataError` where `root` is not IAM-OnDB's folder, or lists are missing or of other forms.
        """
        forms = self._forms()
        texts = {path.stem: path for path in files_below(self.root / "ascii", ".txt")}
        folder = self._lists_folder()
        split_of = self._hashed(forms) if folder is None else self._listed(folder, forms)
        return [
            Source(form, (*forms[form], *([texts[form]] if form in texts else [])), split_of[form])
            for form in sorted(forms.keys() & split_of.keys())
        ]

    def read(self, source: Source) -> Iterator[Record | Skipped]:
        """The lines of one form; one that cannot be read is skipped, a bad transcription costs only the text."""
        lines = [path for path in source.paths if path.suffix == ".xml"]
        texts = [""] * len(lines)
        try:
            texts = self._texts(source, lines)
        except ValueError as error:
            yield Skipped(str(self._transcription(source)), str(error))
        if texts == [PLACEHOLDER]:
            reason = f"holds only {PLACEHOLDER!r}: line files left out: {len(lines)}"
            yield Skipped(str(self._transcription(source)), reason)
            return
        for path, text in zip(lines, texts, strict=True):
            try:
                points = self._points(path)
            except ValueError as error:
                yield Skipped(str(path), str(error))
            else:
                yield Record(path.stem, points, source.split, text, group=source.name)

    def _forms(self) -> dict[str, list[Path]]:
        """The line files of each form, in order."""
        folder = self.root / "lineStrokes"
        if not self.root.is_dir():
            raise DataError(f"{self.root} is not a folder; name {EXPECTED}.")
        if self.root.name == "lineStrokes":
            raise DataError(f"{self.root} is lineStrokes itself; name its parent, {self.root.absolute().parent}.")
        if not folder.is_dir():
            raise DataError(f"{self.root} holds no folder lineStrokes; name {EXPECTED}.")
        forms = defaultdict(list)
        for path in files_below(folder, ".xml"):
            forms[path.stem.rpartition("-")[0]].append(path)
        if not forms:
            raise DataError(f"{folder} holds no line files (.xml); name {EXPECTED}.")
        return forms

    def _lists_folder(self) -> Path | None:
        if self.lists is not None:
            return self.lists
        places = (self.root, self.root / "splits", self.root / "task1")
        names = PROTOCOLS[self.protocol]
        return next((place for place in places if any((place / f"{n}.txt").is_file() for n in names)), None)

    def _listed(self, folder: Path, forms: dict[str, list[Path]]) -> dict[str, Split]:
        split_of: dict[str, Split] = {}
        for name, split in PROTOCOLS[self.protocol].items():
            path = folder / f"{name}.txt"
            try:
                split_of |= dict.fromkeys(read_bytes(path, folder).decode(ENCODING).split(), split)
            except ValueError as error:
                raise DataError(f"{path} {error}; the lists are {LISTS}.") from None
        if split_of.keys().isdisjoint(forms):
            raise DataError(f"the lists in {folder} name none of the {len(forms)} forms in {self.root}.")
        self.notes = (f"split by the lists in {folder}, protocol {self.protocol!r}",)
        if missing := len(split_of.keys() - forms.keys()):
            self.notes += (f"{missing} forms of the lists are not in {self.root}",)
        if unlisted := sorted(forms.keys() - split_of.keys()):
            lines = sum(len(forms[form]) for form in unlisted)
            self.notes += (f"left out, since in none of the lists: {lines} lines of {', '.join(unlisted)}",)
        return split_of

    def _hashed(self, forms: dict[str, list[Path]]) -> dict[str, Split]:
        self.notes = (
            f"no official lists ({LISTS}) in {self.root}, its splits or its task1, and no option lists: forms "
            f"are split 85 : 7.5 : 7.5 by a hash (seed {self.seed}); a writer may be in two splits, and "
            "likelihoods do not compare with published ones",
        )
        return {form: hashed_split(form, self.seed) for form in forms}

    def _transcription(self, source: Source) -> Path:
        """The transcription among the source's files, or where it would be."""
        found = next((path for path in source.paths if path.suffix == ".txt"), None)
        folder = source.paths[0].parent.relative_to(self.root / "lineStrokes")
        return found or self.root / "ascii" / folder / f"{source.name}.txt"

    def _texts(self, source: Source, lines: list[Path]) -> list[str]:
        """One text per line file, empty where there is no `ascii`; raises `ValueError` with the reason."""
        path = self._transcription(source)
        if path not in source.paths:
            if (self.root / "ascii").is_dir():
                raise ValueError("there is no such file: the lines of this form have no text")
            return [""] * len(lines)
        texts = transcribed(read_bytes(path, self.root / "ascii").decode(ENCODING))
        if len(texts) != len(lines) and texts != [PLACEHOLDER]:
            raise ValueError(f"has {len(texts)} lines of text for {len(lines)} line files: none is used")
        return texts

    def _points(self, path: Path) -> np.ndarray:
        points = parse_strokes(read_bytes(path, self.root / "lineStrokes"))
        if self.max_step > 0:
            points = without_long_steps(points, self.max_step)
        if len(points) < 2:
            raise ValueError(f"has {len(points)} point(s): nothing to predict")
        return points


def files_below(folder: Path, suffix: str) -> list[Path]:
    """The files below `folder` that end in `suffix`, sorted; none where there is no such folder."""

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise DataError(f"{error.filename} cannot be listed: {error.strerror}.")

    found = [
        os.path.join(where, name)
        for where, _, names in os.walk(folder, onerror=fail)
        for name in names
        if name.endswith(suffix) and not name.startswith(".")
    ]
    return [Path(name) for name in sorted(found)]


def hashed_split(form: str, seed: int) -> Split:
    """The split of a form: 85 % train, 7.5 % valid, 7.5 % test, the same on every machine."""
    share = int.from_bytes(sha256(f"{seed} {form}".encode()).digest()[:8], "big") / 2**64
    return "train" if share < 0.85 else "valid" if share < 0.925 else "test"


def read_bytes(path: Path, folder: Path) -> bytes:
    """What is in a file below `folder`; raises `ValueError` where it cannot be read."""
    check_file(path, folder)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


def transcribed(content: str) -> list[str]:
    """The lines of text after "CSR:" in a transcription; raises `ValueError` where there are none.

    A run of per cent signs is a line break (form a08-551z).
    """
    _, _, block = content.partition("CSR:")
    if not block.strip():
        raise ValueError("has no text after 'CSR:'")
    if "\0" in block:
        raise ValueError("holds NUL bytes: none of its text is used")
    return [line.strip() for line in re.split(r"\r\n?|\n|%{5,}", block.strip())]


def parse_strokes(content: bytes) -> np.ndarray:
    """Points (T, 3) int32, x, y and stroke_end, of a line file; raises `ValueError` with the reason."""
    plain = PLAIN.fullmatch(content) if len(content) < PLAIN_SIZE else None
    return plain_points(plain["strokes"]) if plain else xml_points(content)


def plain_points(strokes: bytes) -> np.ndarray:
    """What `xml_points` gives for a file that is `PLAIN`, several times as fast."""
    characters = np.frombuffer(strokes, np.uint8)
    quotes = np.flatnonzero(characters == ord('"')).reshape(-1, 3, 2)  # Stroke and Point have three attributes each
    is_point = characters[quotes[:, 0, 0] - 2] == ord("x")
    points = np.empty((np.count_nonzero(is_point), 3), np.int32)
    points[:, :2] = quoted_numbers(characters, quotes[is_point, :2])
    points[:, 2] = np.append(~is_point[1:], True)[is_point]
    return points


def quoted_numbers(characters: np.ndarray, quotes: np.ndarray) -> np.ndarray:
    """The whole numbers between pairs of quotes (..., 2), which are positions in `characters`."""
    negative = characters[quotes[..., 0] + 1] == ord("-")
    first, end = quotes[..., 0] + 1 + negative, quotes[..., 1]
    numbers = np.zeros(first.shape, np.int64)
    for at in first + np.arange((end - first).max())[:, None, None]:
        numbers = np.where(at < end, 10 * numbers + characters[at] - ord("0"), numbers)
    return np.where(negative, -numbers, numbers)


def xml_points(content: bytes) -> np.ndarray:
    """`parse_strokes` of any XML."""
    try:
        root = etree.fromstring(content, PARSER)
    except etree.XMLSyntaxError as error:
        raise ValueError(f"is not well-formed XML: {str(error.msg).splitlines()[0]}") from None
    declared = root.getroottree().docinfo.internalDTD
    if declared is not None and any(True for _ in declared.iterentities()):
        raise ValueError("declares XML entities, which no file of IAM-OnDB does")
    strokes = STROKES(root)
    sizes = [size for stroke in strokes if (size := len(stroke))]
    points = np.zeros((sum(sizes), 3), np.int32)
    try:
        points[:, :2] = integers([X_VALUES(root), Y_VALUES(root)]).reshape(2, len(points)).T
    except (ValueError, OverflowError, TypeError):
        raise ValueError(fault(strokes)) from None
    points[np.cumsum(sizes, dtype=int) - 1, 2] = 1
    return points


def integers(values: list[Any]) -> np.ndarray:
    return np.array(values, dtype=object).astype(np.int32)


def fault(strokes: list[Any]) -> str:
    """Which of the `strokes` holds something other than points of whole x and y."""
    for number, stroke in enumerate(strokes, 1):
        for point in stroke:
            for name in ("x", "y"):
                value = point.get(name)
                if point.tag != "Point" or value is None:
                    return f"stroke {number} holds something that is not a point with x and y"
                try:
                    integers([value])
                except (ValueError, OverflowError):
                    return f"stroke {number} has a point with {name}={value[:60]!r}, not a whole number of 32 bits"
    return "holds points that cannot be read"


def without_long_steps(points: np.ndarray, max_step: float) -> np.ndarray:
    """`points` (T, 3) less those further than `max_step` from the last one kept of their stroke."""
    kept = []
    x_kept = y_kept = 0
    starts = True
    for index, (x, y, end) in enumerate(points.tolist()):
        if starts or hypot(x - x_kept, y - y_kept) <= max_step:
            kept.append(index)
            x_kept, y_kept = x, y
        starts = end
    stroke = (np.cumsum(points[:, 2]) - points[:, 2])[kept]
    return np.column_stack([points[kept, :2], np.diff(stroke, append=-1) != 0]).astype(np.int32)
