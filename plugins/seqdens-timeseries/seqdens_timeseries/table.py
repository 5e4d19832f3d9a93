"""Sequences in tables: CSV files, read row by row, and NPZ files of one array a column.

A row is a point; rows of one sequence stand together, in order. T rows of a sequence, N of a file.
"""

from __future__ import annotations

import codecs
import csv
import json
import math
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, cast, get_args
from zipfile import BadZipFile

import numpy as np

from seqdens import Column, DataError, Dataset, Record, Skipped, Source, UsageError, npz
from seqdens.files import check_file
from seqdens_timeseries.splits import SHARES, Split, digest, split_of

Categories = int | tuple[str, ...]  # how many there are, or their texts
Direction = Literal["down", "up"]

SUFFIXES = (".csv", ".npz")
DELIMITERS = ",;\t|"  # the usual ones
MISSING = ("", "na", "nan", "null", "none")
TRUTH = {"false": 0, "true": 1}
MOST_CATEGORIES = 65_536
LARGEST_WHOLE = 2**53  # up to which a float holds every whole number
MOST_PACKED = 1 << 20  # rows of an NPZ file of fewer bytes
LONGEST_LIST = 1000  # characters of a file's columns in a message
BLOCK = 65_536  # rows of an NPZ file made Python numbers at a time
SEQUENCE_END = Column("sequence_end", "binary", role="sequence_end")
UNREADABLE = (OSError, ValueError, KeyError, EOFError, MemoryError, RuntimeError, BadZipFile, zlib.error)


class Row(NamedTuple):
    """Whose it is, where it stands, the values of the columns asked for, and what is wrong with it."""

    id: str
    place: str
    values: Sequence[Any]
    fault: str = ""


