"""Lines of drawn ink to sheets of paper.

All lines get one scale, by which their letters fit the height of a line, and stand on baselines at equal
distances. Lengths on paper are in mm, from the top left corner, y down.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from seqdens.datasets.base import Column
from seqdens.drawing import COLUMNS, strokes
from seqdens.errors import UsageError
from seqdens.pages.baseline import measure

PAPERS = {
    "A3": (297.0, 420.0),
    "A4": (210.0, 297.0),
    "A5": (148.0, 210.0),
    "A6": (105.0, 148.0),
    "letter": (215.9, 279.4),
    "legal": (215.9, 355.6),
}
ALIGNMENTS = ("left", "centre", "right")

_BODY, _ASCENT = 0.3, 0.7  # of a line's height: of letters without ascender, from its top to the baseline
_CAPITAL = 1.75  # heights of such letters
_ADVANCE = 1.3  # of a letter and what follows it, in such heights
_SMALLEST = 0.5  # share of the size that the line height asks for
_SMALLEST_PAPER, _LARGEST_PAPER = 10.0, 2000.0
_DECIMALS = 4
_TOLERANCE = 1e-3  # mm


class Line(NamedTuple):
    """One line on paper: what it says, and its strokes (n, 2) in mm."""

    text: str
    strokes: list[np.ndarray]


class Sheet(NamedTuple):
    """One side of paper: its size in mm, and its lines."""

    width: float
    height: float
    lines: list[Line]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How writing stands on paper, lengths in mm; raises `UsageError` for values that leave nothing to write on.

    Options:
        paper: A3, A4, A5, A6, letter or legal, or its width and height in mm: "297x210"
        margin: free on each side
        line_height: from one baseline to the next
        align: left, centre or right
        width: that a line may fill; None for all between the margins
        straighten: whether lines that rise or fall are turned level
    """

    paper: str = "A4"
    margin: float = 20.0
    line_height: float = 10.0
    align: str = "left"
    width: float | None = None
    straighten: bool = True

    def __post_init__(self) -> None:
        width, height = self.size
        if not 0 <= self.margin < 0.5 * min(width, height):
            raise UsageError(
                f"a margin of {self.margin:g} mm leaves nothing of paper of {width:g} x {height:g} mm: "
                f"it must be from 0 to less than {0.5 * min(width, height):g}."
            )
        if not 0 < self.line_height <= height - 2 * self.margin:
            raise UsageError(
                f"a line height of {self.line_height:g} mm must be more than 0 and no more than the "
                f"{height - 2 * self.margin:g} mm between the margins."
            )
        if self.width is not None and not 0 < self.width <= width - 2 * self.margin:
            raise UsageError(
                f"a width of {self.width:g} mm must be more than 0 and no more than the "
                f"{width - 2 * self.margin:g} mm between the margins."
            )
        if self.align not in ALIGNMENTS:
            raise UsageError(f"an alignment {self.align!r} does not exist: it must be one of {', '.join(ALIGNMENTS)}.")

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the paper."""
        named = {name.lower(): size for name, size in PAPERS.items()}.get(self.paper.lower())
        if named:
            return named
        match = re.fullmatch(r"(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)", self.paper, re.ASCII | re.IGNORECASE)
        width, height = map(float, match.groups()) if match else (0.0, 0.0)
        if not _SMALLEST_PAPER <= min(width, height) <= max(width, height) <= _LARGEST_PAPER:
            raise UsageError(
                f"a paper {self.paper!r} does not exist: it must be one of {', '.join(PAPERS)}, or a width and a "
                f"height from {_SMALLEST_PAPER:g} to {_LARGEST_PAPER:g} mm, such as 297x210."
            )
        return width, height

    @property
    def writable(self) -> float:
        """The width that a line may fill."""
        return self.size[0] - 2 * self.margin if self.width is None else self.width

    def characters(self, advance: float = _ADVANCE) -> int:
        """How many characters a line holds, if each takes `advance` times the height of letters without ascender."""
        return max(1, int(self.writable / (advance * _BODY * self.line_height)))


class _Inked(NamedTuple):
    """A line of ink about (0, 0), the start of its baseline: strokes, its box, and the height of its letters."""

    text: str
    strokes: list[np.ndarray]
    width: float
    ascent: float
    descent: float
    body: float


def lay_out(
    lines: Sequence[np.ndarray],
    texts: Sequence[str],
    layout: Layout,
    *,
    columns: Sequence[Column] = COLUMNS,
    scale: float | None = None,
    smallest: float = _SMALLEST,
) -> list[Sheet]:
    """Sheets with these lines, offsets (T, D) in raw units with y down; a line without offsets leaves a gap.

    `scale` is in mm per raw unit; by default letters get the size that the line height asks for, all smaller if the
    widest line needs it, but no smaller than the share `smallest` of that. Raises what `drawing.strokes` raises, and
    `UsageError` for no ink, texts that do not match, and lines that do not fit.
    """
    if len(lines) != len(texts):
        raise UsageError(f"there are {len(texts)} texts for {len(lines)} lines: give each line one.")
    inked = [
        _inked(strokes(line, columns), text, layout.straighten) if len(line) else None
        for line, text in zip(lines, texts, strict=True)
    ]
    written = [line for line in inked if line]
    if not written:
        raise UsageError("there are no lines to lay out.")
    scale = _scale(written, layout, smallest) if scale is None else scale
    if not 0 < scale < math.inf:
        raise UsageError(f"a scale of {scale} mm per unit must be more than 0 and finite.")
    return _placed([line and _scaled(line, scale) for line in inked], layout)


def advance(line: np.ndarray, text: str, columns: Sequence[Column] = COLUMNS) -> float:
    """What a character of a line takes, in heights of letters without ascender, as `Layout.characters` wants it."""
    inked = _inked(strokes(line, columns), text, straighten=True)
    return inked.width / (max(1, len(text)) * (inked.body or _guess(inked)))


def _inked(ink: list[np.ndarray], text: str, straighten: bool) -> _Inked:
    slope, y, body = measure(ink)
    points = np.concatenate(ink)
    if straighten:
        cosine = 1 / math.hypot(1, slope)
        level = cosine * np.array([[1, -slope], [slope, 1]])
        ink, points, y = [stroke @ level for stroke in ink], points @ level, cosine * y
    else:
        y += slope * 0.5 * (points[:, 0].min() + points[:, 0].max())
    left, right = points[:, 0].min(), points[:, 0].max()
    if not any(character.islower() for character in text):
        body /= _CAPITAL
    return _Inked(
        text,
        [stroke - (left, y) for stroke in ink],
        float(right - left),
        float(y - points[:, 1].min()),
        float(points[:, 1].max() - y),
        body,
    )


def _scale(lines: Sequence[_Inked], layout: Layout, smallest: float) -> float:
    """The scale of the usual letter, or that of the widest line where it is smaller."""
    cased = [line for line in lines if line.body and any(map(str.islower, line.text))]
    bodies = [line.body for line in cased or lines if line.body] or [_guess(line) for line in lines]
    wanted = _BODY * layout.line_height / float(np.median(bodies))
    widest = max(lines, key=lambda line: line.width)
    return min(wanted, max(smallest * wanted, layout.writable / max(widest.width, 1e-9)))


def _guess(line: _Inked) -> float:
    """The height of letters where there are none, such as in dashes and dots."""
    return max(line.width / max(1, len(line.text)), line.ascent + line.descent, 1e-9) / _ADVANCE


def _scaled(line: _Inked, scale: float) -> _Inked:
    width, ascent, descent, body = (scale * length for length in line[2:])
    return _Inked(line.text, [scale * stroke for stroke in line.strokes], width, ascent, descent, body)


def _placed(lines: Sequence[_Inked | None], layout: Layout) -> list[Sheet]:
    """Line below line; a new sheet where one does not fit, which no gap begins."""
    sheets: list[Sheet] = []
    baseline = math.inf
    top, bottom = layout.margin, layout.size[1] - layout.margin
    for number, line in enumerate(lines, start=1):
        baseline += layout.line_height
        if line is None:
            continue
        _check_fits(line, number, layout)
        baseline = max(baseline, top + line.ascent)
        if baseline + line.descent > bottom + _TOLERANCE:
            sheets.append(Sheet(*layout.size, []))
            first = max(top + _ASCENT * layout.line_height, top + line.ascent)
            baseline = min(first, bottom - line.descent)
        start = (_left(line.width, layout), baseline)
        ink = [np.round(stroke + start, _DECIMALS) for stroke in line.strokes]
        sheets[-1].lines.append(Line(line.text, ink))
    return sheets


def _left(width: float, layout: Layout) -> float:
    """Where a line of this width begins, so that lines fill `writable` mm beside a margin or amid the paper."""
    paper, free = layout.size[0], layout.writable - width
    if layout.align == "left":
        return layout.margin
    if layout.align == "right":
        return paper - layout.margin - width
    return 0.5 * (paper - layout.writable + free)


def _check_fits(line: _Inked, number: int, layout: Layout) -> None:
    space = layout.size[1] - 2 * layout.margin
    if line.width > layout.writable + _TOLERANCE:
        raise UsageError(
            f"line {number} of {len(line.text)} characters is {line.width:.0f} mm wide, but may fill "
            f"{layout.writable:g} mm: wrap the text to fewer characters, choose a smaller line height or wider paper."
        )
    if line.ascent + line.descent > space + _TOLERANCE:
        raise UsageError(
            f"line {number} is {line.ascent + line.descent:.0f} mm high, but the paper has {space:g} mm between its "
            "margins: choose a smaller line height or larger paper."
        )
