"""The prepared form of a data set: one HDF5 file of flat columns, written once, memory-mapped ever after.

n records, N offsets of all records together, R real columns, S binary and category columns ("states").
The layout is `docs/cache-format.md`. Equal input gives equal bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, NamedTuple, overload

import h5py
import numpy as np

from seqdens.datasets.base import SPLITS, Column, Record, Skipped, Split
from seqdens.errors import DataError

FORMAT = "seqdens-cache"
SCHEMA_VERSION = 1
BLOCK = 1 << 18  # rows copied at a time, so that memory does not grow with the data


class Provenance(NamedTuple):
    """What a cache was made from; two caches of equal provenance hold the same data."""

    dataset: str
    reader_version: int
    options: str  # sorted JSON
    columns: str  # JSON
    fingerprint: str  # of the sources
    synthetic: bool
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def of(
        cls,
        dataset: str,
        reader_version: int,
        options: dict[str, Any],
        columns: Sequence[Column],
        fingerprint: str,
        synthetic: bool,
    ) -> Provenance:
        """Options and columns brought into their stored form."""
        stored_options = json.dumps(options, sort_keys=True, default=str)
        stored_columns = json.dumps([list(column) for column in columns])
        return cls(dataset, reader_version, stored_options, stored_columns, fingerprint, synthetic)

    def differences(self, other: Provenance) -> list[str]:
        """A clause for each field in which `other` differs."""
        return [
            f"{name} {mine!r} is now {theirs!r}"
            for name, mine, theirs in zip(self._fields, self, other, strict=True)
            if mine != theirs
        ]


class Strings(Sequence[str]):
    """Texts of all records in one array of UTF-8 bytes."""

    def __init__(self, data: np.ndarray, starts: np.ndarray) -> None:
        self._data, self._starts = data, starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return bytes(self._data[self._starts[index] : self._starts[index + 1]]).decode()


class Prepared:
    """A prepared data set, memory-mapped: opening takes milliseconds and memory is what is touched.

    `mean` and `std` (R,) are float64 statistics of the training offsets in raw units; `starts` (n + 1,) says
    where a record's offsets begin. Raises `DataError` for a file that is cut short or is no such cache.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with h5py.File(self.path, "r") as file:
                self.provenance = _read_provenance(file)
                self.mean, self.std = (np.array(file.attrs[name]) for name in ("mean", "std"))
                self.columns = tuple(Column(*column) for column in json.loads(self.provenance.columns))
                self.starts = self._map(file["starts"])
                self.splits = self._map(file["splits"])
                self._reals, self._states = self._map(file["reals"]), self._map(file["states"])
                self.ids, self.texts, self.groups, self.labels, paths, reasons = (
                    Strings(self._map(file[f"{name}/bytes"]), self._map(file[f"{name}/starts"]))
                    for name in ("ids", "texts", "groups", "labels", "skipped/paths", "skipped/reasons")
                )
                self.alphabet = bytes(self._map(file["alphabet"])).decode()
        except FileNotFoundError:
            raise DataError(f"there is no prepared data set at {self.path}; make it with `seqdens prepare`.") from None
        except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise DataError(
                f"{self.path} is no complete seqdens cache ({error}); delete it and prepare again."
            ) from None
        self.skipped = [Skipped(path, reason) for path, reason in zip(paths, reasons, strict=True)]
        self._real_columns = [i for i, column in enumerate(self.columns) if column.kind == "real"]
        self._state_columns = [i for i, column in enumerate(self.columns) if column.kind != "real"]

    def _map(self, dataset: h5py.Dataset) -> np.ndarray:
        if not dataset.size:
            return np.empty(dataset.shape, dataset.dtype)
        return np.memmap(self.path, dataset.dtype, "r", dataset.id.get_offset(), dataset.shape)

    def __reduce__(self) -> tuple[type[Prepared], tuple[Path]]:
        return Prepared, (self.path,)

    def __len__(self) -> int:
        return len(self.splits)

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self.split(name))} {name}" for name in SPLITS)
        return f"<Prepared {self.provenance.dataset}: {counts}; {self.starts[-1]} offsets>"

    def lengths_of(self, records: np.ndarray) -> np.ndarray:
        """How many offsets each of these records has."""
        return self.starts[records + 1] - self.starts[records]

    def split(self, name: Split) -> np.ndarray:
        """Indices of the records of a split, ascending."""
        return np.flatnonzero(self.splits == SPLITS.index(name))

    def offsets(self, index: int, out: np.ndarray | None = None) -> np.ndarray:
        """Record `index` as float32 (T, D) in raw units; NaN where a real value is missing."""
        rows = slice(self.starts[index], self.starts[index + 1])
        if out is None:
            out = np.empty((rows.stop - rows.start, len(self.columns)), np.float32)
        out[:, self._real_columns] = self._reals[rows]
        out[:, self._state_columns] = self._states[rows]
        return out


