"""Offsets to ink on a page, as SVG, PNG or animated GIF.

T offsets of a record, D columns of an offset, n points of a stroke. Offsets are in raw device units, pages in
pixels, both y down. The pen starts at (0, 0), itself a point, so that T offsets draw T + 1 points.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape

import numpy as np

from seqdens.datasets.base import STROKE_END, Column, X, Y
from seqdens.errors import DataError, UsageError
from seqdens.files import replacing
from seqdens.offsets import to_points

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = (X, Y, STROKE_END)

_WIDTH, _TALLEST = 1000.0, 360.0  # of the drawable part of a page; of a record
_MARGIN, _GUTTER, _NARROWEST = 24.0, 36.0, 80.0
_TITLE, _CAPTION, _LEADING = 14.0, 11.0, 1.35
_WIDE = 3.0  # width / height from which records lie one below the other
_MOST_COLUMNS = 6
_INK, _GREY = "#1c1c28", "#6b6b76"
_PER_INCH = 128  # page pixels; a power of two, so that pages are whole pixels exactly
_DENSITY = 2  # PNG pixels per page pixel
_LONGEST_PNG = 30_000
_LARGEST_GIF = 8_000_000  # pixels of a frame


class _Text(NamedTuple):
    x: float
    baseline: float
    content: str
    size: float
    colour: str


class _Page(NamedTuple):
    """What is drawn where, in pixels: of each record its strokes (n, 2)."""

    width: int
    height: int
    pen: float
    inks: list[list[np.ndarray]]
    texts: list[_Text]
    title: str


def strokes(offsets: np.ndarray, columns: Sequence[Column] = COLUMNS) -> list[np.ndarray]:
    """The strokes (n, 2) float64 of offsets (T, D), in raw units, up to the first sequence end.

    Raises `UsageError` for a wrong shape or columns without x and y, `DataError` where the ink is not finite.
    """
    offsets = np.asarray(offsets)
    if offsets.ndim != 2 or offsets.shape[1] != len(columns) or not offsets.size or offsets.dtype.kind not in "biuf":
        raise UsageError(
            f"a record of {offsets.dtype} {offsets.shape} cannot be drawn: it must be numbers "
            f"(T, {len(columns)}), T at least 1, for the columns {', '.join(column.name for column in columns)}."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        points = to_points(offsets, columns)
    ends = np.flatnonzero(_is_set(points, columns, "sequence_end"))
    points = points[: ends[0] + 1] if len(ends) else points
    ink = points[:, [_position_of(name, columns) for name in ("x", "y")]]
    finite = (np.abs(ink) <= np.finfo(np.float32).max).all(axis=1)
    if not finite.all():
        raise DataError(f"a record cannot be drawn: its point {finite.argmin()} of {len(ink)} is not finite.")
    lifted = np.flatnonzero(_is_set(points, columns, "stroke_end")) + 1
    return [stroke for stroke in np.split(ink, lifted) if len(stroke)]


def draw(
    records: Sequence[np.ndarray],
    path: str | Path,
    *,
    columns: Sequence[Column] = COLUMNS,
    title: str = "",
    captions: Sequence[str] | None = None,
) -> Path:
    """Draw records, offsets (T, D) in raw units, on one page at one scale, as `.svg`, `.png` or an animated `.gif`.

    Lines lie one below the other, squarer ink in a grid; a caption stands above its record. The file appears
    whole or not at all, its folder is made. Raises what `strokes` raises, and `UsageError` for no records,
    another suffix or captions that do not match, `DataError` for a place that cannot be written.

    >>> line = np.array([[30, 0, 0], [0, 40, 1], [25, -40, 0], [0, 40, 1]])  # dx, dy, stroke_end
    >>> draw([line, line], "lines.svg", captions=["one", "two"]).read_text().count("<path")
    4
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _WRITERS:
        raise UsageError(
            f"cannot draw {str(path)!r}: its suffix is {path.suffix!r}, but must be one of {', '.join(_WRITERS)}."
        )
    if not len(records):
        raise UsageError(f"cannot draw {str(path)!r}: there are no records.")
    captions = [""] * len(records) if captions is None else captions
    if len(captions) != len(records):
        raise UsageError(f"there are {len(captions)} captions for {len(records)} records: give each record one.")
    page = _lay_out([strokes(record, columns) for record in records], title, captions)
    _WRITERS[suffix](page, path)
    return path


def is_ink(columns: Sequence[Column]) -> bool:
    """Whether records of these columns can be drawn."""
    return {"x", "y"} <= {column.name for column in columns}


def _position_of(name: str, columns: Sequence[Column]) -> int:
    names = [column.name for column in columns]
    if name not in names:
        raise UsageError(f"records without a column {name!r} cannot be drawn; there are: {', '.join(names)}.")
    return names.index(name)


def _is_set(points: np.ndarray, columns: Sequence[Column], role: str) -> np.ndarray:
    """(T,) bool: a column of this role is set."""
    positions = [index for index, column in enumerate(columns) if column.role == role]
    return np.asarray((points[:, positions] > 0.5).any(axis=1))


