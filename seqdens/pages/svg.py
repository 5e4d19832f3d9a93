"""A sheet as SVG: a group for each line of writing, with its text as label."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

from seqdens.drawing import printable
from seqdens.pages.curves import numbers
from seqdens.pages.layout import Sheet
from seqdens.pages.pen import Pen, shapes

_LINE = 'fill="none" stroke="{pen.hex}" stroke-width="{pen.width:g}" stroke-linecap="round" stroke-linejoin="round"'


def write_svg(sheet: Sheet, path: Path, pen: Pen) -> None:
    """Write a sheet in its own size; 1 unit is 1 mm."""
    style = f'fill="{pen.hex}"' if pen.variable else _LINE.format(pen=pen)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{sheet.width:g}mm" height="{sheet.height:g}mm" '
        f'viewBox="0 0 {sheet.width:g} {sheet.height:g}">',
        '<rect width="100%" height="100%" fill="white"/>',
        f"<g {style}>",
    ]
    draw = _polygon if pen.variable else _curve
    for line, drawn in zip(sheet.lines, shapes(sheet, pen), strict=True):
        lines.append(f"<g aria-label={quoteattr(printable(line.text))}>")
        lines += [f'<path d="{draw(shape)}"/>' for shape in drawn]
        lines.append("</g>")
    path.write_text("\n".join([*lines, "</g>", "</svg>", ""]), encoding="utf-8")


def _curve(points: np.ndarray) -> str:
    start, *rest = numbers(points)
    return f"M{start}C{' '.join(rest)}"


def _polygon(points: np.ndarray) -> str:
    return f"M{' '.join(numbers(points))}Z"
