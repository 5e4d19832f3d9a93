"""Writing files so that nothing that was there is lost before the new one is complete; reading those of others."""

from __future__ import annotations

import csv
import errno
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import BinaryIO
from weakref import WeakValueDictionary
from zipfile import BadZipFile

from seqdens.errors import DataError
from seqdens.interrupts import uninterrupted

LARGEST = 1 << 24  # bytes of a file of a data set of many: a line, a signature
LOCK = ".lock"  # in a folder that a process is using, and after it was killed
PARTIAL = ".partial"  # how the name of a temporary folder ends

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

_held = WeakValueDictionary[Path, BinaryIO]()  # the locks of this process, by their folders


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path of the same name, to be written; it takes the place of `path` if the block ends without error.

    It lies in a new folder beside `path` that is deleted afterwards, with whatever else the block leaves in it, and
    with what a process that was killed left of its own; missing folders above `path` are made. Not even a loss of power
    leaves less at `path` than what was there or what is new. Raises `DataError` naming a place that cannot be written.
    """
    path = Path(path)
    with writing(path):
        make_folder(path.parent)
        clear_leftovers(path)
        folder, lock = _folder_beside(path)
        try:
            temporary = folder / path.name
            yield temporary
            _wait_for_disk(temporary)
            os.replace(temporary, path)
            _wait_for_names(path.parent)
        finally:
            with uninterrupted():
                lock.close()
                rmtree(folder, ignore_errors=True)


def clear_leftovers(path: Path) -> None:
    """Delete the temporary folders of `path` whose processes were killed; those of living ones stay."""
    for folder in path.parent.glob(f".{escape(path.name)}.*{PARTIAL}"):
        with suppress(OSError):
            if lock := hold(folder, sure=True):
                with lock:
                    rmtree(folder, ignore_errors=True)


def _folder_beside(path: Path) -> tuple[Path, BinaryIO]:
    """A new temporary folder and its lock, held so that nobody takes the folder for a leftover."""
    folder = Path(mkdtemp(PARTIAL, f".{path.name}.", path.parent))
    try:
        if lock := hold(folder):
            return folder, lock
    except OSError:
        folder.rmdir()
        raise
    return _folder_beside(path)  # somebody took it for one just before


def make_folder(folder: Path) -> None:
    """Makes it and those above it, where they are missing; not one that this process holds, which somebody moved."""
    if (lock := _held.get(folder.absolute())) and not lock.closed:
        folder.stat()
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        _wait_for_names(made.parent)


def _wait_for_names(folder: Path) -> None:
    """Until the names in a folder would outlast a loss of power, on a file system that can say so."""
    with suppress(OSError):
        _wait_for_disk(folder)


def _wait_for_disk(path: Path) -> None:
    """Until the content of a file, or the names in a folder, would outlast a loss of power."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hold(folder: Path, *, sure: bool = False) -> BinaryIO | None:
    """The lock of the folder, which is this process's until it is closed, or the process ends, however it does.

    None where another has it, or has just deleted it. A file system without locks keeps nobody out: to be `sure`, None.
    """
    path = folder / LOCK
    try:
        file = path.open("ab")
    except FileNotFoundError:
        return None
    try:
        locked = _lock(file)
    except OSError:  # there are no locks
        locked = not sure
    if locked and is_at(file, path):
        _held[folder.absolute()] = file
        return file
    file.close()
    return None


def _lock(file: BinaryIO) -> bool:
    """False where another has it; raises `OSError` where there are no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def is_at(file: BinaryIO, path: Path) -> bool:
    """Whether `path` is still that of the open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises `DataError` naming `path` and the reason where the system refuses what the block does to write it."""
    try:
        yield
    except FileExistsError as error:
        raise DataError(f"cannot write {str(path)!r}: {path.parent} is a file; choose another place.") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error  # the text of h5py is many lines
        room = "make room, or " * (error.errno in (errno.ENOSPC, errno.EDQUOT))
        raise DataError(f"cannot write {str(path)!r}: {reason}; {room}choose another place.") from error


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
