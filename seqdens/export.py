"""Records to files and back: drawings (SVG, PNG, GIF) and data (npz, CSV, JSON).

n records, T offsets of a record, N of all, D columns. Data files hold float32 offsets in raw units; CSV and JSON
add the positions they lead to from (0, 0). A column is written as its name where it is one of `datasets.base`,
else as "name kind [size] [role] [difference]".

- `.npz`: `offsets` (N, D), `starts` (n + 1,) of the records in it, `columns` (D,); no pickles.
- `.csv`: an offset a row: record from 0, step from 1, dx, dy, the other columns, the position x, y it leads to.
- `.json`: a list of `{"columns": [...], "offsets": [[...], ...], "strokes": [[[x, y], ...], ...]}`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from seqdens import npz
from seqdens.datasets.base import SEQUENCE_END, STROKE_END, Column, X, Y
from seqdens.drawing import COLUMNS, SUFFIXES, draw, strokes
from seqdens.errors import DataError, UsageError
from seqdens.files import reading, replacing
from seqdens.offsets import to_points

_KNOWN = {column.name: column for column in (X, Y, STROKE_END, SEQUENCE_END)}
_CHANGES = {"dx": X, "dy": Y}  # how a CSV file names the offsets, beside the positions x and y
_COLUMN = re.compile(
    r"(?P<name>.+?) (?P<kind>real|binary|category)( (?P<size>[1-9]\d{0,8}))?"
    r"( (?P<role>stroke_end|sequence_end))?(?P<difference> difference)?"
)


class Ink(NamedTuple):
    """What a data file holds: for each record its offsets (T, D) float32, in raw units."""

    records: list[np.ndarray]
    columns: tuple[Column, ...]


class _Drawing(msgspec.Struct):
    columns: list[str]
    offsets: list[list[float]]
    strokes: list[list[list[float]]] = []


def save_records(
    records: Sequence[np.ndarray],
    path: str | Path,
    *,
    columns: Sequence[Column] = COLUMNS,
    title: str = "",
    captions: Sequence[str] | None = None,
) -> Path:
    """Save records, offsets (T, D) in raw units, in the format that the suffix of `path` names.

    `title` and `captions` stand on drawings only. The file appears whole or not at all, its folder is made.
    Raises `UsageError` for another suffix and no records, `DataError` for a place that cannot be written and
    for records that are not finite or do not fit their columns.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return draw(records, path, columns=columns, title=title, captions=captions)
    if suffix not in _WRITERS:
        raise UsageError(
            f"cannot save {str(path)!r}: its suffix is {path.suffix!r}, but must be one of "
            f"{', '.join([*SUFFIXES, *_WRITERS])}."
        )
    if not len(records):
        raise UsageError(f"cannot save {str(path)!r}: there are no records.")
    checked = _checked([np.asarray(record) for record in records], columns, f"cannot save {str(path)!r}")
    with replacing(path) as temporary:
        _WRITERS[suffix](checked, columns, temporary)
    return path


def load_ink(path: str | Path) -> Ink:
    """The records of an `.npz`, `.csv` or `.json` file as `save_records` writes it; executes nothing in it.

    Raises `UsageError` for another suffix, `DataError` for a file that is missing or malformed.
    """
    path = Path(path)
    if path.suffix.lower() not in _READERS:
        raise UsageError(
            f"cannot load {str(path)!r}: its suffix is {path.suffix!r}, but must be one of {', '.join(_READERS)}."
        )
    with reading(path, "`seqdens sample` writes such files"):
        records, columns = _READERS[path.suffix.lower()](path)
    if not records or len({column.name for column in columns}) < len(columns):
        raise DataError(f"cannot load {str(path)!r}: it holds no records, or two columns of one name.")
    return Ink(_checked(records, columns, f"cannot load {str(path)!r}"), columns)


def _checked(records: Sequence[np.ndarray], columns: Sequence[Column], failure: str) -> list[np.ndarray]:
    with np.errstate(over="ignore", invalid="ignore"):
        for index, record in enumerate(records):
            if (
                record.ndim != 2
                or record.shape[1] != len(columns)
                or not record.size
                or record.dtype.kind not in "biuf"
            ):
                raise DataError(
                    f"{failure}: record {index} is {record.dtype} {record.shape}, but must be numbers "
                    f"(T, {len(columns)}), T at least 1."
                )
            for column, values in zip(columns, record.astype(np.float32).T, strict=True):
                _check_column(column, values, f"{failure}: record {index}")
        return [record.astype(np.float32) for record in records]


def _check_column(column: Column, values: np.ndarray, failure: str) -> None:
    reached = values.cumsum(dtype=np.float64).astype(np.float32) if column.difference else values
    whole = values == np.rint(values)
    fit = np.isfinite(reached) if column.states is None else whole & (values >= 0) & (values < column.states)
    if not fit.all():
        row = int(fit.argmin())
        wanted = "finite" if column.states is None else f"a whole number from 0 to {column.states - 1}"
        raise DataError(f"{failure} has {reached[row]} in row {row} of column {column.name!r}, which must be {wanted}.")


