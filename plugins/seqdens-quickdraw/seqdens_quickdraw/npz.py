"""Drawings in the `.npz` of sketch-rnn, of which no code is run.

Its arrays `train`, `valid` and `test` are object arrays, that is pickles: programs, in a file that anyone may have
written. Here a pickle may name four things of numpy, and for each gets a class of this module, which takes the
bytes of an array of numbers and nothing else: numpy's own unpickling can be made to take a number for an address.

n drawings of a split, T rows dx, dy, pen lifted (0 or 1) of a drawing: the stroke-3 form.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast
from zipfile import ZipFile

import numpy as np
from numpy.lib import format as npy

from seqdens.npz import entry

_NUMBERS = re.compile("[iu][1248]|f[248]")


class _Dtype:
    """Stands for `numpy.dtype`, of numbers or of objects."""

    def __init__(self, name: str, *flags: object) -> None:
        if not (name in ("O8", "O4", "O") or _NUMBERS.fullmatch(name)):
            raise ValueError(f"its arrays are of {name!r}, not of numbers")
        self.numbers = np.dtype(name) if name[0] != "O" else None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if self.numbers:
            self.numbers = self.numbers.newbyteorder(state[1])


class _Array:
    """Stands for `numpy.ndarray`: `values` are numbers, or a list of such arrays."""

    values: np.ndarray | list[Any] | None = None

    def __init__(self, *ignored: object) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if dtype.numbers is None:
            self.values = list(data)
        else:
            data = data.encode("latin1") if isinstance(data, str) else data  # Python 2 wrote bytes as text
            self.values = np.frombuffer(data, dtype.numbers).reshape(shape, order="F" if fortran else "C")


_STAND_INS = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
}


class _Unpickler(pickle._Unpickler):
    """Python's own in Python: the one in C lets a pickle of a few bytes take all memory for its memo."""

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in _STAND_INS:
            raise ValueError(f"its pickle asks for {module}.{name}, and only arrays of numbers are read")
        return _STAND_INS[module, name]

    def load_bytearray(self) -> None:
        """Which takes memory for as many bytes as the pickle says, before it reads them."""
        raise ValueError("its pickle holds a bytearray, and only arrays of numbers are read")

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = pickle._Unpickler.dispatch | {
        pickle.BYTEARRAY8[0]: load_bytearray
    }


def count(path: Path, split: str) -> int:
    """How many drawings a split says it has; raises what a damaged file makes `zipfile` raise, or `ValueError`."""
    with _opened(path, split) as file:
        return _length(file)


def drawings(path: Path, split: str) -> list[np.ndarray | None]:
    """The drawings (T, 3) of a split, None for one that is no such array.

    Raises what a file can make `zipfile` and `pickle` raise, which is anything.
    """
    with _opened(path, split) as file:
        expected = _length(file)
        array = _Unpickler(file, encoding="latin1").load()
        if file.read(1):  # to its end, where its checksum is looked at
            raise ValueError("something follows its pickle")
        size = file.tell()
    found = [_stroke3(item) for item in array.values]
    if sum(each.nbytes for each in found if each is not None) > size:
        raise ValueError("it holds the same drawings over and over")
    if len(found) != expected:
        raise ValueError(f"it says that it has {expected} drawings, but has {len(found)}")
    return found


@contextmanager
def _opened(path: Path, split: str) -> Iterator[BinaryIO]:
    with ZipFile(path) as archive, archive.open(entry(archive, split)) as file:
        yield cast(BinaryIO, file)


def _length(file: BinaryIO) -> int:
    """The number of objects of an object array, by its header."""
    version = npy.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"its array is of version {version}, not (1, 0)")
    shape, _, dtype = npy.read_array_header_1_0(file)
    if len(shape) != 1 or dtype.kind != "O":
        raise ValueError(f"its array is {dtype} {shape}, not a list of drawings")
    return int(shape[0])


def _stroke3(item: Any) -> np.ndarray | None:
    values = item.values if isinstance(item, _Array) else None
    if isinstance(values, np.ndarray) and values.ndim == 2 and values.shape[1] == 3 and len(values) > 1:
        return values
    return None
