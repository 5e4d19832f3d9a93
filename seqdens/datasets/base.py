"""What a data set is: columns, sources to read, and the records in each.

T points of a record, D columns of a point.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from seqdens.errors import UsageError

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
MOST_CATEGORIES = 1 << 20  # a model takes and gives a number for each


class Column(NamedTuple):
    """One number of a point. With `difference`, records hold values and models their changes between points.

    >>> Column("pressure", "real").states is None, Column("stroke_end", "binary").states
    (True, 2)
    >>> Column("colour", "category", size=5).states
    5
    """

    name: str
    kind: Literal["real", "binary", "category"]
    size: int = 1  # number of categories
    role: Literal["", "stroke_end", "sequence_end"] = ""
    difference: bool = False

    @property
    def states(self) -> int | None:
        """How many values there are, the whole numbers from 0; None for a real column."""
        return {"real": None, "binary": 2, "category": self.size}[self.kind]

    def describe(self) -> str:
        """`x (real)`, `stroke_end (binary)`, `colour (category of 5)`."""
        return f"{self.name} ({self.kind}{f' of {self.size}' if self.kind == 'category' else ''})"


def check_columns(owner: str, columns: Sequence[Column]) -> None:
    """Raises `UsageError` where `columns`, those of `owner`, are none, are of no known kind or share a name."""
    names = [column.name for column in columns]
    if not names:
        raise UsageError(f"{owner} has no columns, but must have at least one.")
    for column in columns:
        if names.count(column.name) > 1:
            raise UsageError(f"{owner} has {names.count(column.name)} columns {column.name!r}, but names must differ.")
        if not column.name.isprintable():
            raise UsageError(f"{owner} has a column {column.name!r}, but a name must have no control characters.")
        if column.kind not in ("real", "binary", "category"):
            raise UsageError(
                f"column {column.name!r} of {owner} is {column.kind!r}, but must be 'real', 'binary' or 'category'."
            )
        if column.kind == "category" and not 1 <= column.size <= MOST_CATEGORIES:
            raise UsageError(
                f"column {column.name!r} of {owner} has size {column.size}, but must have 1 to {MOST_CATEGORIES:,}."
            )


X = Column("x", "real", difference=True)
Y = Column("y", "real", difference=True)
STROKE_END = Column("stroke_end", "binary", role="stroke_end")
SEQUENCE_END = Column("sequence_end", "binary", role="sequence_end")


@dataclass(frozen=True)
class Record:
    """One sequence: `points` (T, D) in raw units, in the order of the data set's columns; y points down.

    >>> dash = Record("dash", np.array([[0, 0, 0], [30, 0, 1]]), text="-")
    >>> dash.split, dash.points.shape
    ('train', (2, 3))
    """

    id: str
    points: np.ndarray
    split: Split = "train"
    text: str = ""  # what was written, if known
    group: str = ""  # the writer
    label: str = ""  # the class, where there is one: "genuine", "forged"


@dataclass(frozen=True)
class Skipped:
    """Something that could not be read, and why: one bad file never costs its neighbours."""

    path: str
    reason: str


@dataclass(frozen=True)
class Source:
    """What one call of `Dataset.read` reads: a name unique in the data set, the files, the split they are in."""

    name: str
    paths: tuple[Path, ...] = ()  # none: generated
    split: Split = "train"


class Dataset(ABC):
    """Sequences from files or from a generator.

    `__init__(self, root: Path | None = None, *, option=default, ...)`; `root` is the folder of the files, and a
    generator refuses one. `columns` may depend on the options, then it is set by the constructor.
    """

    reader_version: ClassVar[int] = 1  # raise it when `read` changes: prepared data are then made anew
    synthetic: ClassVar[bool] = False  # said wherever the data, or what was learnt from it, is shown
    record_name: ClassVar[str] = "record"  # what one is called: "line", "signature"
    columns: tuple[Column, ...] = (X, Y, STROKE_END)

    @abstractmethod
    def sources(self) -> list[Source]:
        """What there is to read, in a fixed order; raises `DataError` where the folder is not this data set."""

    @abstractmethod
    def read(self, source: Source) -> Iterator[Record | Skipped]:
        """The records of one source. Pure and picklable with `self`, so that it runs in worker processes."""
