"""The prepared form of a data set: HDF5 files of flat columns, written once, memory-mapped ever after.

n records, N offsets of all records together, R real columns, S binary and category columns ("states").
The layout is `docs/cache-format.md`. Equal input gives equal bytes. A data set is in one file, or in shards that
follow each other.
"""

from __future__ import annotations

import json
import mmap
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import closing, contextmanager
from functools import reduce
from io import FileIO
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, overload

import h5py
import msgspec
import numpy as np
from h5py import h5f, h5fd, h5g, h5p

from seqdens import hdf5
from seqdens.datasets.base import SPLITS, Column, Record, Skipped, Split, check_columns
from seqdens.errors import DataError, UsageError
from seqdens.files import replacing
from seqdens.interrupts import uninterrupted
from seqdens.moments import Moments, check_scaling
from seqdens.registry import choices, one_line
from seqdens.spool import STRINGS, Spool, by_kind

FORMAT = "seqdens-cache"
SCHEMA_VERSION = 2
BLOCK = 1 << 18  # records looked at together, so that memory does not grow with their number
MOST_ATTRIBUTES = 64
ALIGNMENT = 8  # bytes, of the widest number


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
    shard: str = ""  # "2/8", the second part of eight; empty for the whole

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
        shard: str = "",
    ) -> Provenance:
        """Options and columns brought into their stored form."""
        stored_options = json.dumps(options, sort_keys=True, default=str)
        stored_columns = json.dumps([list(column) for column in columns])
        about = cls(dataset, reader_version, stored_options, stored_columns, synthetic, sources, contents, record_name)
        return about._replace(shard=shard)

    def differences(self, other: Provenance) -> list[str]:
        """A clause for each field in which `other` differs."""
        digests = {"sources": "the files' names or sizes", "contents": "the files' contents"}
        return [
            f"{digests[name]} have changed" if name in digests else f"{name} {mine!r} is now {theirs!r}"
            for name, mine, theirs in zip(self._fields, self, other, strict=True)
            if mine != theirs
        ]


class Strings(Sequence[str]):
    """Texts of all records: of each file, UTF-8 bytes and where each starts; taking what is none raises `DataError`."""

    def __init__(self, *parts: tuple[np.ndarray, np.ndarray]) -> None:
        self.parts, self._firsts = parts, _firsts([starts[1:] for _, starts in parts])

    def __len__(self) -> int:
        return self._firsts[-1]

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        position = range(len(self))[index]
        if isinstance(position, range):
            return [self[i] for i in position]
        part = bisect_right(self._firsts, position) - 1
        data, starts = self.parts[part]
        inside = position - self._firsts[part]
        begin, end = starts[inside : inside + 2]
        if end < begin:
            raise DataError(f"text {position} of a cache ends before it begins; prepare it again.")
        try:
            return bytes(data[begin:end]).decode()
        except UnicodeDecodeError:
            raise DataError(f"text {position} of a cache is no UTF-8; prepare it again.") from None

    def empty(self) -> np.ndarray:
        """Positions of the texts that are empty."""
        found = [np.flatnonzero(starts[1:] == starts[:-1]) for _, starts in self.parts]
        return np.concatenate([here + first for here, first in zip(found, self._firsts, strict=False)])


def _firsts(parts: Iterable[Sized]) -> list[int]:
    """Where each part begins in all of them together, and where the last ends."""
    return [0, *accumulate(map(len, parts))]