class Table(Dataset):
    """Sequences in CSV and NPZ files: the rows of one id, which stand together and in order.

    `root` is one file, or a folder with files in it and in its folders. A CSV file has a header; an NPZ file holds an
    array (N,) for each column, under its name, and is read without pickles. A point's columns are those of
    `difference`, `real`, `category` and `binary`, in this order; what else a file has is left out. Whole numbers stay
    whole; true and false are 1 and 0. In real columns, and in no others, an empty field, NaN, NA, NULL and None are
    missing values, and the change from or to a missing one is missing. Values of a category are whole numbers from 0
    where their number is given, and where their texts are, these, of which the first becomes 0; the empty text may be
    one of them.

    A sequence with a row that cannot be read is skipped, and so are rows that stand apart from others of their id, and
    a CSV file in another encoding than `encoding`.

    Options:
        id: column that says which sequence a row is of; empty where every file is one
        difference: real columns of which the changes from row to row are modelled
        real: real columns of which the values are modelled
        category: columns of categories, with their number or their texts: {colour = 5, mood = ["low", "high"]}
        binary: columns of 0 and 1
        end: model where a sequence ends, so that samples end by themselves
        group: column that says whose a sequence is; those of one group are in one split
        split: column that says train, valid or test; empty for a split by a hash of the group, else of the id
        delimiter: what stands between the fields of a CSV file
        encoding: of CSV files, such as latin-1 or cp1252
        y: where the column named y points in the files; up makes the model's values those of -y, as pictures are drawn
    """

    record_name: ClassVar[str] = "sequence"

    def __init__(
        self,
        root: Path | None = None,
        *,
        id: str = "id",
        difference: tuple[str, ...] = (),
        real: tuple[str, ...] = (),
        category: dict[str, Categories] | None = None,
        binary: tuple[str, ...] = (),
        end: bool = False,
        group: str = "",
        split: str = "",
        delimiter: str = ",",
        encoding: str = "utf-8",
        y: Direction = "down",
    ) -> None:
        if root is None:
            raise UsageError("table needs --data DIR (in Python, root=DIR): a CSV or NPZ file, or a folder of such.")
        if len(delimiter) != 1 or delimiter in '"\r\n':
            raise UsageError(f"option 'delimiter' of table is {delimiter!r}, but must be one character, such as ';'.")
        self.codec = checked_codec(encoding)
        if y not in get_args(Direction):
            raise UsageError(f"option 'y' of table is {y!r}, but must be {' or '.join(get_args(Direction))}.")
        category = category or {}
        named = (
            *(Column(name, "real", difference=True) for name in difference),
            *(Column(name, "real") for name in real),
            *(Column(name, "category", checked_size(name, given)) for name, given in category.items()),
            *(Column(name, "binary") for name in binary),
        )
        self.columns = (*named, SEQUENCE_END) if end else named
        check_names(self.columns)
        self.upturned = "y" if y == "up" else ""
        if self.upturned and not any(column.name == "y" and column.kind == "real" for column in named):
            raise UsageError("option 'y' of table is 'up', but of its difference and real columns none is named 'y'.")
        self.root, self.delimiter, self.end = Path(root), delimiter, end
        self.id, self.group, self.split = id, group, split
        self.codes = {
            name: {text: code for code, text in enumerate(given)}
            for name, given in category.items()
            if not isinstance(given, int)
        }
        self.named = named
        self.wanted = [*filter(None, (id, group, split)), *(column.name for column in named)]
        by = f"the column {group or id!r}" if group or id else "the files' names"
        self.notes = () if split else (f"split by a hash of {by}: about {SHARES}",)

    def sources(self) -> list[Source]:
        """The files, in the order of their names.

        Raises `DataError` where there are none or none has the columns, `UsageError` where no columns are asked for.
        """
        files = self._files()
        if not self.columns:
            raise UsageError(
                "table is told no columns to model: name some in its options difference, real, category and binary; "
                f"{files[0]} has {self._listed(files[0])}."
            )
        if all(self._fault(path) for path in files):
            raise DataError(f"{files[0]}: {self._fault(files[0])}.")
        return [Source(self._name(path), (path,)) for path in files]

    def read(self, source: Source) -> Iterator[Record | Skipped]:
        """The sequences of one file, one after the other."""
        (path,) = source.paths
        seen: set[str] = set()
        try:
            check_file(path, self.root, sys.maxsize)
            for name, rows in groupby(self._rows(path, source.name), attrgetter("id")):
                yield self._sequence(source.name, name, list(rows), again=name in seen)
                seen.add(name)
        except UNREADABLE as error:
            yield Skipped(str(path), sentence(error))

    def _sequence(self, file: str, name: str, rows: list[Row], *, again: bool) -> Record | Skipped:
        id = f"{file}:{name}" if self.id else file
        try:
            if not name:
                raise ValueError(f"{rows[0].place} has an empty {self.id}")
            if again:
                raise ValueError(f"{rows[0].place} stands apart from other rows of its {self.id}: sort the file")
            if fault := next((row.fault for row in rows if row.fault), ""):
                raise ValueError(fault)
            values = dict(zip(self.wanted, zip(*(row.values for row in rows), strict=True), strict=True))
            points = np.array([self._numbers(column, values[column.name], rows) for column in self.named]).T
            if self.end:
                points = np.column_stack([points, np.arange(len(rows)) == len(rows) - 1])
            group = only("group", values[self.group]) if self.group else ""
            split = split_named(only("split", values[self.split])) if self.split else split_of(digest(group or name))
            return Record(id, points, split, group=group)
        except ValueError as error:
            return Skipped(id, str(error))

    def _numbers(self, column: Column, values: Sequence[Any], rows: list[Row]) -> list[float]:
        name, codes = column.name, self.codes.get(column.name)
        sign = -1 if name == self.upturned else 1
        numbers = []
        for row, value in zip(rows, values, strict=True):
            try:
                numbers.append(codes[str(value).strip()] if codes else sign * checked_number(value, column.states))
            except (ValueError, KeyError, OverflowError, TypeError):
                what = f"{str(value)[:60]!r} for {name!r}, which must be {wanted(column, codes)}"
                raise ValueError(f"{row.place} has {what}") from None
        return numbers

    def _files(self) -> list[Path]:
        if not self.root.exists():
            raise DataError(f"{self.root} does not exist.")
        found = [self.root] if self.root.is_file() else sorted(filter(Path.is_file, self.root.rglob("*")))
        if files := [path for path in found if path.suffix.lower() in SUFFIXES]:
            return files
        raise DataError(f"{self.root} is neither a CSV or NPZ file nor a folder of such.")

    def _name(self, path: Path) -> str:
        return path.name if path == self.root else path.relative_to(self.root).as_posix()

    def _fault(self, path: Path) -> str:
        """Why nothing can be read from a file, if that is so."""
        try:
            check_file(path, self.root, sys.maxsize)
            self._check(self._header(path))
        except UNREADABLE as error:
            return sentence(error)
        return ""

    def _check(self, header: Sequence[str]) -> None:
        for name in self.wanted:
            if header.count(name) != 1:
                found = "no column" if name not in header else "more than one column"
                raise ValueError(f"it has {found} {name!r}, but {listed(header) or 'nothing'}{self._hint(header)}")

    def _hint(self, header: Sequence[str]) -> str:
        """What to do where all of a CSV file's header is one field, since another delimiter stands in it."""
        there = [usual for usual in DELIMITERS if len(header) == 1 and usual in header[0]]
        return f"; if the delimiter is another: --set 'dataset.delimiter={json.dumps(there[0])}'" if there else ""

    def _listed(self, path: Path) -> str:
        try:
            header = self._header(path)
        except UNREADABLE as error:
            raise DataError(f"{path}: {sentence(error)}.") from None
        return f"{listed(header)}{self._hint(header)}"

    def _header(self, path: Path) -> list[str]:
        if path.suffix.lower() == ".npz":
            with path.open("rb") as file:
                return npz.names(npz.opened(file))
        with path.open(encoding=self.codec, errors="surrogateescape", newline="") as file:
            header = header_of(csv.reader(file, delimiter=self.delimiter))
        self._check_decoded(1, "".join(header))
        return header

    def _check_decoded(self, line: int, text: str) -> None:
        """Raises `ValueError` where bytes of a line are not in the encoding: then they were read as surrogates."""
        try:
            text.encode()
        except UnicodeEncodeError:
            encoding = self.codec.removesuffix("-sig").upper()
            raise ValueError(
                f"line {line} is not {encoding}; name the file's encoding, such as --set dataset.encoding=latin-1"
            ) from None

    def _rows(self, path: Path, name: str) -> Iterator[Row]:
        return self._npz_rows(path, name) if path.suffix.lower() == ".npz" else self._csv_rows(path, name)

    def _csv_rows(self, path: Path, name: str) -> Iterator[Row]:
        with path.open(encoding=self.codec, errors="surrogateescape") as file:
            for line, text in enumerate(file, 1):
                self._check_decoded(line, text)
        with path.open(encoding=self.codec, newline="") as file:
            reader = csv.reader(file, delimiter=self.delimiter)
            header = header_of(reader)
            self._check(header)
            indices = [header.index(wanted) for wanted in self.wanted]
            try:
                for fields in filter(None, reader):
                    place, fault = f"line {reader.line_num}", ""
                    if len(fields) != len(header):
                        fault = f"{place} has {len(fields)} fields, but the header {len(header)}"
                        fields += [name] * (len(header) - len(fields))  # without an id it is of the sequence it is in
                    values = [fields[index] for index in indices]
                    name = values[0].strip() if self.id else name
                    yield Row(name, place, values, fault)
            except csv.Error as error:
                raise ValueError(f"line {reader.line_num}: {error}") from None

    def _npz_rows(self, path: Path, name: str) -> Iterator[Row]:
        with path.open("rb") as file:
            archive = npz.opened(file)
            self._check(npz.names(archive))
            arrays = [npz.array(archive, wanted) for wanted in self.wanted]
        shapes = {array.shape for array in arrays}
        if shapes != {arrays[0].shape[:1]} - {()}:
            raise ValueError(f"its arrays have shapes {', '.join(map(str, sorted(shapes)))}, but all must be one (N,)")
        if len(arrays[0]) > max(MOST_PACKED, size := path.stat().st_size):  # each takes some hundred bytes of memory
            raise ValueError(f"it has {len(arrays[0])} rows in {size} bytes: write it with numpy.savez")
        for start in range(0, len(arrays[0]), BLOCK):
            block = zip(*(array[start : start + BLOCK].tolist() for array in arrays), strict=True)
            for row, values in enumerate(block, start + 1):
                yield Row(str(values[0]) if self.id else name, f"row {row}", values)


