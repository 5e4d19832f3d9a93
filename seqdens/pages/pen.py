"""What draws: a pen of some width and colour, whose line is thicker where it is slow if wished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seqdens.errors import UsageError
from seqdens.pages.curves import curve, flatten, moved, outline
from seqdens.pages.layout import Sheet

_WIDEST = 20.0
_POWER, _THINNEST, _THICKEST = 0.6, 0.5, 1.5  # of a width that varies; shares of the pen's
_MEMORY = np.array([1.0, 6.0, 15.0, 20.0, 15.0, 6.0, 1.0]) / 64  # how speeds are averaged over points
_SPACING = 0.15  # mm between points of an outline, at most


@dataclass(frozen=True, kw_only=True)
class Pen:
    """A pen; raises `UsageError` for a width or a colour that is none.

    Options:
        width: of its line in mm
        colour: a name such as navy, or "#rrggbb", as matplotlib knows them
        variable: whether the line is thicker where the pen is slow
    """

    width: float = 0.4
    colour: str = "#1b2a4a"
    variable: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.width <= _WIDEST:
            raise UsageError(
                f"a pen {self.width:g} mm wide draws nothing: it must be more than 0, at most {_WIDEST:g}."
            )
        _ = self.rgb

    @property
    def rgb(self) -> tuple[float, float, float]:
        """Shares of red, green and blue."""
        from matplotlib.colors import to_rgba

        try:
            *rgb, opacity = to_rgba(self.colour)
        except ValueError:
            opacity = 0.0
        if opacity < 1:
            raise UsageError(
                f"a colour {self.colour!r} does not exist: it must be opaque, a name such as navy or '#rrggbb'."
            )
        return rgb[0], rgb[1], rgb[2]

    @property
    def hex(self) -> str:
        """The colour as "#rrggbb"."""
        return "#" + "".join(f"{round(255 * share):02x}" for share in self.rgb)


def shapes(sheet: Sheet, pen: Pen) -> list[list[np.ndarray]]:
    """For each line what is drawn: curves to be stroked, or outlines to be filled if the pen is variable."""
    if not pen.variable:
        return [[curve(stroke) for stroke in line.strokes] for line in sheet.lines]
    strokes = [stroke for line in sheet.lines for stroke in line.strokes]
    usual = _usual_step(strokes)
    return [[_outline(stroke, pen, usual) for stroke in line.strokes] for line in sheet.lines]


def _usual_step(strokes: Sequence[np.ndarray]) -> float:
    steps = np.concatenate([_steps(stroke) for stroke in strokes])
    return float(np.median(steps[steps > 0])) if (steps > 0).any() else 1.0


def _steps(stroke: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(np.diff(stroke, axis=0), axis=1))


def _outline(stroke: np.ndarray, pen: Pen, usual: float) -> np.ndarray:
    points, before = flatten(curve(stroke), _SPACING)
    widths = pen.width * _shares(stroke, usual)[moved(stroke)]
    return outline(points, np.interp(before, np.arange(len(widths)), widths))


def _shares(stroke: np.ndarray, usual: float) -> np.ndarray:
    """(n,) of the pen's width at each point of a stroke, 1 at the usual speed; strokes of a few points do not vary."""
    steps = _steps(stroke)[1:-1]  # the pen is put down and lifted within the outer ones
    if len(steps) < len(_MEMORY):
        return np.ones(len(stroke))
    speeds = 0.5 * (np.pad(steps, (1, 2), mode="edge") + np.pad(steps, (2, 1), mode="edge"))
    smooth = np.convolve(np.pad(speeds, len(_MEMORY) // 2, mode="reflect"), _MEMORY, mode="valid")
    with np.errstate(divide="ignore"):
        return np.clip((usual / smooth) ** _POWER, _THINNEST, _THICKEST)
