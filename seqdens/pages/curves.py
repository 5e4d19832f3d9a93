"""The pen's way through points as smooth curves, and its outline where its width varies.

n points (n, 2) of a stroke; the pen was at them at equal times. A curve (1 + 3 (n - 1), 2) is a first point and
for each cubic Bézier segment two control points and the end.
"""

from __future__ import annotations

import numpy as np

_DOT = 0.01  # mm; a stroke of no length is this long, so that every format draws it
_ROUND = np.pi / 8  # of a corner between two points of an outline


def curve(points: np.ndarray) -> np.ndarray:
    """The centripetal Catmull-Rom spline through a stroke, which makes no loops that the points do not have.

    Source: Barry and Goldman, "A recursive evaluation algorithm for a class of Catmull-Rom splines" (1988); Yuksel,
    Schaefer and Keyser, "Parameterization and applications of Catmull-Rom curves" (2011).
    """
    points = distinct(points)
    ends = np.vstack([2 * points[0] - points[1], points, 2 * points[-1] - points[-2]])
    steps = np.sqrt(np.linalg.norm(np.diff(ends, axis=0), axis=1))[:, None]
    slopes = np.diff(ends, axis=0) / steps
    before, after = steps[:-1], steps[1:]
    tangents = (slopes[:-1] * after + slopes[1:] * before) / (before + after)
    thirds = steps[1:-1] / 3
    segments = [points[:-1] + tangents[:-1] * thirds, points[1:] - tangents[1:] * thirds, points[1:]]
    return np.vstack([points[:1], np.stack(segments, axis=1).reshape(-1, 2)])


def distinct(points: np.ndarray) -> np.ndarray:
    """The points that differ from the one before; a dot becomes two."""
    kept = points[moved(points)]
    return kept if len(kept) > 1 else np.vstack([kept, kept + np.array([_DOT, 0.0])])


def moved(points: np.ndarray) -> np.ndarray:
    """(n,) bool: points that differ from the one before, and the first."""
    return np.concatenate([[True], (points[1:] != points[:-1]).any(axis=1)])


def flatten(curve: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Points (m, 2) on a curve, no further apart than about `spacing`, and how many segments lie before each (m,)."""
    corners = np.stack([curve[:-1:3], curve[1::3], curve[2::3], curve[3::3]])
    lengths = np.linalg.norm(np.diff(corners, axis=0), axis=2).sum(axis=0)
    counts = np.maximum(1, np.ceil(lengths / spacing)).astype(int)
    segment = np.repeat(np.arange(len(counts)), counts)
    share = (np.arange(len(segment)) - np.repeat(counts.cumsum() - counts, counts) + 1) / counts[segment]
    t, u = share[:, None], 1 - share[:, None]
    a, b, c, d = corners[:, segment]
    inner = u**3 * a + 3 * u * u * t * b + 3 * u * t * t * c + t**3 * d
    return np.vstack([curve[:1], inner]), np.concatenate([[0.0], segment + share])


def outline(points: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The closed polygon (m, 2) around a round pen that moves through points (n, 2), n at least 2, with widths (n,).

    To be filled by the non-zero rule: where the pen turns sharply it overlaps itself.
    """
    steps = np.diff(points, axis=0)
    angles = np.arctan2(steps[:, 1], steps[:, 0])
    angles = np.concatenate([angles, angles[::-1] + np.pi])  # there and back
    corners = np.concatenate([points[1:], points[-2::-1]])
    radii = 0.5 * np.concatenate([widths[1:], widths[-2::-1]])
    turns = np.pi - (np.pi + angles - np.roll(angles, -1)) % (2 * np.pi)
    turns[[len(steps) - 1, -1]] = np.pi  # around the ends
    lengths = np.linalg.norm(np.concatenate([steps, steps[::-1]]), axis=1)
    tight = turns * radii < -0.5 * np.minimum(lengths, np.roll(lengths, -1))
    return _corners(corners, radii, angles - 0.5 * np.pi, turns, tight | (turns <= -_ROUND))


def _corners(
    centres: np.ndarray, radii: np.ndarray, angles: np.ndarray, turns: np.ndarray, wedged: np.ndarray
) -> np.ndarray:
    """The outline (m, 2) on one side of the pen, at `angles` from it, where it turns: an arc, or a wedge.

    A wedge goes through the pen's centre; inside of tight turns, where the side would run backwards and what it
    encloses would count as not covered, it keeps the parts of the side apart.
    """
    counts = np.where(wedged, 3, np.where(turns < _ROUND, 1, 2 + (turns / _ROUND).astype(int)))
    at = np.repeat(np.arange(len(turns)), counts)
    number = np.arange(len(at)) - np.repeat(counts.cumsum() - counts, counts)
    share = np.where(counts[at] == 1, 0.5, number / np.maximum(1, counts[at] - 1))
    direction = angles[at] + share * turns[at]
    radius = np.where(wedged[at] & (number == 1), 0.0, radii[at])
    return np.asarray(centres[at] + radius[:, None] * np.stack([np.cos(direction), np.sin(direction)], axis=1))


def numbers(points: np.ndarray) -> list[str]:
    """Each point as "x y", to a thousandth."""
    return [f"{x:.3f} {y:.3f}" for x, y in points.tolist()]
