"""Writing files so that nothing that was there is lost before the new one is complete; reading those of others."""

from __future__ import annotations

import csv
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile

from seqdens.errors import DataError
from seqdens.interrupts import uninterrupted

LARGEST = 1 << 24  # bytes of a file of a data set of many: a line, a signature

_UNREADABLE = (
    ValueError,
    KeyError,
    EOFError,
    MemoryError,
    OverflowError,
    RuntimeError,
    BadZipFile,
    zlib.error,
    csv.Error,
)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path of the same name, to be written; it takes the place of `path` if the block ends without error.

    It lies in a new folder beside `path` that is deleted afterwards, with whatever else the block leaves in it;
    missing folders above `path` are made. Raises `DataError` naming a place that cannot be written.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
        try:
            temporary = Path(folder.name) / path.name
            yield temporary
            os.replace(temporary, path)
        finally:
            with uninterrupted():
                folder.cleanup()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises `DataError` naming `path` and the reason where the system refuses what the block does to write it."""
    try:
        yield
    except FileExistsError as error:
        raise DataError(f"cannot write {str(path)!r}: {path.parent} is a file; choose another place.") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error  # the text of h5py is many lines
        raise DataError(f"cannot write {str(path)!r}: {reason}; choose another place.") from error


@contextmanager
def reading(path: Path, advice: str) -> Iterator[None]:
    """Raises `DataError` naming `path` and the reason where the block finds it missing or malformed."""
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot load {str(path)!r}: {error.strerror or error}.") from error
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DataError(f"cannot load {str(path)!r}: {reason}; {advice}.") from error


def check_file(path: Path, folder: Path, largest: int = LARGEST) -> None:
    """Raises `ValueError` with the reason where a file of a data set is not to be read.

    That is a link out of `folder`, as an archive may hold it; what is no regular file, such as a pipe, which may never
    end; and more than `largest` bytes. `folder` itself may be a link.
    """
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            if path != folder and not path.resolve().is_relative_to(folder.resolve()):
                raise ValueError("is a link that leads out of the folder; copy the file to where the link is")
            found = os.stat(path)
    except (OSError, RuntimeError) as error:  # a link may lead to itself
        raise ValueError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("is no regular file")
    if found.st_size > largest:
        raise ValueError(f"is larger than {largest >> 20} MiB")
