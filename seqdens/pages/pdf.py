"""Sheets as the pages of one PDF file: paths alone, no fonts and no images, the same bytes for the same sheets.

The format is that of ISO 32000-1, version 1.4 of PDF.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from seqdens.pages.curves import numbers
from seqdens.pages.layout import Sheet
from seqdens.pages.pen import Pen, shapes

_POINT = 72 / 25.4  # a mm in points, the unit of pages


def write_pdf(sheets: Sequence[Sheet], path: Path, pen: Pen) -> None:
    """Write sheets, each a page of its own size."""
    pages = range(3, 3 + 2 * len(sheets), 2)
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Count {len(sheets)}/Kids[{' '.join(f'{page} 0 R' for page in pages)}]>>".encode(),
    ]
    for page, sheet in zip(pages, sheets, strict=True):
        content = zlib.compress(_content(sheet, pen).encode())
        box = f"0 0 {sheet.width * _POINT:.3f} {sheet.height * _POINT:.3f}"
        objects += [
            f"<</Type/Page/Parent 2 0 R/MediaBox[{box}]/Resources<<>>/Contents {page + 1} 0 R>>".encode(),
            b"<</Length %d/Filter/FlateDecode>>stream\n%b\nendstream" % (len(content), content),
        ]
    path.write_bytes(_file(objects))


def _file(objects: Sequence[bytes]) -> bytes:
    """Numbered objects, the first of which is the catalogue, with the table that says where each begins."""
    parts, starts = [b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n"], []
    for number, content in enumerate(objects, start=1):
        starts.append(sum(map(len, parts)))
        parts.append(b"%d 0 obj\n%b\nendobj\n" % (number, content))
    table = b"".join(b"%010d 00000 n \n" % start for start in starts)
    size = len(objects) + 1
    parts.append(
        b"xref\n0 %d\n0000000000 65535 f \n%btrailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n"
        % (size, table, size, sum(map(len, parts)))
    )
    return b"".join(parts)


def _content(sheet: Sheet, pen: Pen) -> str:
    """The operators that draw a sheet in mm, y down."""
    red, green, blue = (f"{share:.4g}" for share in pen.rgb)
    setup = [
        f"{_POINT:.6f} 0 0 {-_POINT:.6f} 0 {sheet.height * _POINT:.3f} cm",
        f"{red} {green} {blue} RG {red} {green} {blue} rg {pen.width:.4g} w 1 J 1 j",
    ]
    draw = _polygon if pen.variable else _curve
    return "\n".join([*setup, *(draw(shape) for drawn in shapes(sheet, pen) for shape in drawn)])


def _curve(points: np.ndarray) -> str:
    start, *rest = numbers(points)
    segments = zip(rest[::3], rest[1::3], rest[2::3], strict=True)
    return "\n".join([f"{start} m", *(f"{a} {b} {c} c" for a, b, c in segments), "S"])


def _polygon(points: np.ndarray) -> str:
    start, *rest = numbers(points)
    return "\n".join([f"{start} m", *(f"{corner} l" for corner in rest), "f"])