def _describe(column: Column) -> str:
    if _KNOWN.get(column.name) == column:
        return column.name
    size = str(column.size) if column.size != 1 else ""
    words = (column.name, column.kind, size, column.role, "difference" if column.difference else "")
    return " ".join(word for word in words if word)


def _column(text: str) -> Column:
    """The inverse of `_describe`."""
    if text in _KNOWN:
        return _KNOWN[text]
    match = _COLUMN.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not a column: it must be one of {', '.join(_KNOWN)} or 'name kind'")
    name, kind, size, role, difference = match.group("name", "kind", "size", "role", "difference")
    return msgspec.convert((name, kind, int(size or 1), role or "", bool(difference)), Column)


def _plain(values: np.ndarray) -> list[Any]:
    """Nested lists of the shortest numbers that read back as these float32."""
    return values.astype(np.float32).astype(str).astype(np.float64).tolist()


def _write_npz(records: Sequence[np.ndarray], columns: Sequence[Column], path: Path) -> None:
    starts = np.cumsum([0, *map(len, records)])
    with path.open("wb") as file:
        np.savez(
            file,
            offsets=np.concatenate(records),
            starts=starts,
            columns=np.array([_describe(c) for c in columns]),
        )


def _read_npz(path: Path) -> Ink:
    offsets, starts, names = npz.read(path, ("offsets", "starts", "columns"))
    if names.dtype.kind != "U" or names.ndim != 1:
        raise ValueError(f"'columns' is {names.dtype} {names.shape}, but must be texts (D,)")
    if offsets.ndim != 2:
        raise ValueError(f"'offsets' has shape {offsets.shape}, but must be (N, D)")
    if starts.dtype.kind not in "iu" or starts.ndim != 1 or len(starts) < 2:
        raise ValueError(f"'starts' is {starts.dtype} {starts.shape}, but must be whole numbers (n + 1,)")
    if starts[0] != 0 or starts[-1] != len(offsets) or (starts[1:] <= starts[:-1]).any():
        raise ValueError(f"'starts' must rise from 0 to the {len(offsets)} rows of 'offsets'")
    return Ink(np.split(offsets, starts[1:-1].astype(np.int64)), tuple(_column(str(name)) for name in names))


def _write_csv(records: Sequence[np.ndarray], columns: Sequence[Column], path: Path) -> None:
    names = {column: name for name, column in _CHANGES.items()}
    located = [index for index, column in enumerate(columns) if column in names]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        changes = [names.get(column) or _describe(column) for column in columns]
        writer.writerow(["record", "step", *changes, *(columns[index].name for index in located)])
        for number, record in enumerate(records):
            positions = to_points(record, columns)[-len(record) :, located]
            for step, row in enumerate(_plain(np.hstack([record, positions])), start=1):
                writer.writerow([number, step, *(repr(value).removesuffix(".0") for value in row)])


def _read_csv(path: Path) -> Ink:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if header[:2] != ["record", "step"]:
            raise ValueError("its first line must begin with 'record,step,'")
        kept = [index for index, name in enumerate(header) if index > 1 and name not in ("x", "y")]
        columns = tuple(_CHANGES.get(header[index]) or _column(header[index]) for index in kept)
        rows: dict[str, list[list[float]]] = {}
        for row in reader:
            record = rows.setdefault(row[0] if row else "", [])
            if len(row) != len(header) or row[1] != str(len(record) + 1):
                raise ValueError(f"line {reader.line_num} must have {len(header)} fields, and steps must count from 1")
            record.append([float(row[index]) for index in kept])
    return Ink([np.array(record) for record in rows.values()], columns)


def _write_json(records: Sequence[np.ndarray], columns: Sequence[Column], path: Path) -> None:
    names = [_describe(column) for column in columns]
    drawings = [
        _Drawing(names, _plain(record), [_plain(stroke) for stroke in strokes(record, columns)]) for record in records
    ]
    path.write_bytes(msgspec.json.encode(drawings) + b"\n")


def _read_json(path: Path) -> Ink:
    drawings = msgspec.json.decode(path.read_bytes(), type=list[_Drawing])
    described = {tuple(drawing.columns) for drawing in drawings}
    if len(described) > 1:
        raise ValueError("its records differ in their columns")
    columns = tuple(_column(text) for names in described for text in names)
    return Ink([np.array(drawing.offsets) for drawing in drawings], columns)


_WRITERS: dict[str, Callable[[Sequence[np.ndarray], Sequence[Column], Path], None]] = {
    ".npz": _write_npz,
    ".csv": _write_csv,
    ".json": _write_json,
}
_READERS: dict[str, Callable[[Path], Ink]] = {".npz": _read_npz, ".csv": _read_csv, ".json": _read_json}
