"""Gathering records for a cache in files, so that memory holds a block of them, however many there are.

n records, N offsets of all records together, R real columns, S binary and category columns ("states").
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from seqdens.datasets.base import SPLITS, Column, Record, Skipped
from seqdens.moments import Moments

BLOCK = 1 << 16  # offsets, and bytes of text, that are held before they are written
STRINGS = ("ids", "texts", "groups", "labels", "skipped/paths", "skipped/reasons")
TYPES = [np.dtype(kind) for kind in (np.uint8, np.int8, np.int16, np.int32, np.int64, np.float32)]  # ever wider


def by_kind(columns: Sequence[Column]) -> tuple[list[int], list[int]]:
    """Positions of the real columns, and of the others."""
    real = [index for index, column in enumerate(columns) if column.kind == "real"]
    return real, [index for index in range(len(columns)) if index not in real]


class Spool:
    """The arrays of a cache, on their way; `folder`, which is the caller's to delete, gets a file for each."""

    def __init__(self, folder: Path, columns: Sequence[Column]) -> None:
        self.records, self.skipped = 0, 0
        self.first_skipped: Skipped | None = None
        self.real_columns, self.state_columns = by_kind(columns)
        self.moments = Moments.of(np.empty((0, len(self.real_columns))))
        self._alphabet: set[str] = set()
        self._pending: list[Record] = []
        self._texts: dict[str, list[bytes]] = {name: [] for name in STRINGS}
        self._size = 0
        self._files = ExitStack()

        def rows(name: str, dtype: type, *width: int) -> _Rows:
            file = self._files.enter_context((folder / name.replace("/", "-")).open("w+b"))
            return _Rows(file, np.dtype(dtype), width)

        self._starts, self._splits = rows("starts", np.int64), rows("splits", np.int8)
        self._reals = rows("reals", np.int16, len(self.real_columns))
        self._states = rows("states", np.int8, len(self.state_columns))
        self._strings = {name: (rows(f"{name}/bytes", np.uint8), rows(f"{name}/starts", np.int64)) for name in STRINGS}
        for starts in (self._starts, *(starts for _, starts in self._strings.values())):
            starts.add(np.zeros(1, np.int64))

    def close(self) -> None:
        self._files.close()

    def add(self, item: Record | Skipped) -> None:
        """Take a record whose points are offsets, or what was skipped."""
        if isinstance(item, Skipped):
            self.first_skipped = self.first_skipped or item
            self.skipped += 1
            self._add_texts({"skipped/paths": item.path, "skipped/reasons": item.reason})
        else:
            self.records += 1
            self._pending.append(item)
            self._size += len(item.points)
            self._add_texts({"ids": item.id, "texts": item.text, "groups": item.group, "labels": item.label})
        if self._size >= BLOCK:
            self._flush()

    def _add_texts(self, texts: dict[str, str]) -> None:
        for name, text in texts.items():
            encoded = text.encode(errors="backslashreplace")  # of file names that are no Unicode
            self._texts[name].append(encoded)
            self._size += len(encoded)

    def _flush(self) -> None:
        if self._pending:
            self._flush_points(self._pending)
        for name, (characters, starts) in self._strings.items():
            together = b"".join(self._texts[name])
            characters.add(np.frombuffer(together, np.uint8))
            starts.add_ends([len(text) for text in self._texts[name]])
            if name == "texts":
                self._alphabet.update(together.decode())
            self._texts[name] = []
        self._pending, self._size = [], 0

    def _flush_points(self, records: Sequence[Record]) -> None:
        lengths = [len(record.points) for record in records]
        points = np.concatenate([record.points for record in records])
        training = np.repeat([record.split == "train" for record in records], lengths)
        whole = all(np.issubdtype(record.points.dtype, np.integer) for record in records)
        for start in range(0, len(points), BLOCK):  # a record may be larger
            block = points[start : start + BLOCK]
            reals = block[:, self.real_columns]
            trained = reals[training[start : start + BLOCK]].astype(np.float64)
            self.moments = self.moments.merged(Moments.of(trained))
            self._reals.add(narrowest(reals, [np.int16, np.int32] if whole else []))
            self._states.add(narrowest(block[:, self.state_columns], [np.int8, np.int32]))
        self._starts.add_ends(lengths)
        self._splits.add(np.array([SPLITS.index(record.split) for record in records], np.int8))

    def write(self, file: h5py.File) -> None:
        """All that was added, into `file`."""
        self._flush()
        self._starts.write(file, "starts")
        self._splits.write(file, "splits")
        self._reals.write(file, "reals")
        self._states.write(file, "states")
        for name, (characters, starts) in self._strings.items():
            characters.write(file, f"{name}/bytes")
            starts.write(file, f"{name}/starts")
        file["alphabet"] = np.frombuffer("".join(sorted(self._alphabet)).encode(), np.uint8)


class _Rows:
    """Rows in a file, in runs of their own type, until their number and widest type are known."""

    def __init__(self, file: BinaryIO, dtype: np.dtype, width: tuple[int, ...]) -> None:
        self.file, self.width = file, width
        self.runs = [(dtype, 0)]
        self.end = 0

    def add(self, rows: np.ndarray) -> None:
        self.file.write(rows.tobytes())
        dtype, count = self.runs.pop()
        self.runs += [(dtype, count + len(rows))] if rows.dtype == dtype else [(dtype, count), (rows.dtype, len(rows))]

    def add_ends(self, lengths: Sequence[int]) -> None:
        """Where each of what follows each other ends."""
        ends = self.end + np.cumsum(lengths, dtype=np.int64)
        self.add(ends)
        self.end = int(ends[-1]) if len(ends) else self.end

    def write(self, file: h5py.File, name: str) -> None:
        widest = max((dtype for dtype, _ in self.runs), key=TYPES.index)
        target = file.create_dataset(name, (sum(count for _, count in self.runs), *self.width), widest)
        self.file.seek(0)
        row = 0
        for dtype, count in self.runs:
            for start in range(0, count, BLOCK):
                shape = (min(BLOCK, count - start), *self.width)
                block = np.frombuffer(self.file.read(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)
                target[row : row + len(block)] = block
                row += len(block)


def narrowest(values: np.ndarray, types: Sequence[type]) -> np.ndarray:
    """The values in the first of `types`, of integers, that holds all of them, else as float32."""
    low, high = values.min(initial=0), values.max(initial=0)
    for dtype in types:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return values.astype(dtype)
    return values.astype(np.float32)
