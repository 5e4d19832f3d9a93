"""The prepared form of a data set: one HDF5 file of flat columns, written once, memory-mapped ever after.

n records, N offsets of all records together, R real columns, S binary and category columns ("states").
The layout is `docs/cache-format.md`. Equal input gives equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, overload

import h5py
import numpy as np
from h5py import h5f, h5fd, h5g, h5p

from seqdens.datasets.base import SPLITS, Column, Record, Skipped, Split
from seqdens.errors import DataError, UsageError
from seqdens.files import replacing
from seqdens.registry import choices, one_line

FORMAT = "seqdens-cache"
SCHEMA_VERSION = 2
BLOCK = 1 << 18  # rows copied at a time, so that memory does not grow with the data
ALIGNMENT = 8  # bytes, of the widest number
STRINGS = ("ids", "texts", "groups", "labels", "skipped/paths", "skipped/reasons")


class Provenance(NamedTuple):
    """What a cache was made from; two caches of equal provenance hold the same data."""

    dataset: str
    reader_version: int
    options: str  # sorted JSON
    columns: str  # JSON
    synthetic: bool
    sources: str  # digest of their names, splits and file sizes
    contents: str  # digest of what is in the files, empty where that was not asked for
    record_name: str = "record"  # what a person calls one
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def of(
        cls,
        dataset: str,
        reader_version: int,
        options: dict[str, Any],
        columns: Sequence[Column],
        synthetic: bool,
        sources: str,
        contents: str = "",
        record_name: str = "record",
    ) -> Provenance:
        """Options and columns brought into their stored form."""
        stored_options = json.dumps(options, sort_keys=True, default=str)
        stored_columns = json.dumps([list(column) for column in columns])
        return cls(dataset, reader_version, stored_options, stored_columns, synthetic, sources, contents, record_name)

    def differences(self, other: Provenance) -> list[str]:
        """A clause for each field in which `other` differs."""
        digests = {"sources": "the files' names or sizes", "contents": "the files' contents"}
        return [
            f"{digests[name]} have changed" if name in digests else f"{name} {mine!r} is now {theirs!r}"
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
        position = range(len(self))[index]
        if isinstance(position, range):
            return [self[i] for i in position]
        return bytes(self._data[self._starts[position] : self._starts[position + 1]]).decode()


class Prepared:
    """A prepared data set, memory-mapped: opening takes milliseconds and memory is what is touched.

    `mean` and `std` (R,) are float64 statistics of the training offsets in raw units, 0 and 1 where there are none;
    `starts` (n + 1,) says where a record's offsets begin. Raises `DataError` for a file that is cut short or is no such
    cache.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        try:
            # One opened file for both readers: another process may put a new cache at this path at any time.
            with self.path.open("rb") as raw, h5py.File(raw, "r") as file:
                self._open(raw, file)
        except FileNotFoundError:
            raise DataError(f"there is no prepared data set at {self.path}; make it with `seqdens prepare`.") from None
        except Exception as error:  # h5py has no error of its own for damaged files
            raise DataError(
                f"{self.path} is no complete cache of this version of seqdens ({one_line(error)}); prepare it again."
            ) from error

    def _open(self, raw: BinaryIO, file: h5py.File) -> None:
        def mapped(name: str) -> np.ndarray:
            dataset = file[name]
            if not dataset.size:
                return np.empty(dataset.shape, dataset.dtype)
            return np.memmap(raw, dataset.dtype, "r", dataset.id.get_offset(), dataset.shape)

        def strings(name: str) -> Strings:
            return Strings(mapped(f"{name}/bytes"), mapped(f"{name}/starts"))

        self.provenance = _read_provenance(file)
        self.columns = tuple(Column(*column) for column in json.loads(self.provenance.columns))
        self._real_columns, self._state_columns = _by_kind(self.columns)
        self.mean, self.std = np.array(file.attrs["mean"]), np.array(file.attrs["std"])
        self.starts, self.splits = mapped("starts"), mapped("splits")
        self._reals, self._states = mapped("reals"), mapped("states")
        self.ids, self.texts, self.groups, self.labels = map(strings, ("ids", "texts", "groups", "labels"))
        skipped = zip(strings("skipped/paths"), strings("skipped/reasons"), strict=True)
        self.skipped = [Skipped(path, reason) for path, reason in skipped]
        self.alphabet = bytes(mapped("alphabet")).decode()
        self._check_shapes()

    def _check_shapes(self) -> None:
        rows = int(self.starts[-1])
        shapes = [self._reals.shape, self._states.shape]
        if shapes != [(rows, len(self._real_columns)), (rows, len(self._state_columns))]:
            raise ValueError(f"reals and states of shapes {shapes} for {rows} offsets")
        lengths = {len(strings) for strings in (self.splits, self.ids, self.texts, self.groups, self.labels)}
        if lengths != {len(self.starts) - 1}:
            raise ValueError(f"{len(self.starts) - 1} records with {sorted(lengths)} splits and texts")

    def __reduce__(self) -> tuple[type[Prepared], tuple[Path]]:
        return Prepared, (self.path,)

    def __len__(self) -> int:
        return len(self.splits)

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self.split(name))} {name}" for name in SPLITS)
        return f"<Prepared {self.provenance.dataset}: {counts}; {self.starts[-1]} offsets>"

    @property
    def integer(self) -> bool:
        """Whether the real columns hold whole numbers, as they came."""
        return bool(np.issubdtype(self._reals.dtype, np.integer))

    def lengths_of(self, records: np.ndarray) -> np.ndarray:
        """How many offsets each of these records has."""
        return self.starts[records + 1] - self.starts[records]

    def split(self, name: Split | Literal["all"]) -> np.ndarray:
        """Indices of the records of a split, or of all, ascending; raises `UsageError` for another name."""
        if name == "all":
            return np.arange(len(self))
        if name not in SPLITS:
            raise UsageError(f"there is no split {name!r}; {choices(name, (*SPLITS, 'all'))}")
        return np.flatnonzero(self.splits == SPLITS.index(name))

    def check_trainable(self) -> None:
        """Raises `DataError` where there are no training records."""
        if not len(self.split("train")):
            raise DataError(f"{self.provenance.dataset} has no training records among {len(self)}.")

    def offsets(self, index: int, out: np.ndarray | None = None) -> np.ndarray:
        """Record `index` as float32 (T, D) in raw units; NaN where a real value is missing."""
        index = range(len(self))[index]
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

    Raises `DataError` where no record came, or more than the share `max_skipped` was skipped, and
    for a place that cannot be written; what stood at `path` before then stays.
    """
    columns = [Column(*column) for column in json.loads(provenance.columns)]
    with replacing(path) as temporary, closing(_Spool(temporary.parent, columns)) as spool:
        for item in items:
            spool.add(item)
        check_skipped(provenance.dataset, len(spool.splits), spool.skipped, max_skipped)
        if not spool.splits:
            raise DataError(f"{provenance.dataset} has no records.")
        with _create(temporary) as file:
            file.attrs.update({name: _stored(value) for name, value in provenance._asdict().items()})
            file.attrs["format"] = _stored(FORMAT)
            spool.write(file)
    return Prepared(path)


def check_skipped(dataset: str, records: int, skipped: Sequence[Skipped], max_skipped: float) -> None:
    """Raises `DataError`, naming the first, where more than the share `max_skipped` of all items was skipped."""
    items = records + len(skipped)
    if len(skipped) > max_skipped * items:
        raise DataError(
            f"{len(skipped)} of {items} items of {dataset} could not be read, more than the {max_skipped:.1%} "
            f"that may fail; mend or remove them; the first: {skipped[0].path}: {skipped[0].reason}."
        )


def _read_provenance(file: h5py.File) -> Provenance:
    if _plain(file.attrs.get("format")) != FORMAT:
        raise ValueError("its format attribute is missing")
    if file.attrs["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema version {file.attrs['schema_version']}, this seqdens reads {SCHEMA_VERSION}")
    return Provenance(**{name: _plain(file.attrs[name]) for name in Provenance._fields})


@contextmanager
def _create(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file of empty groups, without time stamps, and with checksums without which damage can crash HDF5."""
    creation, access, group = (h5p.create(kind) for kind in (h5p.FILE_CREATE, h5p.FILE_ACCESS, h5p.GROUP_CREATE))
    creation.set_obj_track_times(False)
    group.set_obj_track_times(False)
    access.set_alignment(1, ALIGNMENT)
    access.set_libver_bounds(h5f.LIBVER_V110, h5f.LIBVER_LATEST)
    with _Output(path) as output:
        access.set_fileobj_driver(h5fd.fileobj_driver, output)
        with h5py.File(h5f.create(b"of no driver", h5f.ACC_TRUNC, creation, access)) as file:
            for name in ("skipped", *STRINGS):
                h5g.create(file.id, name.encode(), gcpl=group)
            yield file
        if output.error:
            raise output.error


