"""SVC2004: signatures of 40 people, and skilled forgeries of them, from a tablet (Yeung et al., 2004).

A file UuSs.TXT is signature s of user u, 1 to 20 genuine, 21 to 40 forged. Its first line is the number of
points, each line after it a point: `x y time button` (Task 1) and `azimuth altitude pressure` (Task 2 only).

T points of a signature, D columns of a point.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np

from seqdens.datasets.base import (
    SEQUENCE_END,
    STROKE_END,
    Column,
    Dataset,
    Record,
    Skipped,
    Source,
    Split,
    X,
    Y,
)
from seqdens.errors import DataError, UsageError
from seqdens.files import check_file
from seqdens.registry import choices

Signatures = Literal["all", "genuine", "forged"]
Channel = Literal["time", "azimuth", "altitude", "pressure"]
FIELDS = ("x", "y", "time", "button", "azimuth", "altitude", "pressure")
TASK1_FIELDS = 4
ENCODING = "iso-8859-1"
FILE_NAME = re.compile(r"U(\d+)S(\d+)\.TXT", re.IGNORECASE)
EXPECTED = "the folder Task1 or Task2 of SVC2004, which holds U1S1.TXT to U40S40.TXT"


class SVC2004(Dataset):
    """Signatures of SVC2004, one record each: `group` the user, `label` "genuine" or "forged".

    `root` is the folder Task1 or Task2. Columns are x and y in tablet units, the channels asked for,
    stroke_end and sequence_end, all whole numbers. y points up in the files and is negated, so that it points
    down as everywhere in seqdens. `time` is in ms since the first row of the file (and steps back in a few);
    `azimuth`, `altitude` and `pressure` are in tablet units, and in Task 2 only.

    What `button` means was found from gaps in time, pressure and drawings. 0 is the first sample of a stroke:
    it follows a gap, and its pressure is not zero. 1, 3 and 5 continue a stroke. 2 and 4 have pressure 0 and
    are samples in the air with a side button held (837 rows of Task 1, 126 of Task 2): they are left out, and
    the stroke before them has ended.

    The split is by user, so that nobody's hand is in two parts: 1 to 32 train, 33 to 36 valid, 37 on test.

    Options:
        signatures: which ones to read
        channels: further columns, of time, azimuth, altitude and pressure
    """

    record_name: ClassVar[str] = "signature"
    notes: tuple[str, ...] = ("split by user: U1 to U32 train, U33 to U36 valid, U37 on test",)

    def __init__(
        self,
        root: Path | None = None,
        *,
        signatures: Signatures = "all",
        channels: tuple[Channel, ...] = (),
    ) -> None:
        if root is None:
            raise UsageError(f"svc needs --data DIR (in Python, root=DIR): {EXPECTED}.")
        if signatures not in get_args(Signatures):
            known = choices(signatures, get_args(Signatures))
            raise UsageError(f"signatures of svc is {signatures!r}; {known}")
        for channel in channels:
            if channel not in get_args(Channel) or channels.count(channel) > 1:
                known = choices(channel, get_args(Channel))
                raise UsageError(f"channels of svc has {channel!r}, unknown or given twice; {known}")
        self.root = Path(root)
        self.signatures = signatures
        self.channels = tuple(channels)
        extra = (Column(channel, "real", difference=channel == "time") for channel in self.channels)
        self.columns = (X, Y, *extra, STROKE_END, SEQUENCE_END)

    def sources(self) -> list[Source]:
        """One source per user, in order of their numbers.

        Raises `DataError` where `root` is not the folder of a task, or that task lacks one of the channels.
        """
        users = defaultdict(list)
        for user, signature, path in self._files():
            if self.signatures in ("all", label_of(signature)):
                users[user].append(path)
        if not users:
            wanted = "" if self.signatures == "all" else f"{self.signatures} "
            raise DataError(f"{self.root} holds no {wanted}signatures; name {EXPECTED}.")
        self._check_channels(next(iter(users.values()))[0])
        return [Source(f"U{user}", tuple(paths), split_of(user)) for user, paths in users.items()]

    def read(self, source: Source) -> Iterator[Record | Skipped]:
        """The signatures of one user; a file that cannot be read is skipped."""
        for path in source.paths:
            user, signature = numbers(path.name)
            try:
                check_file(path, self.root)
                points = self._points(parse(path.read_text(ENCODING)))
            except OSError as error:
                yield Skipped(str(path), f"cannot be read: {error.strerror}")
            except ValueError as error:
                yield Skipped(str(path), str(error))
            else:
                name, label = f"U{user}S{signature}", label_of(signature)
                yield Record(name, points, source.split, group=source.name, label=label)

    def _files(self) -> list[tuple[int, int, Path]]:
        """User, signature and path of each file, in order."""
        if not self.root.is_dir():
            raise DataError(f"{self.root} is not a folder; name {EXPECTED}.")
        names = [path.name for path in self.root.iterdir()]
        files = [(*numbers(name), self.root / name) for name in names if FILE_NAME.fullmatch(name)]
        tasks = sorted(name for name in names if name.lower() in ("task1", "task2"))
        if tasks and not files:
            found = " and ".join(tasks)
            raise DataError(f"{self.root} holds {found}; name one of them, such as {self.root / tasks[-1]}.")
        return sorted(files)

    def _check_channels(self, path: Path) -> None:
        try:
            check_file(path, self.root)
            columns = parse(path.read_text(ENCODING)).shape[1]
        except (OSError, ValueError):
            return  # reading will report it
        if missing := [channel for channel in self.channels if channel not in FIELDS[:columns]]:
            raise DataError(
                f"{self.root} is Task 1, which has no {', '.join(missing)}; name the folder Task2, "
                "or leave these channels out."
            )

    def _points(self, rows: np.ndarray) -> np.ndarray:
        """Points (T, D) int32, in the order of `columns`, of the rows of a file."""
        fields = dict(zip(FIELDS, rows.T, strict=False))
        if missing := [channel for channel in self.channels if channel not in fields]:
            raise ValueError(f"has {len(fields)} columns, so no {', '.join(missing)}")
        button = fields["button"]
        down = (button == 0) | (button & 1 == 1)
        if down.sum() < 2:
            raise ValueError(f"has {down.sum()} point(s) with the pen down: nothing to predict")
        fields["y"] = -fields["y"]
        fields["time"] = fields["time"] - fields["time"][0]
        stroke = np.cumsum(button & 1 == 0)[down]
        stroke_end = np.diff(stroke, append=-1) != 0
        sequence_end = np.arange(len(stroke)) == len(stroke) - 1
        values = (fields[name][down] for name in ("x", "y", *self.channels))
        return np.column_stack([*values, stroke_end, sequence_end]).astype(np.int32)


def numbers(name: str) -> tuple[int, int]:
    """User and signature of a file name: (12, 3) of U12S3.TXT."""
    user, signature = re.findall(r"\d+", name)
    return int(user), int(signature)


def label_of(signature: int) -> Literal["genuine", "forged"]:
    return "genuine" if signature <= 20 else "forged"


def split_of(user: int) -> Split:
    return "train" if user <= 32 else "valid" if user <= 36 else "test"


def parse(content: str) -> np.ndarray:
    """The rows (T, 4 or 7) int64 of a file; raises `ValueError` with the line and the reason."""
    lines = content.rstrip().split("\n")
    first, *rows = [whole_numbers(number, line) for number, line in enumerate(lines, 1)]
    if first != [len(rows)]:
        raise ValueError(f"line 1 is {' '.join(map(str, first))!r}, but {len(rows)} points follow")
    for number, row in enumerate(rows, 2):
        if len(row) not in (TASK1_FIELDS, len(FIELDS)) or len(row) != len(rows[0]):
            raise ValueError(f"line {number} has {len(row)} columns; all lines have 4 (Task 1) or 7 (Task 2)")
    return np.array(rows, np.int64).reshape(len(rows), -1 if rows else TASK1_FIELDS)


def whole_numbers(number: int, line: str) -> list[int]:
    try:
        values = [int(value) for value in line.split()]
    except ValueError:
        raise ValueError(f"line {number} is {line.strip()[:60]!r}, not whole numbers") from None
    if any(abs(value) >= 2**31 for value in values):
        raise ValueError(f"line {number} has a number beyond 32 bits")
    return values
