"""Text as bytes, and samples of it as text.

Run as `python -m seqdens_timeseries.text FILE.csv`, it prints what `seqdens sample --out FILE.csv` drew.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar

import click
import numpy as np

from seqdens import Column, DataError, Dataset, Record, Skipped, Source, UsageError, hookimpl
from seqdens.files import check_file
from seqdens_timeseries.splits import SHARES, digest, split_of

BLOCK = 16  # records in a row of one split
SPAN = 256 * BLOCK  # records that a source has at most
SAMPLES = ["record", "step", "byte category 256"]  # header of a CSV file of samples


class Text(Dataset):
    """Text in any encoding without NUL bytes: a record is that many bytes in a row, its one column the byte.

    `root` is a folder, or one file. A record that holds a NUL byte is skipped: its file is no text. Blocks of 16
    records are split 80 : 10 : 10 into train, valid and test, in turn, from a number on that a file's name gives.

    Options:
        length: bytes of a record
        files: pattern of the names of the files below the folder
    """

    record_name: ClassVar[str] = "piece"
    columns = (Column("byte", "category", 256),)
    notes: tuple[str, ...] = (f"split in turn by blocks of {BLOCK} pieces: {SHARES}",)

    def __init__(self, root: Path | None = None, *, length: int = 100, files: str = "**/*.txt") -> None:
        if root is None:
            raise UsageError("text needs --data DIR (in Python, root=DIR): a text file, or a folder of such.")
        if length < 1:
            raise UsageError(f"option 'length' of text is {length}, but must be at least 1.")
        parts = Path(files).parts
        if not parts or Path(files).is_absolute() or any(part == ".." or (part[2:] and "**" in part) for part in parts):
            raise UsageError(f"option 'files' of text is {files!r}, but must be a pattern such as '**/*.txt'.")
        self.root, self.length, self.files = Path(root), length, files

    def sources(self) -> list[Source]:
        """Stretches of the files, in the order of their names; raises `DataError` where there are none."""
        if not self.root.exists():
            raise DataError(f"{self.root} does not exist.")
        span = self.length * SPAN
        sources = [
            Source(f"{name}:{first}", (path,))
            for name, path in self._files()
            for first in range(0, path.stat().st_size, span)
        ]
        if not sources:
            raise DataError(f"{self.root} is no text file and has no file {self.files!r} with text in it.")
        return sources

    def read(self, source: Source) -> Iterator[Record | Skipped]:
        """The records of one stretch; one that holds a NUL byte is skipped."""
        (path,) = source.paths
        name, _, first = source.name.rpartition(":")
        start, offset = int(first), digest(name)
        try:
            check_file(path, self.root, sys.maxsize)
            with path.open("rb") as file:
                file.seek(start)
                stretch = np.frombuffer(file.read(self.length * SPAN), np.uint8)
        except ValueError as error:
            yield Skipped(str(path), str(error))
            return
        except OSError as error:
            yield Skipped(str(path), f"cannot be read: {error.strerror}")
            return
        for at in range(0, len(stretch), self.length):
            points, position = stretch[at : at + self.length, np.newaxis], start + at
            if points.all():
                split = split_of(offset + position // (BLOCK * self.length))
                yield Record(f"{name}:{position}", points, split, group=name)
            else:
                yield Skipped(f"{path}:{position}", "holds a NUL byte, which no text does")

    def _files(self) -> list[tuple[str, Path]]:
        if self.root.is_file():
            return [(self.root.name, self.root)]
        found = sorted(path for path in self.root.glob(self.files) if path.is_file())
        return [(path.relative_to(self.root).as_posix(), path) for path in found]


def texts_of(path: Path) -> list[str]:
    """The texts in a CSV file of samples; raises `DataError` where it is none."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            if next(rows, []) != SAMPLES:
                raise ValueError
            records = [bytes(int(row[2]) for row in record) for _, record in groupby(rows, itemgetter(0))]
    except (ValueError, IndexError, csv.Error):
        raise DataError(f"{path} is no CSV file of samples of text, as `seqdens sample --out` writes it.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    return [record.decode(errors="replace") for record in records]


def page(texts: list[str]) -> str:
    return "".join(f"----- sample {number} -----\n{text}\n" for number, text in enumerate(texts, 1))


@hookimpl
def samples_drawn(run: Any, paths: list[Path]) -> None:
    """Write `samples.txt` beside the `samples.csv` of a run on text, and say so."""
    if run.config["dataset"]["name"] == "text":
        for path in paths:
            readable = path.with_suffix(".txt")
            readable.write_text(page(texts_of(path)), encoding="utf-8")
            click.echo(f"Samples as text: {readable}")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(file: Path) -> None:
    """Print the samples of text in FILE, which `seqdens sample --out FILE.csv` wrote."""
    try:
        click.echo(page(texts_of(file)), nl=False)
    except DataError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main(prog_name="python -m seqdens_timeseries.text")
