"""A sheet as pixels: PNG, and GIF of the pen at work."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seqdens.animation import write_gif as animate
from seqdens.errors import UsageError
from seqdens.pages.layout import Sheet
from seqdens.pages.pen import Pen, shapes

_PER_INCH = 300  # pixels of a PNG
_PER_MM = 4  # pixels of a GIF
_LARGEST_PNG, _LARGEST_GIF = 100_000_000, 8_000_000  # pixels


def write_png(sheet: Sheet, path: Path, pen: Pen) -> None:
    """Write a sheet with 300 pixels an inch; raises `UsageError` for paper that is too large."""
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure
    from matplotlib.path import Path as Outline

    _check_size(sheet, _PER_INCH / 25.4, _LARGEST_PNG, ".png")
    figure = Figure((sheet.width / 25.4, sheet.height / 25.4), dpi=_PER_INCH, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, sheet.width), ylim=(sheet.height, 0))
    axes.set_axis_off()
    drawn = [shape for line in shapes(sheet, pen) for shape in line]
    if pen.variable:
        ink = PathCollection([Outline(shape, closed=False) for shape in drawn], facecolors=pen.hex, linewidths=0)
    else:
        ink = PathCollection(
            [Outline(shape, [Outline.MOVETO] + [Outline.CURVE4] * (len(shape) - 1)) for shape in drawn],
            facecolors="none",
            edgecolors=pen.hex,
            linewidths=pen.width * 72 / 25.4,
            capstyle="round",
            joinstyle="round",
        )
    axes.add_collection(ink, autolim=False)
    figure.savefig(path, dpi=_PER_INCH, format="png")


def write_gif(sheet: Sheet, path: Path, pen: Pen) -> None:
    """Write a sheet being written, line by line; the line's width does not vary. Raises as `write_png` does."""
    _check_size(sheet, _PER_MM, _LARGEST_GIF, ".gif")
    paper = np.full((round(sheet.height * _PER_MM), round(sheet.width * _PER_MM), 3), 255, np.uint8)
    strokes = [stroke * _PER_MM for line in sheet.lines for stroke in line.strokes]
    with path.open("wb") as file:
        animate(file, paper, [strokes], pen.width * _PER_MM, pen.hex)


def _check_size(sheet: Sheet, per_mm: float, largest: int, suffix: str) -> None:
    if sheet.width * sheet.height * per_mm**2 > largest:
        raise UsageError(
            f"paper of {sheet.width:g} x {sheet.height:g} mm makes too large a {suffix}: write an .svg or a .pdf."
        )
