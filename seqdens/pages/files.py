"""Sheets to files, in the format that a suffix names, and back from those that hold data."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from seqdens.errors import DataError, UsageError
from seqdens.files import reading, replacing
from seqdens.pages.data import read_json, read_npz, write_json, write_npz
from seqdens.pages.gcode import Plotter, write_gcode
from seqdens.pages.layout import Sheet
from seqdens.pages.pdf import write_pdf
from seqdens.pages.pen import Pen
from seqdens.pages.raster import write_gif, write_png
from seqdens.pages.svg import write_svg

_PICTURES: dict[str, Callable[[Sheet, Path, Pen], None]] = {".svg": write_svg, ".png": write_png, ".gif": write_gif}
_GCODE = (".gcode", ".nc")
_DATA: dict[str, Callable[[Sequence[Sheet], Path], None]] = {".json": write_json, ".npz": write_npz}
_READERS: dict[str, Callable[[Path], list[Sheet]]] = {".json": read_json, ".npz": read_npz}
_TOLERANCE = 0.01  # mm
SUFFIXES = (*_PICTURES, ".pdf", *_DATA, *_GCODE)


def save_sheets(
    sheets: Sequence[Sheet], path: str | Path, *, pen: Pen | None = None, plotter: Plotter | None = None
) -> list[Path]:
    """Save sheets in the format that the suffix of `path` names; returns the files written.

    A `.pdf`, `.json` or `.npz` holds all sheets. Of the others, several sheets make a file each: page-1.svg,
    page-2.svg for page.svg. All files appear whole or none does, their folder is made. A pen's width and colour are
    those of pictures; in a `.gif` its line does not vary. Raises `UsageError` for another suffix, no sheets, and paper
    too large for pixels, `DataError` for pages and lines without ink, ink that is not finite or not on the paper, and
    a place that cannot be written.
    """
    path, pen, plotter = Path(path), pen or Pen(), plotter or Plotter()
    check_suffix(path)
    if not sheets:
        raise UsageError(f"cannot save {str(path)!r}: there are no lines.")
    _check(sheets, f"cannot save {str(path)!r}")
    suffix = path.suffix.lower()
    parts = [sheets] if suffix == ".pdf" or suffix in _DATA else [[sheet] for sheet in sheets]
    paths = _numbered(path, len(parts))
    with ExitStack() as files:
        for part, place in zip(parts, [files.enter_context(replacing(each)) for each in paths], strict=True):
            _write(part, place, suffix, pen, plotter)
    return paths


def load_sheets(path: str | Path) -> list[Sheet]:
    """The sheets of a `.json` or `.npz` file as `save_sheets` writes it; executes nothing in it.

    Raises `UsageError` for another suffix, `DataError` for a file that is missing or malformed.
    """
    path = Path(path)
    if path.suffix.lower() not in _READERS:
        raise UsageError(
            f"cannot load {str(path)!r}: its suffix is {path.suffix!r}, but must be one of {', '.join(_READERS)}."
        )
    with reading(path, "`seqdens write` writes such files"):
        sheets = _READERS[path.suffix.lower()](path)
        if not sheets:
            raise ValueError("it holds no pages")
    _check(sheets, f"cannot load {str(path)!r}")
    return sheets


def check_suffix(path: Path) -> None:
    """Raises `UsageError` for a file that `save_sheets` could not write, before anything is drawn for it."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"cannot save {str(path)!r}: its suffix is {path.suffix!r}, but must be one of {', '.join(SUFFIXES)}."
        )


def _write(sheets: Sequence[Sheet], path: Path, suffix: str, pen: Pen, plotter: Plotter) -> None:
    if suffix in _DATA:
        _DATA[suffix](sheets, path)
    elif suffix == ".pdf":
        write_pdf(sheets, path, pen)
    elif suffix in _GCODE:
        write_gcode(sheets[0], path, plotter)
    else:
        _PICTURES[suffix](sheets[0], path, pen)


def _numbered(path: Path, count: int) -> list[Path]:
    """`path`, or as many as wanted with numbers of equal length before the suffix."""
    if count == 1:
        return [path]
    return [path.with_stem(f"{path.stem}-{number:0{len(str(count))}}") for number in range(1, count + 1)]


def _check(sheets: Sequence[Sheet], failure: str) -> None:
    for page, sheet in enumerate(sheets, start=1):
        if not sheet.lines or not all(line.strokes for line in sheet.lines):
            raise DataError(f"{failure}: page {page} has no lines, or one without strokes.")
        for number, line in enumerate(sheet.lines, start=1):
            if not line.text.isascii() and any(unicodedata.category(character) == "Cs" for character in line.text):
                raise DataError(f"{failure}: the text {line.text!r} is not Unicode.")
            for stroke in line.strokes:
                _check_stroke(stroke, sheet, f"{failure}: line {number} of page {page}")


def _check_stroke(stroke: np.ndarray, sheet: Sheet, failure: str) -> None:
    if stroke.ndim != 2 or stroke.shape[1] != 2 or not len(stroke):
        raise DataError(f"{failure} has a stroke {stroke.shape}, but it must be (n, 2), n at least 1.")
    inside = (stroke >= -_TOLERANCE) & (stroke <= (sheet.width + _TOLERANCE, sheet.height + _TOLERANCE))
    if not inside.all():
        x, y = stroke[inside.all(axis=1).argmin()]
        raise DataError(f"{failure} goes to {x:g}, {y:g}, off its paper of {sheet.width:g} x {sheet.height:g} mm.")
