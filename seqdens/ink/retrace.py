"""Ink from elsewhere as a model's training data have it: their size, their density of points, a pen's speed.

The pen's way is followed anew, at the speed of the two-thirds power law (speed ~ curvature^(-1/3), Lacquaniti,
Terzuolo and Viviani 1983), and sampled at equal times. n points of a stroke, N of all, T offsets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seqdens.datasets.base import STROKE_END, X, Y
from seqdens.offsets import to_offsets

POINTS = 21.5  # a character, spaces too: 20.8 on hershey, 22.2 on IAM-OnDB
STEP = 0.4  # mean step within strokes, by the length of the offsets' std: 0.43 on hershey, 0.37 on IAM-OnDB
_FINE = 1 / 40  # between points before sampling, by the way of a character, which is about three x-heights
_STRAIGHT = 1.0  # curvature, by a character's way, below which the pen is not faster still
_ROUNDING = 2  # passes of smoothing the turns: recorded ink has its turns at its points alone
_ENDS = 0.3  # speed at a stroke's ends; full from 0.7 / 3 of a character's way on


def retrace(strokes: Sequence[np.ndarray], characters: int, std: np.ndarray) -> np.ndarray:
    """Offsets (T, 3) float32 dx, dy, stroke_end in raw units of `strokes` (n, 2), which write so many characters.

    `std` (2,) is that of the model's offsets in raw units. T is about `POINTS` a character, and at least 2 a stroke.
    Raises `ValueError` for ink without extent.
    """
    ways = np.array([_distances(stroke).sum() for stroke in strokes])
    unit = ways.sum() / characters
    if not unit > 0:
        raise ValueError("the pen does not move within a stroke")
    fine = [_at_equal(stroke / unit, _distances(stroke / unit), _FINE) for stroke in strokes]
    clocks = [_durations(stroke) for stroke in fine]
    moving = max(POINTS * characters - len(strokes), len(strokes))
    tick = sum(clock.sum() for clock in clocks) / moving
    sampled = [_at_equal(stroke, clock, tick) for stroke, clock in zip(fine, clocks, strict=True)]
    steps = np.concatenate([np.diff(stroke, axis=0) for stroke in sampled])
    scale = STEP * np.hypot(*std) / np.hypot(*steps.T).mean()
    ends = np.concatenate([np.arange(len(stroke)) == len(stroke) - 1 for stroke in sampled])
    points = np.column_stack([np.concatenate(sampled) * scale, ends])
    return to_offsets(points, (X, Y, STROKE_END)).astype(np.float32)


def _distances(points: np.ndarray) -> np.ndarray:
    """How far each point (n, 2) is from the one before it; 0 for the first."""
    return np.concatenate([[0.0], np.hypot(*np.diff(points, axis=0).T)])


def _at_equal(points: np.ndarray, costs: np.ndarray, step: float) -> np.ndarray:
    """The way through points (n, 2), about every `step` of `costs` (n,) from the point before; the ends stay."""
    clock = costs.cumsum()
    ticks = np.linspace(0, clock[-1], max(1, round(clock[-1] / step)) + 1)
    return np.column_stack([np.interp(ticks, clock, column) for column in points.T])


def _durations(points: np.ndarray) -> np.ndarray:
    """The time (n,) from the point before, of points (n, 2) at nearly equal distances."""
    if len(points) < 3:
        return _distances(points)
    (x, y), (next_x, next_y) = (steps.T for steps in (np.diff(points[:-1], axis=0), np.diff(points[1:], axis=0)))
    turns = np.concatenate([[0], np.arctan2(x * next_y - y * next_x, x * next_x + y * next_y), [0]])
    curvature = np.abs(_smooth(turns, _ROUNDING)) / _FINE
    index = np.arange(len(points))
    from_end = np.minimum(index, index[::-1]) * _FINE
    speed = (curvature + _STRAIGHT) ** (-1 / 3) * np.minimum(1, _ENDS + 3 * from_end)
    return _distances(points) / _smooth(speed, 4)


def _smooth(values: np.ndarray, passes: int) -> np.ndarray:
    """Values (n,) averaged with their neighbours; the first and last stay."""
    values = values.copy()
    for _ in range(passes):
        values[1:-1] += np.diff(values, 2) / 4
    return values
