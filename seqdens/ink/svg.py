"""SVG drawings to strokes: paths, polylines, polygons and lines, with their transforms (SVG 1.1, sections 7 to 9).

A point (x, y) is the complex number x + iy, y down; n points of a stroke. Curves become `CURVE` chords. What is
filled, written, clipped or used by reference is not looked at: a drawing's ink is the middle line of its paths.
"""

from __future__ import annotations

import re
from cmath import phase, rect
from collections.abc import Iterator
from math import comb, cos, pi, radians, sin, sqrt, tan
from pathlib import Path

import numpy as np
from lxml import etree

from seqdens.errors import DataError
from seqdens.ink.xml import read_root, tag

CURVE = 24  # chords of a curve: far finer than the points that a pen's way is resampled to
MOST_POINTS = 500_000  # of a drawing
MOST_MOVES = 100_000  # of a path

_NUMBER = re.compile(r"[\s,]*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)")
_FLAG = re.compile(r"[\s,]*([01])")
_COMMAND = re.compile(r"[\s,]*([MmZzLlHhVvCcSsQqTtAa])")
_ARGUMENTS = {"m": 2, "l": 2, "h": 1, "v": 1, "c": 6, "s": 4, "q": 4, "t": 2, "a": 7, "z": 0}
_TRANSFORM = re.compile(r"[\s,]*(\w+\s*\([^()]*\))")
_SPACE = " ,\t\r\n\f"
_UNDRAWN = {"defs", "symbol", "clipPath", "mask", "pattern", "marker", "text", "metadata"}


def read_svg(path: str | Path) -> list[np.ndarray]:
    """The strokes (n, 2) float64 of an SVG file in the order in which they stand there, y down.

    Raises `DataError` for a file that is missing, malformed, or without strokes.
    """
    path = Path(path)
    root = read_root(path, "svg")
    try:
        with np.errstate(all="ignore"):  # what overflows is refused
            strokes = _limited(_strokes(root, np.eye(3)))
    except (ValueError, ArithmeticError) as error:
        raise DataError(f"cannot load {str(path)!r}: {error}.") from None
    if not strokes:
        raise DataError(f"cannot load {str(path)!r}: it draws no <path>, <polyline>, <polygon> or <line>.")
    return strokes


def _limited(strokes: Iterator[np.ndarray]) -> list[np.ndarray]:
    found, total = [], 0
    for stroke in strokes:
        found.append(stroke)
        total += len(stroke)
        if total > MOST_POINTS:
            raise ValueError(f"it has more than {MOST_POINTS:,} points")
    return found


def _strokes(element: etree._Element, outer: np.ndarray) -> Iterator[np.ndarray]:
    """The strokes of `element` and all in it; `outer` (3, 3) leads from where it stands to the page."""
    if not isinstance(element.tag, str) or tag(element) in _UNDRAWN or element.get("display") == "none":
        return
    matrix = outer @ transform(element.get("transform", ""))
    for stroke in _own_strokes(element):
        points = np.column_stack([stroke.real, stroke.imag]) @ matrix[:2, :2].T + matrix[:2, 2]
        if not (np.abs(points) < 1e9).all():
            raise ValueError(f"a <{tag(element)}> leads beyond a thousand million units")
        yield points
    for child in element:
        yield from _strokes(child, matrix)


def _own_strokes(element: etree._Element) -> list[np.ndarray]:
    name = tag(element)
    if name == "path":
        return path_strokes(element.get("d", ""))
    if name in ("polyline", "polygon"):
        values = _numbers(element.get("points", ""))
        if len(values) % 2:
            raise ValueError(f"a <{name}> has an odd number of coordinates")
        points = np.array(values[::2]) + 1j * np.array(values[1::2])
        return [np.append(points, points[0]) if name == "polygon" else points] if len(points) else []
    if name == "line":
        x1, y1, x2, y2 = ((*_numbers(element.get(key, "")), 0.0)[0] for key in ("x1", "y1", "x2", "y2"))
        return [np.array([complex(x1, y1), complex(x2, y2)])]
    return []


def path_strokes(data: str) -> list[np.ndarray]:
    """The subpaths (n,) complex of path data, in user units; a subpath of a move alone draws nothing.

    Raises `ValueError` for what is no path data and for more than `MOST_POINTS`.

    >>> [stroke.tolist() for stroke in path_strokes("M1 2h3v4m1 1l0 2")]
    [[(1+2j), (4+2j), (4+6j)], [(5+7j), (5+9j)]]
    """
    strokes: list[list[np.ndarray]] = []
    position = start = control = 0j  # control: the last control point of the curve before, else the position
    before = "z"
    total = 0
    for command, values in _segments(data):
        letter = command.lower()
        if not strokes and letter != "m":
            raise ValueError(f"the path {data[:30]!r} must begin with a move")
        origin = position if command.islower() else 0j
        points = [origin + complex(x, y) for x, y in zip(values[::2], values[1::2], strict=False)]
        if letter == "m":
            start = position = control = points[0]
            if len(strokes) == MOST_MOVES:
                raise ValueError(f"a path has more than {MOST_MOVES:,} moves")
            strokes.append([np.array([start])])
            before = letter
            continue
        if before == "z":
            strokes.append([np.array([position])])
        curve: list[complex] = []
        if letter == "z":
            added = np.array([start])
        elif letter == "l":
            added = np.array(points)
        elif letter == "h":
            added = np.array([complex(values[0] + origin.real, position.imag)])
        elif letter == "v":
            added = np.array([complex(position.real, values[0] + origin.imag)])
        elif letter == "a":
            added = _arc(position, values[:5], origin + complex(values[5], values[6]))
        else:
            mirrored = 2 * position - control if before in {"s": "cs", "t": "qt"}.get(letter, "") else position
            curve = [position, *([mirrored] if letter in "st" else []), *points]
            added = _bezier(curve)
        strokes[-1].append(added)
        position = complex(added[-1])
        control = curve[-2] if curve else position
        before = letter
        total += len(added)
        if total > MOST_POINTS:
            raise ValueError(f"a path has more than {MOST_POINTS:,} points")
    return [np.concatenate(stroke) for stroke in strokes if len(stroke) > 1]