class _File:
    """One memory-mapped file: a whole data set or a shard of one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as raw:  # once: another process may put a new cache at this path at any time
                self._open(raw, hdf5.File(raw))
        except FileNotFoundError:
            raise DataError(f"there is no prepared data set at {path}; make it with `seqdens prepare`.") from None
        except Exception as error:  # h5py has no error of its own for damaged files
            raise DataError(
                f"{path} is no complete cache of this version of seqdens ({one_line(error)}); prepare it again."
            ) from error

    def _open(self, raw: BinaryIO, file: hdf5.File) -> None:
        buffer = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)  # one for all arrays: each keeps the file open

        def mapped(name: str, *types: str) -> np.ndarray:
            dataset = file[name]
            if dataset.dtype.name not in types:
                raise ValueError(f"{name} of {dataset.dtype}, not {' or '.join(types)}")
            if len(dataset.shape) != 1 + (name in ("reals", "states")):
                raise ValueError(f"{name} of shape {dataset.shape}")
            return np.frombuffer(buffer, dataset.dtype, dataset.size, dataset.offset).reshape(dataset.shape)

        def strings(name: str) -> Strings:
            return Strings((mapped(f"{name}/bytes", "uint8"), mapped(f"{name}/starts", "int64")))

        self.provenance = _read_provenance(file)
        self.columns = msgspec.convert(json.loads(self.provenance.columns), tuple[Column, ...])
        check_columns("it", self.columns)
        self.mean, self.std = np.array(file.attrs["mean"]), np.array(file.attrs["std"])
        self.starts, self.splits = mapped("starts", "int64"), mapped("splits", "int8")
        self.reals = mapped("reals", "int16", "int32", "float32")
        self.states = mapped("states", "int8", "int32")
        self.ids, self.texts, self.groups, self.labels = map(strings, ("ids", "texts", "groups", "labels"))
        self.skipped_paths, self.skipped_reasons = strings("skipped/paths"), strings("skipped/reasons")
        self.alphabet = bytes(mapped("alphabet", "uint8")).decode()
        self.moments = Moments.from_json(bytes(mapped("moments", "uint8"))) if self.provenance.shard else None
        self._check_shapes()

    def _check_shapes(self) -> None:
        rows = int(self.starts[-1])
        parts = (self.starts[first : first + BLOCK + 1] for first in range(0, len(self), BLOCK))
        if self.starts[0] != 0 or not all((part[1:] > part[:-1]).all() for part in parts):
            raise ValueError("starts do not rise from 0")
        shapes, widths = [self.reals.shape, self.states.shape], [len(kind) for kind in by_kind(self.columns)]
        if not self.mean.shape == self.std.shape == (widths[0],):
            raise ValueError(f"mean and std of shapes {self.mean.shape} and {self.std.shape}")
        check_scaling(self.mean, self.std)
        if self.moments and not self.moments.give(self.mean, self.std):
            raise ValueError("mean and std are not those of its moments")
        if shapes != [(rows, width) for width in widths]:
            raise ValueError(f"reals and states of shapes {shapes} for {rows} offsets")
        lengths = {len(strings) for strings in (self.splits, self.ids, self.texts, self.groups, self.labels)}
        if lengths != {len(self)}:
            raise ValueError(f"{len(self)} records with {sorted(lengths)} splits and texts")
        if len(self.skipped_paths) != len(self.skipped_reasons):
            raise ValueError(f"{len(self.skipped_reasons)} reasons for {len(self.skipped_paths)} that were skipped")

    def __len__(self) -> int:
        return len(self.starts) - 1


class Prepared:
    """A prepared data set, memory-mapped: opening takes milliseconds and memory is what is touched.

    `path` is its file, or those of all shards in their order, which are opened as one. `mean` and `std` (R,) are
    float64 statistics of the training offsets in raw units, 0 and 1 where there are none. Raises `DataError` for a
    file that is cut short or is no such cache, and for shards that do not make one data set.
    """

    def __init__(self, path: str | Path, *more: str | Path) -> None:
        self._take([_File(Path(each).absolute()) for each in (path, *more)])

    @classmethod
    def joined(cls, shards: Sequence[Prepared]) -> Prepared:
        """Shards that are opened already as one data set."""
        prepared = cls.__new__(cls)
        prepared._take([file for shard in shards for file in shard._files])
        return prepared

    def _take(self, files: Sequence[_File]) -> None:
        self._files, self._firsts = files, _firsts(files)
        self.paths = tuple(file.path for file in files)
        first = files[0]
        self.path, self.provenance, self.columns = first.path, first.provenance, first.columns
        self.mean, self.std = first.mean, first.std
        self.ids, self.texts, self.groups, self.labels = (
            Strings(*(part for file in files for part in getattr(file, name).parts))
            for name in ("ids", "texts", "groups", "labels")
        )
        self._real_columns, self._state_columns = by_kind(self.columns)
        self._sizes = [self.columns[index].states or 0 for index in self._state_columns]
        self.alphabet = "".join(sorted(set().union(*(file.alphabet for file in files))))
        if len(files) > 1:
            self._join()

    def _join(self) -> None:
        shared = [file.provenance._replace(shard="", contents="") for file in self._files]
        for number, file in enumerate(self._files, 1):
            wanted = f"{number}/{len(self._files)}"
            if file.provenance.shard != wanted or shared[number - 1] != shared[0]:
                raise DataError(f"{file.path} is not shard {wanted} of the data of {self.path}; prepare it again.")
        moments = reduce(Moments.merged, (file.moments for file in self._files if file.moments))
        self.mean, self.std, self.provenance = moments.mean(), moments.std(), shared[0]

    def __reduce__(self) -> tuple[type[Prepared], tuple[Path, ...]]:
        return Prepared, self.paths

    def __len__(self) -> int:
        return self._firsts[-1]

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self.split(name))} {name}" for name in SPLITS)
        return f"<Prepared {self.provenance.dataset}: {counts}; {self.points} offsets>"

    @property
    def points(self) -> int:
        """How many offsets all records have together."""
        return sum(int(file.starts[-1]) for file in self._files)

    @property
    def skipped(self) -> list[Skipped]:
        """What could not be read, and why."""
        return list(self.skipped_items())

    @property
    def skipped_count(self) -> int:
        """How many could not be read."""
        return sum(len(file.skipped_paths) for file in self._files)

    def skipped_items(self) -> Iterator[Skipped]:
        """What could not be read, and why, one after another."""
        for file in self._files:
            yield from map(Skipped, file.skipped_paths, file.skipped_reasons)

    @property
    def integer(self) -> bool:
        """Whether the real columns hold whole numbers, as they came."""
        return all(np.issubdtype(file.reals.dtype, np.integer) for file in self._files)

    def lengths_of(self, records: np.ndarray) -> np.ndarray:
        """How many offsets each of these records has."""
        if len(self._files) == 1:
            return self._files[0].starts[records + 1] - self._files[0].starts[records]
        places = np.searchsorted(self._firsts, records, "right") - 1
        lengths = np.empty(np.shape(records), np.int64)
        for place in np.unique(places):
            here = places == place
            starts, inside = self._files[place].starts, records[here] - self._firsts[place]
            lengths[here] = starts[inside + 1] - starts[inside]
        return lengths

    def split(self, name: Split | Literal["all"]) -> np.ndarray:
        """Indices of the records of a split, or of all, ascending; raises `UsageError` for another name."""
        index = np.int32 if len(self) < np.iinfo(np.int32).max else np.int64
        if name == "all":
            return np.arange(len(self), dtype=index)
        if name not in SPLITS:
            raise UsageError(f"there is no split {name!r}; {choices(name, (*SPLITS, 'all'))}")
        found = [np.empty(0, index)]
        for file, first in zip(self._files, self._firsts, strict=False):
            for start in range(0, len(file), BLOCK):
                here = np.flatnonzero(file.splits[start : start + BLOCK] == SPLITS.index(name))
                found.append((here + first + start).astype(index))
        return np.concatenate(found)

    def check_trainable(self) -> None:
        """Raises `DataError` where there are no training records."""
        if not len(self.split("train")):
            raise DataError(f"{self.provenance.dataset} has no training records among {len(self)}.")

    def check_skipped(self, most: float) -> None:
        """Raises `DataError`, naming the first, where more than the share `most` of all items was skipped."""
        first = next(self.skipped_items(), None)
        check_skipped(self.provenance.dataset, len(self), self.skipped_count, first, most)

    def offsets(self, index: int, out: np.ndarray | None = None) -> np.ndarray:
        """Record `index` as float32 (T, D) in raw units; NaN where a real value is missing.

        Raises `DataError` where the file says other than its columns.
        """
        index = range(len(self))[index]
        place = bisect_right(self._firsts, index) - 1
        file, inside = self._files[place], index - self._firsts[place]
        rows = slice(file.starts[inside], file.starts[inside + 1])
        if out is None:
            out = np.empty((rows.stop - rows.start, len(self.columns)), np.float32)
        out[:, self._real_columns] = file.reals[rows]
        out[:, self._state_columns] = states = file.states[rows]
        if not ((states >= 0) & (states < self._sizes)).all():
            raise DataError(f"{file.path} has states in record {index} that its columns do not; prepare it again.")
        return out


def write(
    path: Path, provenance: Provenance, items: Iterable[Record | Skipped], *, max_skipped: float = 1.0
) -> Prepared:
    """Write offsets (records whose `points` are offsets already) under `path`, replacing it only when complete.

    Raises `DataError` where no record came (but for a shard, which may be empty), or more than the share `max_skipped`
    was skipped, and for a place that cannot be written; what stood at `path` before then stays.
    """
    columns = [Column(*column) for column in json.loads(provenance.columns)]
    with replacing(path) as temporary, closing(Spool(temporary.parent, columns)) as spool:
        for item in items:
            spool.add(item)
        check_skipped(provenance.dataset, spool.records, spool.skipped, spool.first_skipped, max_skipped)
        if not provenance.shard:
            check_any(provenance.dataset, spool.records)
        with _create(temporary) as file:
            spool.write(file)
            if provenance.shard:
                file["moments"] = np.frombuffer(spool.moments.to_json().encode(), np.uint8)
            file.attrs.update({name: _stored(value) for name, value in provenance._asdict().items()})
            file.attrs["format"] = _stored(FORMAT)
            file.attrs["mean"], file.attrs["std"] = spool.moments.mean(), spool.moments.std()
    return Prepared(path)


def check_skipped(dataset: str, records: int, skipped: int, first: Skipped | None, most: float) -> None:
    """Raises `DataError`, naming the first, where more than the share `most` of all items was skipped."""
    if first and skipped > most * (records + skipped):
        raise DataError(
            f"{skipped} of {records + skipped} items of {dataset} could not be read, more than the {most:.1%} "
            f"that may fail; mend or remove them; the first: {first.path}: {first.reason}."
        )


def check_any(dataset: str, records: int) -> None:
    """Raises `DataError` where there are none."""
    if not records:
        raise DataError(f"{dataset} has no records.")


def _read_provenance(file: hdf5.File) -> Provenance:
    if _plain(file.attrs.get("format")) != FORMAT:
        raise ValueError("its format attribute is missing")
    if file.attrs["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema version {file.attrs['schema_version']}, this seqdens reads {SCHEMA_VERSION}")
    names = [name for name in Provenance._fields if name != "shard" or name in file.attrs]  # which older ones lack
    return Provenance(**{name: _plain(file.attrs[name]) for name in names})


@contextmanager
def _create(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file of empty groups, without time stamps, and with checksums without which damage can crash HDF5."""
    creation, group = h5p.create(h5p.FILE_CREATE), h5p.create(h5p.GROUP_CREATE)
    creation.set_obj_track_times(False)
    creation.set_attr_phase_change(MOST_ATTRIBUTES, 0)  # all in the header of the root, where `hdf5` reads them
    group.set_obj_track_times(False)
    with _Output(path) as output, closing(h5p.create(h5p.FILE_ACCESS)) as access:  # left open, it crashes HDF5 at exit
        access.set_alignment(1, ALIGNMENT)
        access.set_libver_bounds(h5f.LIBVER_V110, h5f.LIBVER_LATEST)
        access.set_fileobj_driver(h5fd.fileobj_driver, output)
        file = h5py.File(h5f.create(b"of no driver", h5f.ACC_TRUNC, creation, access))
        try:
            for name in ("skipped", *STRINGS):
                h5g.create(file.id, name.encode(), gcpl=group)
            yield file
        finally:
            with uninterrupted():  # in the midst of it, h5py makes another error of it
                file.close()
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