def _lay_out(inks: list[list[np.ndarray]], title: str, captions: Sequence[str]) -> _Page:
    """Rows as high as what they hold, records left-aligned, the largest just fitting its column."""
    corners = np.array([np.concatenate(ink).min(axis=0) for ink in inks])
    sizes = np.array([np.concatenate(ink).max(axis=0) for ink in inks]) - corners
    count = _columns_for(sizes)
    cell = (_WIDTH - _GUTTER * (count - 1)) / count
    scale = 1.0 / max(sizes[:, 0].max() / cell, sizes[:, 1].max() / _TALLEST, 1e-9)
    sizes *= scale
    cell = max(sizes[:, 0].max(), _NARROWEST)
    height = float(np.median(sizes[:, 1]))
    gap = float(np.clip(0.35 * height, 14.0, 40.0))

    width = max(count * cell + _GUTTER * (count - 1), 3 * _NARROWEST)
    texts, top = _write(title, _MARGIN, _MARGIN, width, _TITLE, _INK)
    top += _TITLE * bool(texts)
    placed: list[list[np.ndarray]] = []
    for first in range(0, len(inks), count):
        row = range(first, min(first + count, len(inks)))
        lefts = [_MARGIN + (cell + _GUTTER) * (index - first) for index in row]
        labels = [
            _write(captions[index], left, top, cell, _CAPTION, _GREY) for index, left in zip(row, lefts, strict=True)
        ]
        texts += [text for label, _ in labels for text in label]
        base = max(bottom for _, bottom in labels)
        top = base + 0.5 * _CAPTION * (base > top)
        for index, left in zip(row, lefts, strict=True):
            placed.append([(stroke - corners[index]) * scale + (left, top) for stroke in inks[index]])
        top += sizes[row, 1].max() + gap
    pen = float(np.clip(0.022 * height, 0.8, 2.5))
    return _Page(ceil(width + 2 * _MARGIN), ceil(top - gap + _MARGIN), pen, placed, texts, title)


def _columns_for(sizes: np.ndarray) -> int:
    """One column for lines; for squarer ink as many as make a page about half as wide again as it is high."""
    width, height = sizes.mean(axis=0)
    if width >= _WIDE * height:
        return 1
    return min(ceil((1.5 * len(sizes) * height / max(width, 0.05 * height)) ** 0.5), len(sizes), _MOST_COLUMNS)


def _write(content: str, left: float, top: float, width: float, size: float, colour: str) -> tuple[list[_Text], float]:
    """`content` wrapped to a width, and where it ends."""
    lines = wrap(printable(content), max(1, int(width / (0.6 * size))))
    step = _LEADING * size
    texts = [_Text(left, top + step * index + size, line, size, colour) for index, line in enumerate(lines)]
    return texts, top + step * len(lines)


def printable(content: str) -> str:
    """`content` without what XML cannot hold."""
    return " ".join("".join(character if character.isprintable() else " " for character in content).split())


def _write_svg(page: _Page, path: Path) -> None:
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{page.width}" height="{page.height}" '
        f'viewBox="0 0 {page.width} {page.height}">',
        f"<title>{escape(printable(page.title))}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    lines += [
        f'<text x="{text.x:.2f}" y="{text.baseline:.2f}" font-family="sans-serif" font-size="{text.size:g}" '
        f'fill="{text.colour}">{escape(text.content)}</text>'
        for text in page.texts
    ]
    for ink in page.inks:
        lines.append(
            f'<g fill="none" stroke="{_INK}" stroke-width="{page.pen:.2f}" '
            'stroke-linecap="round" stroke-linejoin="round">'
        )
        lines += [f'<path d="{_path(stroke)}"/>' for stroke in ink]
        lines.append("</g>")
    with replacing(path) as temporary:
        temporary.write_text("\n".join([*lines, "</svg>", ""]), encoding="utf-8")


def _path(stroke: np.ndarray) -> str:
    start, *rest = (f"{x:.2f} {y:.2f}" for x, y in stroke)
    return f"M {start} L {' '.join(rest)}" if rest else f"M {start} h 0"


def _write_png(page: _Page, path: Path) -> None:
    if _DENSITY * max(page.width, page.height) > _LONGEST_PNG:
        raise _too_large(page, path)
    with replacing(path) as temporary:
        _render(page).savefig(temporary, dpi=_PER_INCH * _DENSITY)


def _write_gif(page: _Page, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from seqdens.animation import write_gif

    if page.width * page.height > _LARGEST_GIF:
        raise _too_large(page, path)
    canvas = FigureCanvasAgg(_render(page._replace(inks=[])))
    canvas.draw()
    with replacing(path) as temporary, temporary.open("wb") as file:
        write_gif(file, np.asarray(canvas.buffer_rgba())[:, :, :3], page.inks, page.pen, _INK)


def _too_large(page: _Page, path: Path) -> UsageError:
    return UsageError(
        f"{len(page.inks)} records make a page of {page.width} x {page.height} pixels, too large for "
        f"{str(path)!r}: draw fewer or write an .svg."
    )


def _render(page: _Page) -> Figure:
    """The page as a figure with one dot for each of its pixels."""
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    point = 72 / _PER_INCH
    figure = Figure((page.width / _PER_INCH, page.height / _PER_INCH), dpi=_PER_INCH, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, page.width), ylim=(page.height, 0))
    axes.set_axis_off()
    for ink in page.inks:
        lines = LineCollection(ink, colors=_INK, linewidths=page.pen * point, capstyle="round", joinstyle="round")
        axes.add_collection(lines, autolim=False)
        dots = [stroke[0] for stroke in ink if np.ptp(stroke, axis=0).max() < 0.01]
        if dots:
            x, y = np.transpose(dots)
            axes.scatter(x, y, s=(page.pen * point) ** 2, color=_INK, linewidths=0)
    for text in page.texts:
        axes.text(text.x, text.baseline, text.content, fontsize=text.size * point, color=text.colour, parse_math=False)
    return figure


_WRITERS = {".svg": _write_svg, ".png": _write_png, ".gif": _write_gif}
SUFFIXES = tuple(_WRITERS)
