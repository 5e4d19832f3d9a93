"""Arrays of an `.npz` file that anybody may have written: nothing in it is run, and what it unpacks to is limited."""

from __future__ import annotations

import sys
import warnings
from math import prod
from pathlib import Path
from typing import IO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy

LARGEST = 1 << 28  # bytes of an array, however small it is packed
RATIO = 20  # of the bytes of a larger array to those that it is packed into

NO_ARCHIVE = "it is no NPZ file, or a damaged one: write one with numpy.savez"
UNREADABLE = "its array {!r} holds objects or is damaged: store numbers as numbers, ids and other texts as str"

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def opened(file: IO[bytes]) -> ZipFile:
    """The archive in an opened file; raises `ValueError` where it is none."""
    start = file.read(6)
    if start == npy.MAGIC_PREFIX:
        raise ValueError("it is one array, not an archive of arrays")
    if not start.startswith(b"PK"):
        raise ValueError(NO_ARCHIVE if start else "it is empty")
    try:
        return ZipFile(file)
    except BadZipFile:
        raise ValueError(NO_ARCHIVE) from None


def names(archive: ZipFile) -> list[str]:
    """The names of its arrays, in order."""
    return list(_entries(archive))


def _entries(archive: ZipFile) -> dict[str, ZipInfo]:
    return {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}


def entry(archive: ZipFile, name: str) -> ZipInfo:
    """Where that array of an archive is; raises `ValueError` where it has none, or one that is packed too small."""
    found = _entries(archive).get(name)
    if found is None:
        raise ValueError(f"it has no array {name!r}")
    if found.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"its array {name!r} is packed by another compression method than numpy's")
    if found.header_offset + found.compress_size > archive.start_dir:  # where the list of entries begins
        raise ValueError(f"its array {name!r} is damaged: its {found.compress_size:,} packed bytes are not there")
    if found.file_size > max(LARGEST, RATIO * found.compress_size):
        raise ValueError(f"its array {name!r} unpacks to {found.file_size:,} bytes, of {found.compress_size:,}")
    return found


def array(archive: ZipFile, name: str) -> np.ndarray:
    """That array of an archive; raises what a damaged one makes `zipfile` raise, or `ValueError` with the reason."""
    found = entry(archive, name)
    with archive.open(found) as file, warnings.catch_warnings(action="error"):
        try:
            shape, fortran, dtype = _HEADERS[npy.read_magic(file)](file)
        except Exception as error:  # a literal of Python, of which anything may be wrong
            raise ValueError(UNREADABLE.format(name)) from error
        content = file.read(found.file_size)  # without a size, all is unpacked, whatever the entry says
    if dtype.hasobject or dtype.kind == "V":
        raise ValueError(UNREADABLE.format(name))
    if prod(shape) * dtype.itemsize != len(content) or not dtype.itemsize:
        raise ValueError(f"its array {name!r} says that it is {dtype} {shape}, but has {len(content)} bytes")
    if dtype.kind == "U" and (np.frombuffer(content, f"{dtype.byteorder}u4") > sys.maxunicode).any():
        raise ValueError(UNREADABLE.format(name))  # what numpy makes of those is a SystemError
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def read(path: Path, wanted: tuple[str, ...]) -> list[np.ndarray]:
    """These arrays of the file at `path`; raises what `opened` and `array` raise, and `OSError`."""
    with path.open("rb") as file, opened(file) as archive:
        return [array(archive, name) for name in wanted]