def number(value: Any) -> float:
    """A value of a file as a number, NaN where it is missing; raises `ValueError` for another text."""
    if isinstance(value, str):
        text = value.strip().casefold()
        if text in MISSING:
            return math.nan
        try:
            value = TRUTH[text] if text in TRUTH else int(text)
        except ValueError:
            return float(text)
    if isinstance(value, int):
        return int(value) if abs(value) <= LARGEST_WHOLE else float(value)
    return float(value)


def checked_number(value: Any, states: int | None) -> float:
    """`number`; raises `ValueError` where it is infinite or, in a column of states, is none of 0..states-1."""
    found = number(value)
    if math.isinf(found) or (states is not None and not (0 <= found < states and found == int(found))):
        raise ValueError
    return found


def wanted(column: Column, codes: Mapping[str, int] | None) -> str:
    """What a value of a column must be."""
    if codes:
        return f"one of {', '.join(text or repr(text) for text in codes)}"
    if column.states is None:
        return "a finite number"
    return f"a whole number of 0..{column.states - 1}: only real columns can have missing values"


def header_of(reader: Iterator[list[str]]) -> list[str]:
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise ValueError(f"line 1: {error}") from None
    if not header:
        raise ValueError("it is empty, or its first line is")
    return header


def listed(header: Sequence[str]) -> str:
    """The names, as many as a message has room for."""
    names = ", ".join(header)
    return names if len(names) <= LONGEST_LIST else f"{names[:LONGEST_LIST]}..."


