"""A sheet as G-code for a pen plotter, in the dialect of GRBL: mm, absolute, the origin at the paper's bottom left.

Every move with the pen up is G0, every one with the pen down G1; comments hold letters, digits and blanks alone, so
that no text written is a command.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seqdens.errors import UsageError
from seqdens.pages.curves import curve, flatten
from seqdens.pages.layout import Sheet

LIFTS = ("z", "servo")

_SPACING = 0.2  # mm between points on a curve, at most
_LONGEST_COMMENT = 40
_FARTHEST = 1000.0  # mm


@dataclass(frozen=True, kw_only=True)
class Plotter:
    """How a plotter moves; raises `UsageError` for values that it could not obey.

    Options:
        lift: z moves the pen along the Z axis; servo puts it down by M3 and up by M5
        up: Z of the pen off the paper, in mm
        down: Z of the pen on the paper, in mm
        press: S of M3
        dwell: seconds that a servo is given to move
        feed: mm a minute on paper
        plunge: mm a minute down to the paper along the Z axis
    """

    lift: str = "z"
    up: float = 5.0
    down: float = 0.0
    press: float = 1000.0
    dwell: float = 0.2
    feed: float = 1500.0
    plunge: float = 500.0

    def __post_init__(self) -> None:
        if self.lift not in LIFTS:
            raise UsageError(f"a lift {self.lift!r} does not exist: it must be one of {', '.join(LIFTS)}.")
        if not -_FARTHEST <= self.down < self.up <= _FARTHEST:
            raise UsageError(
                f"a pen that is up at {self.up:g} mm and down at {self.down:g} mm: up must be higher than down, "
                f"both from -{_FARTHEST:g} to {_FARTHEST:g}."
            )
        for name, least, most in (("feed", 1, 1e5), ("plunge", 1, 1e5), ("press", 0, 1e5), ("dwell", 0, 60)):
            value = getattr(self, name)
            if not least <= value <= most:
                raise UsageError(f"a plotter's {name} of {value:g} must be from {least} to {most:g}.")

    def lower(self) -> list[str]:
        """The commands that put the pen on the paper."""
        if self.lift == "servo":
            return [f"M3 S{self.press:g}", f"G4 P{self.dwell:g}"]
        return [f"G1 Z{self.down:.3f} F{self.plunge:.0f}"]

    def raise_(self) -> list[str]:
        """The commands that take the pen off the paper."""
        return ["M5", f"G4 P{self.dwell:g}"] if self.lift == "servo" else [f"G0 Z{self.up:.3f}"]


def write_gcode(sheet: Sheet, path: Path, plotter: Plotter) -> None:
    """Write a sheet: strokes in the order of writing, the pen parked over the origin at the end."""
    program = [
        f"(seqdens: paper of {sheet.width:g} x {sheet.height:g} mm)",
        *("G21", "G90", "G94"),
        *plotter.raise_(),
    ]
    for number, line in enumerate(sheet.lines, start=1):
        program.append(f"(line {number}: {_comment(line.text)})")
        for stroke in line.strokes:
            program += _draw(stroke, sheet, plotter)
    path.write_text("\n".join([*program, "G0 X0.000 Y0.000", "M2", ""]), encoding="ascii", newline="\n")


def _draw(stroke: np.ndarray, sheet: Sheet, plotter: Plotter) -> list[str]:
    points, _ = flatten(curve(stroke), _SPACING)
    x, y = points.clip(0, (sheet.width, sheet.height)).T
    start, first, *rest = (f"X{x:.3f} Y{y:.3f}" for x, y in zip(x, sheet.height - y, strict=True))
    moves = [f"G1 {first} F{plotter.feed:.0f}", *(f"G1 {point}" for point in rest)]
    return [f"G0 {start}", *plotter.lower(), *moves, *plotter.raise_()]


def _comment(text: str) -> str:
    """What no control mistakes for a command: ?, ~ and ! are ones to GRBL wherever they stand, ) ends a comment."""
    plain = "".join(character if character.isascii() and character.isalnum() else " " for character in text)
    return " ".join(plain.split())[:_LONGEST_COMMENT]
