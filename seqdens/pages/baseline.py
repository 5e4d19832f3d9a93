"""Where a line of writing stands and how large it is, from its ink alone.

The pen turns at the bottom and at the top of nearly every letter. Most bottoms lie on the baseline, most tops an
x-height above it; descenders, ascenders, joins and dots are the minority that a mode ignores. Points are (n, 2),
y down, in units of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_STEEPEST, _SLOPES = 0.25, 101  # tried
_USUAL_SLOPE = 0.05
_SPREAD = 0.12  # of bottoms about the baseline, as a share of a usual up or down stroke
_FLAT, _NONE = 1e-6, 1e-9  # share of a line's extent, and units, up to which ink has no height
_MOST = 400  # turns that are looked at


class Body(NamedTuple):
    """The baseline y = `y` + `slope` x, and the height of the letters on it that have no ascender; 0 if unknown."""

    slope: float
    y: float
    height: float


def measure(strokes: Sequence[np.ndarray]) -> Body:
    """The baseline and the x-height of a line's strokes, at least one point in all."""
    bottoms, tops = _bottoms(strokes), _bottoms([stroke * (1, -1) for stroke in strokes]) * (1, -1)
    spread = _SPREAD * _usual_length(strokes)
    if spread <= max(_FLAT * np.ptp(np.concatenate(strokes), axis=0).max(), _NONE):
        return Body(0.0, float(np.median(bottoms[:, 1])), 0.0)
    slope, y = _fit(bottoms, spread)
    heights = y + slope * tops[:, 0] - tops[:, 1]
    heights = heights[heights > 2 * spread]
    return Body(slope, y, _mode(heights, spread)[0] if len(heights) else 0.0)


def _bottoms(strokes: Sequence[np.ndarray]) -> np.ndarray:
    """The points (m, 2) that are lower than the one before and the one after in their stroke, evenly thinned out."""
    found = []
    for stroke in strokes:
        y = np.concatenate([[-np.inf], stroke[:, 1], [-np.inf]])
        found.append(stroke[(y[1:-1] >= y[:-2]) & (y[1:-1] > y[2:])])
    points = np.concatenate(found)
    return points[:: -(-len(points) // _MOST)]


def _usual_length(strokes: Sequence[np.ndarray]) -> float:
    """The height of an up or down stroke of the pen in which half of all its vertical way is made."""
    turns = [np.flatnonzero(np.diff(np.sign(np.diff(stroke[:, 1]))) != 0) + 1 for stroke in strokes]
    heights = np.concatenate(
        [np.abs(np.diff(stroke[[0, *turn, -1], 1])) for stroke, turn in zip(strokes, turns, strict=True)]
    )
    heights.sort()
    way = heights.cumsum()
    return float(heights[np.searchsorted(way, 0.5 * way[-1])])


def _fit(points: np.ndarray, spread: float) -> tuple[float, float]:
    """Slope and y at x = 0 of the line near which most points lie; a steep one needs more of them."""
    middle = points[:, 0].mean()
    x = points[:, 0] - middle
    slopes = np.linspace(-_STEEPEST, _STEEPEST, _SLOPES)
    modes = [_mode(points[:, 1] - slope * x, spread) for slope in slopes]
    scores = [count - 0.5 * (slope / _USUAL_SLOPE) ** 2 for slope, (_, count) in zip(slopes, modes, strict=True)]
    best = int(np.argmax(scores))
    slope, y = float(slopes[best]), modes[best][0]
    return slope, y - slope * middle


def _mode(values: np.ndarray, spread: float) -> tuple[float, float]:
    """Where values are densest, and how many of them lie there."""
    near = np.exp(-0.5 * ((values[:, None] - values) / spread) ** 2)
    best = near[near.sum(axis=0).argmax()]
    return float(best @ values / best.sum()), float(best.sum())