class _Output(FileIO):
    """A new file whose first error of writing is kept in mind: told of it, HDF5 may crash when it closes the file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        with self._keeping_error():
            while rest and not self.error:
                rest = rest[super().write(rest) :]
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        with self._keeping_error():
            return super().truncate(size)
        return size or 0

    @contextmanager
    def _keeping_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error


def _stored(value: Any) -> Any:
    """A text as HDF5 text of fixed length: one of variable length lies where there are no checksums."""
    if not isinstance(value, str):
        return value
    encoded = value.encode()
    return np.array(encoded, h5py.string_dtype(length=max(1, len(encoded))))


def _plain(value: Any) -> Any:
    """What `_stored` stored."""
    value = value.item() if isinstance(value, np.generic) else value
    return value.decode() if isinstance(value, bytes) else value


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
        return np.where(std > 1e-12 * np.abs(self.mean), std, 1.0)  # a constant column stays as it is


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
        target = file.create_dataset(name, (self.rows, self.width), dtype)
        row = 0
        for block in self.blocks():
            target[row : row + len(block)] = block
            row += len(block)


class _Spool:
    """Everything a cache will hold, gathered record by record with bounded memory for the points."""

    def __init__(self, folder: Path, columns: Sequence[Column]) -> None:
        self.real_columns, self.state_columns = _by_kind(columns)
        self.reals = _Column(folder / "reals", len(self.real_columns), np.float64)
        self.states = _Column(folder / "states", len(self.state_columns), np.int32)
        self.moments = _Moments(len(self.real_columns))
        self.integer, self.low, self.high, self.top_state = True, 0.0, 0.0, 0
        self.starts, self.splits, self.skipped = [0], list[int](), list[Skipped]()
        self.strings: dict[str, list[bytes]] = {name: [] for name in STRINGS}

    def close(self) -> None:
        self.reals.file.close()
        self.states.file.close()

    def add(self, item: Record | Skipped) -> None:
        if isinstance(item, Skipped):
            self.skipped.append(item)
            self.add_strings({"skipped/paths": item.path, "skipped/reasons": item.reason})
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
        self.add_strings({"ids": item.id, "texts": item.text, "groups": item.group, "labels": item.label})

    def add_strings(self, texts: dict[str, str]) -> None:
        for name, text in texts.items():
            self.strings[name].append(text.encode(errors="backslashreplace"))  # of file names that are no Unicode

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
            file[f"{name}/bytes"] = np.frombuffer(b"".join(texts), np.uint8)
            file[f"{name}/starts"] = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        alphabet = "".join(sorted(set(b"".join(self.strings["texts"]).decode())))
        file["alphabet"] = np.frombuffer(alphabet.encode(), np.uint8)


def _by_kind(columns: Sequence[Column]) -> tuple[list[int], list[int]]:
    """Positions of the real columns, and of the others."""
    real = [index for index, column in enumerate(columns) if column.kind == "real"]
    return real, [index for index in range(len(columns)) if index not in real]
