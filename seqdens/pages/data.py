"""Sheets as data, and back: JSON and NPZ. Lengths in mm from the paper's top left corner, y down.

- `.json`: `{"pages": [{"width": 148.0, "height": 210.0, "lines": [{"text": "...", "strokes": [[[x, y], ...]]}]}]}`.
- `.npz`: `points` (N, 2), where each stroke starts in them, `strokes` (S + 1,), each line in the strokes, `lines`
  (L + 1,), each page in the lines, `pages` (P + 1,), `sizes` (P, 2) of the pages, `texts` (L,); no pickles.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from seqdens.pages.layout import Line, Sheet


class _Line(msgspec.Struct):
    text: str
    strokes: list[list[tuple[float, float]]]


class _Page(msgspec.Struct):
    width: float
    height: float
    lines: list[_Line]


class _Document(msgspec.Struct):
    pages: list[_Page]


def write_json(sheets: Sequence[Sheet], path: Path) -> None:
    """Write sheets as JSON."""
    pages = [
        _Page(width, height, [_Line(line.text, [stroke.tolist() for stroke in line.strokes]) for line in lines])
        for width, height, lines in sheets
    ]
    path.write_bytes(msgspec.json.encode(_Document(pages)) + b"\n")


def read_json(path: Path) -> list[Sheet]:
    """Read what `write_json` wrote; raises `ValueError` for anything else."""
    document = msgspec.json.decode(path.read_bytes(), type=_Document)
    return [
        Sheet(page.width, page.height, [Line(line.text, [np.array(s) for s in line.strokes]) for line in page.lines])
        for page in document.pages
    ]


def write_npz(sheets: Sequence[Sheet], path: Path) -> None:
    """Write sheets as flat arrays."""
    lines = [line for sheet in sheets for line in sheet.lines]
    strokes = [stroke for line in lines for stroke in line.strokes]
    with path.open("wb") as file:
        np.savez(
            file,
            points=np.concatenate(strokes),
            strokes=np.cumsum([0, *map(len, strokes)]),
            lines=np.cumsum([0, *(len(line.strokes) for line in lines)]),
            pages=np.cumsum([0, *(len(sheet.lines) for sheet in sheets)]),
            sizes=np.array([(sheet.width, sheet.height) for sheet in sheets]),
            texts=np.array([line.text for line in lines]),
        )


def read_npz(path: Path) -> list[Sheet]:
    """Read what `write_npz` wrote; executes nothing in it; raises `ValueError` or `KeyError` for anything else."""
    with path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is one array, not an archive of arrays")
        points, sizes, texts = (archive[name] for name in ("points", "sizes", "texts"))
        if points.dtype.kind != "f" or sizes.dtype.kind != "f" or texts.dtype.kind != "U":
            raise ValueError("its points and sizes must be floating-point numbers, its texts text")
        strokes = _parts(points, archive["strokes"])
        lines = [Line(str(text), drawn) for text, drawn in zip(texts, _parts(strokes, archive["lines"]), strict=True)]
        return [
            Sheet(float(width), float(height), kept)
            for (width, height), kept in zip(sizes, _parts(lines, archive["pages"]), strict=True)
        ]


def _parts(whole: Any, starts: np.ndarray) -> list[Any]:
    """A sequence cut where its parts start; the last of `starts` is its end."""
    if starts.dtype.kind != "i" or starts.ndim != 1 or (np.diff([0, *starts, len(whole)]) < 0).any():
        raise ValueError("where its strokes, lines or pages start must be rising whole numbers")
    if starts[:1].tolist() != [0] or starts[-1] != len(whole):
        raise ValueError("its strokes, lines or pages do not start at 0 and end with the last")
    return [whole[start:end] for start, end in pairwise(starts)]
