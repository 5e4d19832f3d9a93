"""What the two formats have in common: columns, points of strokes, files of a folder, splits by writer.

T points of a record, n points of a stroke.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np

from seqdens import Column, DataError, UsageError

COLUMNS = (
    Column("x", "real", difference=True),
    Column("y", "real", difference=True),
    Column("stroke_end", "binary", role="stroke_end"),
    Column("sequence_end", "binary", role="sequence_end"),
)
LARGEST = 2**31  # of a coordinate, so that whole numbers stay exact

SHARES = "about 80 % train, 10 % valid, 10 % test"

Split = Literal["train", "valid", "test"]


def points_of(strokes: Sequence[np.ndarray]) -> np.ndarray:
    """Points (T, 4), in the order of `COLUMNS`, of strokes (n, 2); int32 where all numbers are whole, else float64.

    The last point ends the sequence, and not a stroke too: heads that take binary columns for independent would end
    strokes wherever a sequence may end, and then go on writing.

    Raises `ValueError` for fewer than two points.
    """
    strokes = [stroke for stroke in strokes if len(stroke)]
    ends = np.cumsum([len(stroke) for stroke in strokes], dtype=int) - 1
    if not len(ends) or ends[-1] < 1:
        raise ValueError(f"{ends[-1] + 1 if len(ends) else 0} point(s) with the pen down: nothing to predict")
    points = np.zeros((ends[-1] + 1, len(COLUMNS)))
    points[:, :2] = np.concatenate(strokes)
    points[ends[:-1], 2] = points[-1, 3] = 1
    whole = points.astype(np.int32)
    return whole if (whole == points).all() else points


def number(text: str) -> float:
    """A coordinate; raises `ValueError` for what is none, or is too large to be one."""
    value = float(text)
    if "_" in text or not -LARGEST < value < LARGEST:
        raise ValueError(f"{quoted(text)} is not a number of 32 bits")
    return value


def quoted(text: str) -> str:
    """The beginning of what stands in a file, fit for a message of one line."""
    return repr(text.strip()[:40])


def files_below(root: Path, suffix: str, expected: str) -> list[Path]:
    """The files below `root` whose names end in `suffix`, in order, hidden ones left out.

    Raises `DataError` where `root` is no folder, cannot be listed, or holds none of them.
    """

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed: {error.strerror}.")

    if not root.is_dir():
        raise DataError(f"{root} is not a folder; name {expected}.")
    paths = [Path(folder, name) for folder, _, names in os.walk(root, onerror=fail) for name in names]
    named = (path for path in paths if path.name.lower().endswith(suffix) and not path.name.startswith("."))
    found = sorted(path for path in named if path.is_file())
    if not found:
        raise DataError(f"{root} holds no files{suffix and f' named *{suffix}'}; name {expected}.")
    return found


def hashed_split(key: str, seed: int, shares: tuple[float, float]) -> Split:
    """The split of a key, the same on every machine; `shares` are those of valid and test."""
    place = int.from_bytes(sha256(f"{seed} {key}".encode()).digest()[:8], "big") / 2**64
    valid, test = shares
    return "valid" if place < valid else "test" if place >= 1 - test else "train"


def check_choice(dataset: str, option: str, value: str, possible: Sequence[str]) -> None:
    if value not in possible:
        raise UsageError(f"{option} of {dataset} is {value!r}; it must be one of {', '.join(possible)}.")
