"""Styles: recorded lines of a hand with their texts, with which a model is primed to write in that hand.

A style keeps its ink as it was recorded; `Style.fit` brings it into a model's units. T offsets of a line.

A style file, `NAME.style`, is a JSON object: `format` "seqdens-style", `version` 1, `text`, `source` (where it is
from), `units` (the data set whose raw units the offsets are in, "" for others), `offsets` (rows dx, dy, stroke_end).
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from seqdens.components import registry
from seqdens.datasets.base import STROKE_END, X, Y
from seqdens.drawing import strokes
from seqdens.errors import DataError, UsageError
from seqdens.export import load_ink
from seqdens.files import replacing, writing
from seqdens.ink.inkml import read_inkml
from seqdens.ink.retrace import retrace
from seqdens.ink.svg import read_svg
from seqdens.offsets import to_offsets
from seqdens.prepare import load
from seqdens.registry import choices

if TYPE_CHECKING:
    from seqdens.model import SequenceModel

COLUMNS = (X, Y, STROKE_END)
SUFFIX = ".style"
INK, SVG, INKML = (".npz", ".csv", ".json"), (".svg",), (".inkml", ".xml")
LONGEST = 200  # characters: a style is a line
FURTHEST = 1e6  # points
_FORMAT, _VERSION = "seqdens-style", 1
_LARGEST = 32 << 20  # bytes; `FURTHEST` points take less, and reading takes some twenty times as many
_NAME = re.compile(r"\w[\w-]{0,99}")


class _File(msgspec.Struct):
    format: str
    version: int
    text: str
    source: str
    units: str
    offsets: list[tuple[float, float, float]]


@dataclass(frozen=True, eq=False)
class Style:
    """A line's `points`, raw offsets (T, 3) float32 dx, dy, stroke_end, and its `text`, spaces between words single.

    `units` names the data set in whose raw units the points are; "" where they are from elsewhere. Raises `DataError`
    for points that are no ink and for a text that is empty or no line's.
    """

    points: np.ndarray
    text: str
    source: str = ""
    units: str = ""

    def __post_init__(self) -> None:
        named = f"the style of {self.source!r}"
        points, text = np.asarray(self.points), " ".join(self.text.split())
        if (
            points.dtype.kind not in "biuf"
            or points.ndim != 2
            or points.shape[1] != 3
            or not 1 < len(points) < FURTHEST
        ):
            raise DataError(
                f"{named} has points {points.dtype} {points.shape}, but must have numbers (T, 3), T above 1."
            )
        if not np.isin(points[:, 2], (0, 1)).all() or not (np.abs(points[:, :2].cumsum(axis=0)) < 1e12).all():
            raise DataError(f"{named} has points that are not finite, or a stroke_end other than 0 and 1.")
        if not 0 < len(text) <= LONGEST:
            wanted = f"the 1 to {LONGEST} characters of one line"
            raise DataError(f"{named} has a text of {len(text)} characters, but must have {wanted}: say what it reads.")
        object.__setattr__(self, "points", points.astype(np.float32))
        object.__setattr__(self, "text", text)

    def fit(self, model: SequenceModel) -> Style:
        """This style in the raw units of `model`, which may be primed with it then.

        Points in the units of its data set stay as they are; others are scaled and sampled as its training data are.
        Raises `UsageError` where the model has not the columns or a character, `DataError` for ink without extent.
        """
        model.check_columns(COLUMNS, "a style")
        unknown = sorted(set(self.text) - set(model.alphabet))
        if model.alphabet and unknown:
            raise UsageError(
                f"the text of the style of {self.source!r} has {' '.join(map(repr, unknown))}, "
                f"which the model has not learnt; it knows {model.alphabet!r}."
            )
        units = str(model.origin.get("dataset", ""))
        if units and units == self.units:
            return self
        try:
            points = retrace(strokes(self.points), len(self.text), np.array(model.std))
        except ValueError as error:
            raise DataError(f"the style of {self.source!r} cannot be fitted to the model: {error}.") from None
        return dataclasses.replace(self, points=points, units=units)

    def save(self, path: str | Path) -> Path:
        """Write a style file, whole or not at all; raises `UsageError` for another suffix than `.style`."""
        path = Path(path)
        if path.suffix.lower() != SUFFIX:
            raise UsageError(f"cannot save {str(path)!r}: the suffix of a style is {SUFFIX!r}.")
        offsets = self.points.astype(str).astype(np.float64).tolist()  # the shortest numbers that read back the same
        content = msgspec.json.encode(_File(_FORMAT, _VERSION, self.text, self.source, self.units, offsets))
        with replacing(path) as temporary:
            temporary.write_bytes(content + b"\n")
        return path


def load_style(
    spec: str | Path,
    text: str | None = None,
    *,
    like: SequenceModel | None = None,
    units: str | None = None,
    **data: Any,
) -> Style:
    """The style that `spec` names, in the units of the model `like` where there is one.

    `spec` is the name of a saved style; `DATASET:ID`, a record of a prepared data set (`data` are options of
    `seqdens.load`: root, cache, ...); or a file: `.style`; `.npz`, `.csv`, `.json` as `seqdens sample` writes them, the
    first record; `.svg`; `.inkml`. `text` is what is written there, in place of what the source says. `units` names the
    data set in whose raw units a file is, so that it is not scaled. Raises `UsageError` and `DataError`.

    >>> style = load_style("hershey:w000-l00001", lines=6, writers=3)
    >>> style.text[:9], style.points.shape[1], style.units
    ('she Rose ', 3, 'hershey')
    """
    known = registry("datasets").names()
    if units is not None and units not in known:
        raise UsageError(f"units are {units!r}, which is no data set; {choices(units, known)}")
    style = _load(str(spec), text, data)
    style = style if units is None else dataclasses.replace(style, units=units)
    return style if like is None else style.fit(like)


def _load(spec: str, text: str | None, data: dict[str, Any]) -> Style:
    dataset, _, record = spec.partition(":")
    if record and dataset in registry("datasets").names():
        return _of_record(dataset, record, text, data)
    given = [name for name, value in data.items() if value is not None]
    if given:
        raise UsageError(f"{spec!r} is no DATASET:ID, so {', '.join(given)} cannot be given.")
    path = Path(spec)
    suffix = path.suffix.lower()
    if not suffix and _NAME.fullmatch(spec):
        path, suffix = _existing(spec), SUFFIX
    if suffix == SUFFIX:
        style = _read(path)
        return style if text is None else dataclasses.replace(style, text=text)
    if suffix in INK:
        ink = load_ink(path)
        if ink.columns != COLUMNS:
            raise DataError(
                f"{spec!r} has columns {', '.join(c.name for c in ink.columns)}, but must have x, y, stroke_end."
            )
        return Style(ink.records[0], text or "", path.name)
    if suffix in SVG:
        return Style(_offsets(read_svg(path), spec), text or "", path.name)
    if suffix in INKML:
        recorded = read_inkml(path)
        return Style(_offsets(recorded.strokes, spec), recorded.text if text is None else text, path.name)
    raise UsageError(
        f"{spec!r} is no style: give a name of `seqdens styles`, DATASET:ID with one of "
        f"{', '.join(registry('datasets').names())}, or a file {', '.join((SUFFIX, *INK, *SVG, *INKML))}."
    )


def _of_record(dataset: str, record: str, text: str | None, options: dict[str, Any]) -> Style:
    prepared = load(dataset, **options)
    ids = list(prepared.ids)
    if record not in ids:
        near = get_close_matches(record, ids, 3) or ids[:3]
        raise UsageError(f"{dataset} has no record {record!r}; of its {len(ids):,} give one such as {', '.join(near)}.")
    if prepared.columns != COLUMNS:
        raise UsageError(
            f"{dataset} has columns {', '.join(c.name for c in prepared.columns)}, but a style x, y, stroke_end."
        )
    index = ids.index(record)
    written = prepared.texts[index] if text is None else text
    return Style(prepared.offsets(index), written, f"{dataset}:{record}", dataset)


def _offsets(ink: Sequence[np.ndarray], source: str) -> np.ndarray:
    """Offsets (T, 3) that draw the strokes (n, 2) `ink`, at a size that 32-bit numbers hold well."""
    ends = np.concatenate([np.arange(len(stroke)) == len(stroke) - 1 for stroke in ink])
    points = np.concatenate(ink)
    extent = np.ptp(points, axis=0).max()
    if not extent > 0:
        raise DataError(f"{source!r} has no ink of any extent.")
    return to_offsets(np.column_stack([points * (1000 / extent), ends]), COLUMNS)


def _read(path: Path) -> Style:
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"it is larger than {_LARGEST >> 20} MiB")
        file = msgspec.json.decode(path.read_bytes(), type=_File)
        if (file.format, file.version) != (_FORMAT, _VERSION):
            raise ValueError(
                f"it is {file.format!r} version {file.version}, but must be {_FORMAT!r} version {_VERSION}"
            )
    except OSError as error:
        raise DataError(f"cannot load {str(path)!r}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"cannot load {str(path)!r}: {' '.join(str(error).split()).rstrip('.')}.") from error
    return Style(np.array(file.offsets, np.float64).reshape(-1, 3), file.text, file.source, file.units)


def styles_folder() -> Path:
    """Where styles are saved by name: `SEQDENS_STYLES`, else `styles` in the user's data folder."""
    if chosen := os.environ.get("SEQDENS_STYLES"):
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_data_dir("seqdens")) / "styles"


def style_names() -> list[str]:
    """The names of the saved styles, sorted."""
    return sorted(path.stem for path in styles_folder().glob(f"*{SUFFIX}") if _NAME.fullmatch(path.stem))


def add_style(name: str, style: Style, replace: bool = False) -> Path:
    """Save a style by name; raises `UsageError` for what is no name, and for one in use that is not to be replaced."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name of a style: use letters, digits, _ and -, at most 100.")
    if name in style_names() and not replace:
        raise UsageError(f"there is a style {name!r} already; choose another name, or replace it (--replace).")
    return style.save(styles_folder() / f"{name}{SUFFIX}")


def remove_style(name: str) -> None:
    """Delete a saved style; raises `UsageError` where there is none of that name."""
    path = _existing(name)
    with writing(path):
        path.unlink()


def _existing(name: str) -> Path:
    names = style_names()
    if name not in names:
        raise UsageError(f"there is no style {name!r} in {styles_folder()}; {choices(name, names)}")
    return styles_folder() / f"{name}{SUFFIX}"