def only(option: str, values: Sequence[Any]) -> str:
    """The one text that all rows of a sequence hold."""
    texts = sorted({str(value).strip() for value in values})
    if len(texts) > 1:
        raise ValueError(f"its rows differ in the {option}: {texts[0][:60]!r}, {texts[1][:60]!r}")
    return texts[0]


def split_named(name: str) -> Split:
    if name not in get_args(Split):
        raise ValueError(f"its split is {name[:60]!r}, but must be {', '.join(get_args(Split))}")
    return cast(Split, name)


def sentence(error: Exception) -> str:
    """What went wrong with a file, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def checked_codec(encoding: str) -> str:
    """What Python calls an encoding, UTF-8 with its optional mark; raises `UsageError` for one that it has not."""
    try:
        "".encode(encoding)
        name = codecs.lookup(encoding).name
    except (LookupError, ValueError):
        raise UsageError(
            f"option 'encoding' of table is {encoding!r}, but must be one of Python's, such as utf-8, latin-1, cp1252."
        ) from None
    return "utf-8-sig" if name == "utf-8" else name


def checked_size(name: str, given: Categories) -> int:
    """How many categories there are; raises `UsageError` for a number or for texts that cannot be."""
    size = given if isinstance(given, int) else len(given)
    if not 2 <= size <= MOST_CATEGORIES:
        raise UsageError(
            f"option 'category' of table gives {name!r} {size} categories, but there must be 2 to {MOST_CATEGORIES}."
        )
    if not isinstance(given, int) and len({text.strip() for text in given}) < size:
        raise UsageError(f"option 'category' of table gives {name!r} a text twice among {', '.join(given)}.")
    return size


def check_names(columns: Sequence[Column]) -> None:
    """Raises `UsageError` for columns without a name and for two of one name."""
    names = [column.name for column in columns]
    if twice := [name for name in names if not name or names.count(name) > 1]:
        raise UsageError(
            f"options difference, real, category, binary and end of table name a column {twice[0]!r} "
            f"{'twice' if twice[0] else 'without a name'}."
        )