def write(
    path: Path, provenance: Provenance, items: Iterable[Record | Skipped], *, max_skipped: float = 1.0
) -> Prepared:
    """Write offsets (records whose `points` are offsets already) under `path`, replacing it only when complete.

    Raises `DataError` where no training record came, or more than the share `max_skipped` was skipped; what
    stood at `path` before then stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [Column(*column) for column in json.loads(provenance.columns)]
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        spool = _Spool(Path(folder), columns)
        for item in items:
            spool.add(item)
        spool.check(provenance.dataset, max_skipped)
        finished = Path(folder) / "cache.h5"
        with h5py.File(finished, "w") as file:
            for name, value in provenance._asdict().items():
                file.attrs[name] = value
            file.attrs["format"] = FORMAT
            spool.write(file)
        os.replace(finished, path)
    return Prepared(path)


def _read_provenance(file: h5py.File) -> Provenance:
    if file.attrs.get("format") != FORMAT:
        raise ValueError("its format attribute is missing")
    if file.attrs["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema version {file.attrs['schema_version']}, this seqdens reads {SCHEMA_VERSION}")
    values = {name: file.attrs[name] for name in Provenance._fields}
    return Provenance(
        **{name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    )


class _Moments:
    """Mean and standard deviation of rows in float64, merged block by block (Chan et al. 1979); NaN is left out."""

    def __init__(self, size: int) -> None:
        self.count, self.mean, self.squares = np.zeros(size), np.zeros(size), np.zeros(size)

    def add(self, rows: np.ndarray) -> None:
        here = ~np.isnan(rows)
        count = here.sum(axis=0)
        mean = np.where(here, rows, 0).sum(axis=0) / np.maximum(count, 1)
        squares = (np.where(here, rows - mean, 0) ** 2).sum(axis=0)
        total = np.maximum(self.count + count, 1)
        delta = mean - self.mean
        self.mean += delta * count / total
        self.squares += squares + delta**2 * self.count * count / total
        self.count += count

    def std(self) -> np.ndarray:
        std = np.sqrt(self.squares / np.maximum(self.count, 1))
        return np.where(std > 0, std, 1.0)  # a constant column stays as it is


class _Column:
    """Rows spooled to a file until their number and narrowest type are known."""

    def __init__(self, path: Path, width: int, dtype: type) -> None:
        self.file: BinaryIO = path.open("w+b")
        self.width, self.dtype, self.rows = width, np.dtype(dtype), 0

    def add(self, rows: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(rows, self.dtype).tobytes())
        self.rows += len(rows)

    def blocks(self) -> Iterator[np.ndarray]:
        self.file.seek(0)
        while block := self.file.read(BLOCK * self.width * self.dtype.itemsize):
            yield np.frombuffer(block, self.dtype).reshape(-1, self.width)

    def write(self, file: h5py.File, name: str, dtype: np.dtype) -> None:
        shape = (self.rows, self.width)
        if not self.width:
            file.create_dataset(name, shape, dtype)
            return
        target = file.create_dataset(name, shape, dtype)
        row = 0
        for block in self.blocks():
            target[row : row + len(block)] = block
            row += len(block)


class _Spool:
    """Everything a cache will hold, gathered record by record with bounded memory for the points."""

    def __init__(self, folder: Path, columns: Sequence[Column]) -> None:
        self.real_columns = [i for i, column in enumerate(columns) if column.kind == "real"]
        self.state_columns = [i for i, column in enumerate(columns) if column.kind != "real"]
        self.reals = _Column(folder / "reals", len(self.real_columns), np.float64)
        self.states = _Column(folder / "states", len(self.state_columns), np.int32)
        self.moments = _Moments(len(self.real_columns))
        self.integer, self.low, self.high, self.top_state = True, 0.0, 0.0, 0
        self.starts, self.splits = [0], list[int]()
        self.strings: dict[str, list[str]] = {
            name: [] for name in ("ids", "texts", "groups", "labels", "skipped/paths", "skipped/reasons")
        }

    def add(self, item: Record | Skipped) -> None:
        if isinstance(item, Skipped):
            self.strings["skipped/paths"].append(item.path)
            self.strings["skipped/reasons"].append(item.reason)
            return
        reals, states = item.points[:, self.real_columns], item.points[:, self.state_columns]
        self.integer &= np.issubdtype(item.points.dtype, np.integer)
        if self.integer and reals.size:
            self.low, self.high = min(self.low, reals.min()), max(self.high, reals.max())
        if states.size:
            self.top_state = max(self.top_state, int(states.max()))
        if item.split == "train":
            self.moments.add(reals)
        self.reals.add(reals)
        self.states.add(states)
        self.starts.append(self.starts[-1] + len(item.points))
        self.splits.append(SPLITS.index(item.split))
        for name, text in (
            ("ids", item.id),
            ("texts", item.text),
            ("groups", item.group),
            ("labels", item.label),
        ):
            self.strings[name].append(text)

    def check(self, dataset: str, max_skipped: float) -> None:
        paths, reasons = self.strings["skipped/paths"], self.strings["skipped/reasons"]
        first = f"; the first: {paths[0]}: {reasons[0]}" if paths else ""
        share = len(paths) / max(1, len(paths) + len(self.splits))
        if share > max_skipped:
            raise DataError(
                f"{len(paths)} of {len(paths) + len(self.splits)} items of {dataset} could not be read "
                f"({share:.1%}, at most {max_skipped:.1%} may fail){first}"
            )
        if SPLITS.index("train") not in self.splits:
            raise DataError(f"{dataset} has no training records among {len(self.splits)}{first}.")

    def real_type(self) -> np.dtype:
        for dtype in (np.int16, np.int32):
            if self.integer and np.iinfo(dtype).min <= self.low and self.high <= np.iinfo(dtype).max:
                return np.dtype(dtype)
        return np.dtype(np.float32)

    def write(self, file: h5py.File) -> None:
        file.attrs["mean"], file.attrs["std"] = self.moments.mean, self.moments.std()
        file["starts"] = np.array(self.starts, np.int64)
        file["splits"] = np.array(self.splits, np.int8)
        self.reals.write(file, "reals", self.real_type())
        self.states.write(file, "states", np.dtype(np.int8 if self.top_state < 128 else np.int32))
        for name, texts in self.strings.items():
            encoded = [text.encode() for text in texts]
            file[f"{name}/bytes"] = np.frombuffer(b"".join(encoded), np.uint8)
            file[f"{name}/starts"] = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        alphabet = "".join(sorted(set().union(*self.strings["texts"])))
        file["alphabet"] = np.frombuffer(alphabet.encode(), np.uint8)
