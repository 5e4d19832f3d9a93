"""InkML, the XML of pen recordings (W3C Recommendation of 20 September 2011).

    <ink xmlns="http://www.w3.org/2003/InkML">
      <traceFormat> <channel name="X"/> <channel name="Y"/> </traceFormat>    what the numbers of a point are
      <annotation type="truth">hi</annotation>
      <trace>1125 18432,'23'43,"7"-8,3-5</trace>                              one stroke

A point is a value for each channel; commas stand between points. A value is the coordinate itself (after !), or its
difference from the one before (after '), or the difference of these differences (after "); a channel keeps to what
its last prefix says. `*` repeats the last value as it was written, and ? is not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from lxml import etree

from seqdens import Dataset, Record, Skipped, Source, UsageError
from seqdens.files import check_file
from seqdens_unipen.ink import (
    COLUMNS,
    LARGEST,
    SHARES,
    check_choice,
    files_below,
    hashed_split,
    number,
    points_of,
    quoted,
)

SplitBy = Literal["writer", "record"]

EXPECTED = "a folder of InkML files (.inkml)"
LARGEST_FILE = 2**24  # bytes
LONGEST_VALUE = 40
XML_ID = "{http://www.w3.org/XML/1998/namespace}id"
PREDEFINED = ("#DefaultContext", "#DefaultTraceFormat")
DEEPEST = 8  # contexts that refer to each other
MOST_CHANNELS = 100  # of a point
PARSER = etree.XMLParser(
    resolve_entities=False,
    load_dtd=False,
    no_network=True,
    huge_tree=False,
    dtd_validation=False,
    remove_comments=True,
    remove_pis=True,
)  # without collect_ids=False: with it lxml 6 opens what a document type names, a pipe or a device too
VALUE = re.compile(
    r"""\s*+(?:(?P<order>[!'"]?)\s*+(?P<number>[+-]?\s*+(?:\#[0-9A-Fa-f]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))"""
    r"""|(?P<other>[TF*?]))\s*""",
    re.VERBOSE,
)


class InkML(Dataset):
    """Ink of InkML files: one record for each outermost trace group, and one for the traces in none, of a file.

    `root` is a folder of .inkml files. Points are the channels X and Y, in raw units, y down as the standard has it
    (`orientation="-ve"` turns a channel round); other channels, trace views, brushes, mappings and strokes of the
    pen in the air are passed over. `text` is the annotation "truth" of the group or the file, `label` the annotation
    "label", each the other where only one is there; `group` is the annotation "writer" of the file.

    A tenth is for validation and a tenth for test, by a hash of `seed` and the writer (the file, where none is
    named), or with `split="record"` of each record: for a folder of one hand or two.

    Entities are refused, nothing is loaded that a file refers to, and files over 16 MiB are skipped.

    Options:
        split: what is kept together, a writer or only a record
        seed: of the split
    """

    columns = COLUMNS

    def __init__(self, root: Path | None = None, *, split: SplitBy = "writer", seed: int = 0) -> None:
        if root is None:
            raise UsageError(f"inkml needs --data DIR (in Python, root=DIR): {EXPECTED}.")
        check_choice("inkml", "split", split, get_args(SplitBy))
        self.root = Path(root)
        self.split, self.seed = split, seed
        by = "record" if split == "record" else "writer, or of the file where none is named"
        self.notes = (f"split by a hash of the {by}: {SHARES}",)

    def sources(self) -> list[Source]:
        """One source a file, by name; raises `DataError` where there are none."""
        paths = files_below(self.root, ".inkml", EXPECTED)
        return [Source(path.relative_to(self.root).as_posix(), (path,)) for path in paths]

    def read(self, source: Source) -> Iterator[Record | Skipped]:
        """The records of one file; one that cannot be read is skipped."""
        path = str(source.paths[0])
        try:
            check_file(source.paths[0], self.root, LARGEST_FILE)
            ink = parse(source.paths[0])
        except ValueError as error:
            yield Skipped(path, str(error))
            return
        formats, writer = Formats(ink), annotation(ink, "writer")
        for count, holder, traces in records_of(ink):
            name = f"{source.name}/{count}" if count else source.name
            try:
                points = points_of(strokes_of(traces, formats))
            except ValueError as error:
                yield Skipped(path, f"trace group {count}: {error}" if count else str(error))
                continue
            split = hashed_split(name if self.split == "record" else writer or source.name, self.seed, (0.1, 0.1))
            text, label = annotation(holder, "truth"), annotation(holder, "label")
            yield Record(name, points, split, text or label, writer, label or text)


class Trace(NamedTuple):
    element: Any
    current: Any  # the <context> or <traceFormat> that stands before it, if any


class Format(NamedTuple):
    """The channels of a point, the first `regular` of which every point has; X and Y are multiplied by `signs`."""

    channels: tuple[str, ...] = ("X", "Y")
    regular: int = 2
    signs: tuple[int, int] = (1, 1)


def parse(path: Path) -> Any:
    """The `<ink>` element of a file; raises `ValueError` with the reason."""
    try:
        ink = etree.fromstring(path.read_bytes(), PARSER)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except etree.XMLSyntaxError as error:
        raise ValueError(f"is not well-formed XML: {str(error.msg).splitlines()[0]}") from None
    declared = ink.getroottree().docinfo.internalDTD
    if declared is not None and any(True for _ in declared.iterentities()):
        raise ValueError("declares XML entities, which are not read")
    if tag(ink) != "ink":
        raise ValueError(f"is XML of {quoted(tag(ink))}, not of 'ink'")
    return ink


def tag(element: Any) -> str:
    """Its name without the namespace, which many files leave out."""
    return str(etree.QName(element).localname)


def annotation(element: Any, kind: str) -> str:
    """The first annotation of that type among the children; "" where there is none."""
    children = (child for child in element if tag(child) == "annotation")
    found = (child.text for child in children if child.get("type", "").lower() == kind and child.text)
    return " ".join(next(found, "").split())


def records_of(ink: Any) -> Iterator[tuple[int, Any, list[Trace]]]:
    """The number of each record, what its annotations are in, and its traces.

    The outermost groups count from 1; 0 are the traces in no group, where there are any.
    """
    loose, groups, current = [], [], None
    for child in ink:
        match tag(child):
            case "context" | "traceFormat":
                current = child
            case "trace":
                loose.append(Trace(child, current))
            case "traceGroup":
                groups.append((child, [Trace(trace, current) for trace in child.iter() if tag(trace) == "trace"]))
    if loose or not groups:
        yield 0, ink, loose
    for count, (group, traces) in enumerate(groups, 1):
        yield count, group, traces


class Formats:
    """The formats of traces in a file."""

    def __init__(self, ink: Any) -> None:
        names = ((element.get(XML_ID) or element.get("id"), element) for element in ink.iter())
        self.named = {f"#{name}": element for name, element in names if name}
        self.known: dict[Any, Format | str | None] = {}  # or what is wrong with it

    def of(self, trace: Trace) -> Format:
        """By the context that it refers to, or one of the groups around it; else by the one before it; else X Y.

        Raises `ValueError` for references to what is not there, and formats without X and Y.
        """
        for element in (trace.element, *trace.element.iterancestors()):
            if reference := element.get("contextRef"):
                return self._found(self._referred(reference))
        return self._found(trace.current)

    def _found(self, element: Any) -> Format:
        return self._sought(element, DEEPEST) or Format()

    def _sought(self, element: Any, depth: int) -> Format | None:
        """The format that a context or an ink source holds or refers to, which is looked for once."""
        if element is None:
            return None
        if element not in self.known:
            try:
                self.known[element] = self._looked_for(element, depth)
            except ValueError as error:
                self.known[element] = str(error)
        if isinstance(found := self.known[element], str):
            raise ValueError(found)
        return found

    def _looked_for(self, element: Any, depth: int) -> Format | None:
        if not depth:
            raise ValueError(f"more than {DEEPEST} contexts refer to each other")
        if tag(element) == "traceFormat":
            return format_of(element)
        held = [child for child in element if tag(child) in ("traceFormat", "inkSource")]
        references = (element.get(name) for name in ("traceFormatRef", "inkSourceRef", "contextRef"))
        referred = (self._referred(reference) for reference in references if reference)
        formats = (self._sought(other, depth - 1) for others in (held, referred) for other in others)
        return next((found for found in formats if found), None)

    def _referred(self, reference: str) -> Any:
        if reference in PREDEFINED:
            return None
        if reference not in self.named:
            raise ValueError(f"it refers to {quoted(reference)}, which is not in the file")
        return self.named[reference]


def format_of(element: Any) -> Format:
    """What a `<traceFormat>` declares; raises `ValueError` where X or Y is not there in every point."""
    regular = [child for child in element if tag(child) == "channel"]
    others = [child for child in element.iter() if tag(child) == "channel" and child.getparent() is not element]
    if len(regular) + len(others) > MOST_CHANNELS:
        raise ValueError(f"it has {len(regular) + len(others)} channels, more than {MOST_CHANNELS}")
    names = [channel.get("name", "") for channel in regular]
    if not {"X", "Y"} <= set(names):
        raise ValueError(f"its channels are {quoted(' '.join(names))}, without X or Y")
    turned = {channel.get("name"): channel.get("orientation") == "-ve" for channel in regular}
    channels = (*names, *(channel.get("name", "") for channel in others))
    return Format(channels, len(regular), (-1 if turned["X"] else 1, -1 if turned["Y"] else 1))


def strokes_of(traces: Sequence[Trace], formats: Formats) -> list[np.ndarray]:
    """The strokes (n, 2) that traces make: one each, but for those continued by the next, and those in the air.

    Raises `ValueError` with the trace, its line and the reason.
    """
    strokes: list[list[np.ndarray]] = []
    continued = False
    for count, trace in enumerate(traces, 1):
        if trace.element.get("type") == "penUp":
            continue
        try:
            points = decoded(trace.element.text or "", formats.of(trace))
        except ValueError as error:
            raise ValueError(f"trace {count} (line {trace.element.sourceline}): {error}") from None
        if not continued:
            strokes.append([])
        strokes[-1].append(points)
        continued = trace.element.get("continuation") in ("begin", "middle")
    return [np.concatenate(parts) for parts in strokes]


def decoded(content: str, form: Format) -> np.ndarray:
    """X and Y (n, 2) of a trace's content; raises `ValueError` with the point and the reason."""
    points = content.split(",")
    if not points[-1].strip():
        points.pop()
    x, y = form.channels.index("X"), form.channels.index("Y")
    values = []
    for count, point in enumerate(points, 1):
        values.append(values_of(point))
        if not form.regular <= len(values[-1]) <= len(form.channels):
            channels = quoted(" ".join(form.channels))
            raise ValueError(f"point {count} is {quoted(point)}, but the channels are {channels}")
    axes = [integrated([value[axis] for value in values]) for axis in (x, y)]
    return np.column_stack(axes) * form.signs


def values_of(point: str) -> list[tuple[str, str]]:
    """Prefix and value for each channel of a point; raises `ValueError` for anything else in it."""
    values = []
    place = 0
    while place < len(point):
        found = VALUE.match(point, place)
        if not found:
            raise ValueError(f"{quoted(point[place:])} is no value")
        values.append((found["order"] or "", found["number"] or found["other"]))
        place = found.end()
    return values


def integrated(values: Iterable[tuple[str, str]]) -> np.ndarray:
    """The coordinates (n,) of one channel: of each value the prefix, if any, and the number.

    >>> integrated([("", "1125"), ("'", "23"), ('"', "7"), ("", "3"), ("", "*"), ("!", "9")])
    array([1125., 1148., 1178., 1211., 1247.,    9.])
    """
    before = previous = last = 0.0  # two points ago, one point ago, the number as written
    order = "!"
    found: list[float] = []
    for prefix, text in values:
        order = prefix or order
        if text != "*":
            last = signed(text)
        elif not found:
            raise ValueError("it begins with '*', which repeats a value")
        if order != "!" and not found:
            raise ValueError(f"it begins with a difference ({order})")
        match order:
            case "'":
                value = previous + last
            case '"':
                value = 2 * previous - before + last
            case _:
                value = last
        if not abs(value) < LARGEST:
            raise ValueError("its differences lead beyond 32 bits")
        before, previous = (previous if found else value), value
        found.append(value)
    return np.array(found)


def signed(text: str) -> float:
    """A number, decimal or (after #) hexadecimal; raises `ValueError` for any other value."""
    if text in ("T", "F", "?"):
        raise ValueError(f"a value of X or Y is {text!r}, not a number")
    if len(text) > LONGEST_VALUE:
        raise ValueError(f"{quoted(text)}... is too long for a number")
    sign, _, digits = text.rpartition("#")
    text = "".join(text.split()) if not _ else f"{sign.strip()}{int(digits, 16)}"
    return number(text)
