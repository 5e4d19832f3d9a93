"""Points to offsets and back: the changes of `difference` columns from point to point, other columns as they are.

T points, D columns. Where any column is differenced, T points make T - 1 offsets: the first point's values
are dropped, and an offset leads from the last point of a stroke to the first of the next like any other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seqdens.datasets.base import Column


def _differenced(columns: Sequence[Column]) -> list[int]:
    return [index for index, column in enumerate(columns) if column.difference]


def to_offsets(points: np.ndarray, columns: Sequence[Column]) -> np.ndarray:
    """Offsets (T - 1, D) of points (T, D), in raw units; exact int64 for integers, else float64.

    >>> from seqdens.datasets.base import STROKE_END, X, Y
    >>> to_offsets(np.array([[5, 5, 0], [9, 6, 1], [20, 0, 1]]), (X, Y, STROKE_END)).tolist()
    [[4, 1, 1], [11, -6, 1]]
    """
    values: np.ndarray = points.astype(np.int64 if np.issubdtype(points.dtype, np.integer) else np.float64)
    differenced = _differenced(columns)
    if not differenced:
        return values
    offsets = values[1:].copy()
    for index in differenced:  # one by one: several columns at once are copied thrice
        offsets[:, index] -= values[:-1, index]
    return offsets


def to_points(offsets: np.ndarray, columns: Sequence[Column]) -> np.ndarray:
    """Points (T + 1, D) float64 of offsets (T, D), from a first point of zeros; without differences (T, D).

    >>> from seqdens.datasets.base import STROKE_END, X, Y
    >>> to_points(np.array([[4, 1, 1], [11, -6, 1]]), (X, Y, STROKE_END)).tolist()
    [[0.0, 0.0, 0.0], [4.0, 1.0, 1.0], [15.0, -5.0, 1.0]]
    """
    differenced = _differenced(columns)
    if not differenced:
        return offsets.astype(np.float64)
    points = np.concatenate([np.zeros((1, offsets.shape[1])), offsets.astype(np.float64)])
    points[:, differenced] = points[:, differenced].cumsum(axis=0)
    return points
