"""Lines of an ndjson file, any range of its bytes on its own, and the drawing in a line.

A line belongs to the range in which it begins, so that ranges that cover a file hold each of its lines once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import BinaryIO

import msgspec
import numpy as np

from seqdens_quickdraw.strokes import BEYOND

LONGEST = 1 << 20  # bytes of a line; a raw drawing has a few thousand


class Drawing(msgspec.Struct):
    """What is used of a line; `drawing` holds for each stroke the lists x, y and, in raw files, t."""

    word: str
    key_id: str | int
    recognized: bool
    drawing: list[list[list[int | float]]]


_decoder = msgspec.json.Decoder(Drawing)


def lines(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Offset and content of each line that begins at a byte of `start` to `end`; a line ends after `LONGEST` bytes."""
    if start:
        file.seek(start - 1)
        _skip_line(file, end)
    while (offset := file.tell()) < end and (line := file.readline(LONGEST)):
        yield offset, line
        if not line.endswith(b"\n"):
            _skip_line(file, end)


def _skip_line(file: BinaryIO, end: float = math.inf) -> None:
    """To the end of the line, or beyond `end`."""
    while file.tell() < end and (piece := file.readline(LONGEST)) and not piece.endswith(b"\n"):
        pass


def end_of_lines(file: BinaryIO, count: int) -> int:
    """The offset at which the first `count` lines end."""
    for _ in range(count):
        line = file.readline(LONGEST)
        if not line:
            break
        if not line.endswith(b"\n"):
            _skip_line(file)
    return file.tell()


def parse(line: bytes) -> tuple[Drawing, list[np.ndarray]]:
    """A line's drawing, and its strokes (n, 2 or 3) float64: x, y and, in a raw drawing, t in ms.

    Raises `ValueError` with the reason where it is no drawing.
    """
    if len(line) >= LONGEST:
        raise ValueError(f"the line has {LONGEST} bytes or more")
    try:
        drawing = _decoder.decode(line)
        strokes = [_stroke(lists) for lists in drawing.drawing]
    except (msgspec.DecodeError, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if len({stroke.shape[1] for stroke in strokes}) != 1:
        raise ValueError("it has no strokes" if not strokes else "only some of its strokes have times")
    return drawing, strokes


def _stroke(lists: list[list[int | float]]) -> np.ndarray:
    if len(lists) not in (2, 3) or len({len(values) for values in lists}) != 1 or not lists[0]:
        raise ValueError("a stroke is not of two or three equally long lists x, y, t")
    stroke = np.array(lists, float).T
    if not (np.abs(stroke) < BEYOND).all():
        raise ValueError("a number is beyond 32 bits")
    return stroke
