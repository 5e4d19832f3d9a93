"""InkML files to strokes and text (W3C Ink Markup Language, 2011): the traces and what an annotation says they read.

A trace is points between commas, a point a value for each channel of the trace format. A value is explicit (!), the
first difference (') or the second (\"), which holds for the channel until it is changed; `*` repeats, `?` is unknown.
n points of a stroke.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from lxml import etree

from seqdens.errors import DataError
from seqdens.ink.xml import read_root, tag

MOST_POINTS = 500_000  # of a drawing
LONGEST_POINT = 4_000  # characters; a point has a value for each channel
TEXTS = ("truth", "transcription")  # types of the annotations that hold what was written

_VALUE = re.compile(r"""\s*([!'"]?)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?#[0-9A-Fa-f]+|[TF*?])""")
_FURTHEST = 1e9


class Recorded(NamedTuple):
    """The strokes (n, 2) float64, y down, and the text, empty where the file has none."""

    strokes: list[np.ndarray]
    text: str


class _Channel:
    """The values of one channel from point to point."""

    def __init__(self) -> None:
        self.value = self.velocity = self.acceleration = 0.0
        self.qualifier = "!"

    def read(self, qualifier: str, text: str) -> float:
        """The value that `text` leads to; NaN where it is unknown."""
        self.qualifier = qualifier or self.qualifier
        if text == "?":
            return float("nan")
        before = {"!": self.value, "'": self.velocity, '"': self.acceleration}[self.qualifier]
        given = before if text == "*" else _number(text)
        if self.qualifier == "!":
            self.velocity, self.value = given - self.value, given
            return given
        if self.qualifier == '"':
            self.acceleration, given = given, self.velocity + given
        self.velocity = given
        self.value += given
        return self.value


def read_inkml(path: str | Path) -> Recorded:
    """The traces of an InkML file that the pen drew, in their order, and the text of its annotation.

    Raises `DataError` for a file that is missing, malformed, or without traces.
    """
    path = Path(path)
    root = read_root(path, "ink")
    try:
        strokes = _strokes(root)
    except (ValueError, OverflowError) as error:
        raise DataError(f"cannot load {str(path)!r}: {error}.") from None
    if not strokes:
        raise DataError(f"cannot load {str(path)!r}: it has no <trace> that the pen drew.")
    return Recorded(strokes, _text(root))


def trace_values(text: str) -> list[list[float]]:
    """The values of each point of a trace; raises `ValueError` for what is no trace.

    >>> trace_values('''1125 18432,'23'43,"7"-8,3-5''')
    [[1125.0, 18432.0], [1148.0, 18475.0], [1178.0, 18510.0], [1211.0, 18540.0]]
    """
    channels: list[_Channel] = []
    points = []
    for part in text.strip().split(","):
        values = list(_values(part))
        channels += [_Channel() for _ in values[len(channels) :]]
        points.append([channel.read(*value) for channel, value in zip(channels, values, strict=False)])
    return points


def _values(part: str) -> Iterator[tuple[str, str]]:
    """Qualifier and value of each channel of a point."""
    part, place = part.strip(), 0
    if len(part) > LONGEST_POINT:
        raise ValueError(f"a point of a trace has more than {LONGEST_POINT:,} characters")
    while place < len(part):
        match = _VALUE.match(part, place)
        if not match:
            raise ValueError(f"{part[place : place + 30]!r} is no value of a trace")
        yield match[1], match[2]
        place = match.end()


def _number(text: str) -> float:
    if text in "TF":
        return float(text == "T")
    return float(int(text.replace("#", ""), 16)) if "#" in text else float(text)


def _strokes(root: etree._Element) -> list[np.ndarray]:
    x, y, down = _channels(root)
    strokes: list[list[np.ndarray]] = []
    total = 0
    for trace in root.iter("{*}trace"):
        if trace.get("type", "penDown") == "penUp":
            continue
        text = "".join(trace.itertext())
        total += text.count(",") + 1
        if total > MOST_POINTS:
            raise ValueError(f"it has more than {MOST_POINTS:,} points")
        points = trace_values(text)
        needed, most = max(x, y) + 1, max(map(len, points))
        if most < needed:
            raise ValueError(f"a trace has {most} channel(s), but X and Y need {needed}")
        ink = np.array([(point[x], point[y]) for point in points if len(point) >= needed]) * (1, down)
        ink = ink[~np.isnan(ink).any(axis=1)]
        if not (np.abs(ink) < _FURTHEST).all():
            raise ValueError(f"a trace leads further than {_FURTHEST:g}")
        if trace.get("continuation") in ("middle", "end") and strokes:
            strokes[-1].append(ink)
        else:
            strokes.append([ink])
    joined = [np.concatenate(parts) for parts in strokes]
    return [stroke for stroke in joined if len(stroke)]


def _channels(root: etree._Element) -> tuple[int, int, int]:
    """Which values of a point are X and Y, and whether Y grows downwards (1, as by default) or upwards (-1)."""
    found = {_channels_of(trace_format) for trace_format in root.iter("{*}traceFormat")} or {(0, 1, 1)}
    if len(found) > 1:
        raise ValueError("its trace formats differ in where X and Y are, which is not read")
    return found.pop()


def _channels_of(trace_format: etree._Element) -> tuple[int, int, int]:
    channels = [child for child in trace_format.iter("{*}channel") if tag(child.getparent()) == "traceFormat"]
    names = [channel.get("name") for channel in channels]
    if not {"X", "Y"} <= set(names):
        raise ValueError(f"its trace format has no channels X and Y, but {', '.join(map(str, names)) or 'none'}")
    x, y = names.index("X"), names.index("Y")
    return x, y, -1 if channels[y].get("orientation") == "-ve" else 1


def _text(root: etree._Element) -> str:
    """Of the annotation of the whole ink, else those of its groups, one after another."""
    for place in ("{*}annotation", "{*}traceGroup/{*}annotation", "{*}traceGroup/{*}traceGroup/{*}annotation"):
        texts = ["".join(each.itertext()) for each in root.findall(place) if each.get("type") in TEXTS]
        if any(texts):
            return " ".join(" ".join(texts).split())
    return ""
