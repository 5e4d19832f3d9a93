"""Strokes of a drawing: scaled, simplified and bent.

A stroke is (n, C) float64, of C columns x and y, y down, and in a raw drawing the time t in ms.
"""

from __future__ import annotations

import numpy as np

BEYOND = 2.0**31  # no coordinate of a screen
MOST_ROUNDS = 256  # of simplifying; strokes need some twenty
SIDE = 255.0  # the longer side of a simplified drawing

Strokes = list[np.ndarray]


def scale(strokes: Strokes) -> Strokes:
    """The drawing with its top and left at 0, its longer side `SIDE` and its first time 0.

    Raises `ValueError` where all points are one.
    """
    points = np.concatenate(strokes)
    low, high = points.min(axis=0), points.max(axis=0)
    side = (high - low)[:2].max()
    if not side:
        raise ValueError("all its points are one")
    factor = np.ones(points.shape[1])
    factor[:2] = SIDE / side
    return [(stroke - low) * factor for stroke in strokes]


def simplify(stroke: np.ndarray, epsilon: float) -> np.ndarray:
    """The points (k, C) of a stroke (n, C) from whose polyline no point of it is further than `epsilon`.

    Ramer, Douglas and Peucker's algorithm; where a stroke goes to and fro without end, all its points there.
    """
    if len(stroke) < 3:
        return stroke
    ink, places = stroke[:, :2], np.arange(len(stroke))
    kept = places[[0, -1]]
    for _ in range(MOST_ROUNDS):  # of all spans between kept points, each time, the furthest point
        span = np.searchsorted(kept[1:-1], places, side="right")
        distances = _distances(ink, ink[kept[span]], ink[kept[span + 1]])
        furthest = np.maximum.reduceat(distances, kept[:-1])[span]
        found = np.flatnonzero((distances == furthest) & (distances > epsilon))
        if not len(found):
            return stroke[kept]
        _, first = np.unique(span[found], return_index=True)
        kept = np.sort(np.concatenate([kept, found[first]]))
    return stroke[np.union1d(kept, np.flatnonzero(np.isin(span, span[found])))]


def _distances(points: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """How far points (n, 2) are each from a segment."""
    along, offset = ends - starts, points - starts
    place = (offset * along).sum(axis=1) / np.maximum((along * along).sum(axis=1), 1e-300)
    x, y = (offset - np.clip(place, 0, 1)[:, None] * along).T
    return np.asarray(np.hypot(x, y))


def bend(strokes: Strokes, rng: np.random.Generator) -> Strokes:
    """The drawing as another hand could have made it: a little wider, turned, and bent by two plane waves."""
    affine = np.eye(2) + rng.normal(0, 0.08, (2, 2))
    wave, phase = rng.normal(0, 4, (2, 2)) / SIDE, rng.uniform(0, 2 * np.pi, 2)
    amplitude = rng.normal(0, 0.025 * SIDE, (2, 2))
    return [_bent(stroke, affine, wave, phase, amplitude) for stroke in strokes]


def _bent(
    stroke: np.ndarray, affine: np.ndarray, wave: np.ndarray, phase: np.ndarray, amplitude: np.ndarray
) -> np.ndarray:
    ink = stroke[:, :2]
    return np.column_stack([ink @ affine + np.sin(ink @ wave + phase) @ amplitude, stroke[:, 2:]])


def to_points(strokes: Strokes) -> np.ndarray:
    """Points (T, C + 2) of strokes: their columns, stroke_end and sequence_end; int32 where all are whole numbers."""
    ends = np.cumsum([len(stroke) for stroke in strokes]) - 1
    columns = np.concatenate(strokes)
    marks = np.zeros((len(columns), 2))
    marks[ends, 0] = marks[-1, 1] = 1
    points = np.column_stack([columns, marks])
    return points.astype(np.int32) if (points == np.rint(points)).all() else points


def of_stroke3(rows: np.ndarray) -> Strokes:
    """Strokes (n, 2) of rows (T, 3) of dx, dy and whether the pen is lifted after it; the first row starts at 0, 0.

    Raises `ValueError` where they lead beyond 32 bits or are no numbers.
    """
    with np.errstate(all="ignore"):  # what overflows is refused
        ink = rows[:, :2].astype(float).cumsum(axis=0)
    if not (np.abs(ink) < BEYOND).all():
        raise ValueError("its rows lead beyond 32 bits")
    lifted = np.flatnonzero(rows[:-1, 2] != 0) + 1
    return np.split(ink, lifted)