def transform(text: str) -> np.ndarray:
    """The matrix (3, 3) of a transform attribute; raises `ValueError` for what is none.

    >>> (transform("translate(10) scale(2)") @ [1, 1, 1]).tolist()
    [12.0, 2.0, 1.0]
    """
    text, matrix, place = text.rstrip(_SPACE), np.eye(3), 0
    while place < len(text):
        function, place = _next(_TRANSFORM, text, place)
        name, _, arguments = function[:-1].partition("(")
        matrix = matrix @ _matrix(name.rstrip(), _numbers(arguments))
    return matrix


def _matrix(name: str, values: list[float]) -> np.ndarray:
    a, b, c, d, e, f = 1.0, 0.0, 0.0, 1.0, 0.0, 0.0
    match name, values:
        case "matrix", [a, b, c, d, e, f]:
            pass
        case "translate", [e, *rest] if len(rest) < 2:
            f = rest[0] if rest else 0.0
        case "scale", [a, *rest] if len(rest) < 2:
            d = rest[0] if rest else a
        case "rotate", [angle]:
            a = d = cos(radians(angle))
            b = sin(radians(angle))
            c = -b
        case "rotate", [angle, x, y]:
            there = _matrix("translate", [x, y])
            return np.asarray(there @ _matrix("rotate", [angle]) @ _matrix("translate", [-x, -y]))
        case "skewX", [angle]:
            c = tan(radians(angle))
        case "skewY", [angle]:
            b = tan(radians(angle))
        case _:
            raise ValueError(f"{name!r} of {len(values)} numbers is no transform")
    return np.array([[a, c, e], [b, d, f], [0, 0, 1]])


def _numbers(text: str) -> list[float]:
    """The numbers of a list, between spaces or commas; lengths may end in px."""
    text, values, place = text.replace("px", " ").rstrip(_SPACE), [], 0
    while place < len(text):
        value, place = _next(_NUMBER, text, place)
        values.append(float(value))
    return values


def _segments(data: str) -> Iterator[tuple[str, list[float]]]:
    """Each command of path data with its arguments; pairs that follow a move are lines."""
    data, place, command = data.rstrip(_SPACE), 0, ""
    while place < len(data):
        if not command or command in "zZ" or _COMMAND.match(data, place):
            command, place = _next(_COMMAND, data, place)
        values = []
        for index in range(_ARGUMENTS[command.lower()]):
            flag = command in "aA" and index in (3, 4)
            value, place = _next(_FLAG if flag else _NUMBER, data, place)
            values.append(float(value))
        yield command, values
        command = {"m": "l", "M": "L"}.get(command, command)


def _next(pattern: re.Pattern[str], text: str, place: int) -> tuple[str, int]:
    """What `pattern` finds at `place`, and where it ends."""
    match = pattern.match(text, place)
    if not match:
        raise ValueError(f"{text[place : place + 30].lstrip()!r} is not what may stand there in {text[:30]!r}")
    return match[1], match.end()


def _bezier(control: list[complex]) -> np.ndarray:
    """Points (`CURVE`,) of a Bezier curve, without its first."""
    t, n = np.arange(1, CURVE + 1) / CURVE, len(control) - 1
    weights = np.stack([comb(n, k) * t**k * (1 - t) ** (n - k) for k in range(n + 1)])
    points = np.array(control) @ weights
    return np.append(points[:-1], control[-1])


def _arc(start: complex, values: list[float], end: complex) -> np.ndarray:
    """Points (`CURVE`,) of an elliptical arc: of radii, degrees of turn, large, sweep (SVG 1.1, F.6)."""
    rx, ry, turn = abs(values[0]), abs(values[1]), rect(1, radians(values[2]))
    large, sweep = values[3] > 0, values[4] > 0
    if not rx or not ry or start == end:
        return np.array([end])

    def to_circle(point: complex) -> complex:
        turned = point / turn
        return complex(turned.real / rx, turned.imag / ry)

    first, last = to_circle(start), to_circle(end)
    half = abs(last - first) / 2
    radius = max(1.0, half)  # radii that are too small are enlarged
    away = 1j * (last - first) / (2 * half) * sqrt(max(radius**2 - half**2, 0.0))
    centre = (first + last) / 2 + (away if large != sweep else -away)
    angle = phase((last - centre) / (first - centre)) % (2 * pi)
    angle -= 0 if sweep else 2 * pi
    circle = centre + (first - centre) * np.exp(1j * angle * np.arange(1, CURVE + 1) / CURVE)
    return np.append(((circle.real * rx + 1j * circle.imag * ry) * turn)[:-1], end)
