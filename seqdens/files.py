"""Writing files so that nothing that was there is lost before the new one is complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from seqdens.errors import DataError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path of the same name, to be written; it takes the place of `path` if the block ends without error.

    It lies in a new folder beside `path` that is deleted afterwards, with whatever else the block leaves in it;
    missing folders above `path` are made. Raises `DataError` naming a place that cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            yield temporary
            os.replace(temporary, path)
    except OSError as error:
        reason = f"{path.parent} is a file" if isinstance(error, FileExistsError) else error.strerror or error
        raise DataError(f"cannot write {str(path)!r}: {reason}; choose another place.") from error
