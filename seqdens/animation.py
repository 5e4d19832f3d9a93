"""The pen moving over a page, as an animated GIF.

All records are drawn at one pace, so many points a frame. A dot is the pen; it goes where its record ends. A frame
holds what differs from the one before, and is transparent elsewhere. Colours are numbered: shades from paper to
ink, then shades from paper to dot, then transparent.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from math import ceil
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageColor, ImageDraw

PACE = 3  # points a frame
FRAME, HOLD = 4, 200  # hundredths of a second that a frame, and the last one, are shown
MOST_FRAMES = 1500  # a minute of them; the pace is higher for records that need more

_FINE = 4  # ink is drawn this much larger, then reduced
_INKS, _DOTS = 16, 8
_TRANSPARENT = _INKS + _DOTS
_BITS = 5  # of a colour's number
_DOT = (0xD1, 0x3B, 0x3B)


def write_gif(file: BinaryIO, paper: np.ndarray, inks: Sequence[Sequence[np.ndarray]], pen: float, colour: str) -> None:
    """Animate the strokes (n, 2) of each record, and the pen's width, in pixels; the last frame is all ink, no dots.

    `paper` (height, width, 3) uint8 is what stands there from the start, in shades of the ink's colour. GIF89a.
    """
    ink = ImageColor.getrgb(colour)[:3]
    channel = ink.index(min(ink))  # in which the ink differs most from white
    shares = ((255.0 - paper[:, :, channel]) * 255 / max(1, 255 - ink[channel])).clip(0, 255).astype(np.uint8)
    file.write(_header(shares.shape, ink))
    shown = np.full(shares.shape, _TRANSPARENT)
    for frame, duration in _frames(shares, inks, pen):
        file.write(_changes(shown, frame, duration))
        shown = frame
    file.write(b";")


def _frames(shares: np.ndarray, inks: Sequence[Sequence[np.ndarray]], pen: float) -> Iterator[tuple[np.ndarray, int]]:
    """The colours' numbers (height, width) of each frame, and how long it is shown."""
    sheet = _Sheet(shares, pen)
    dot = _dot(max(3.0, 1.8 * pen))
    records = [_segments(ink) for ink in inks]
    last = max(map(len, records)) - 1
    pace = max(PACE, ceil(last / MOST_FRAMES))
    for reached in range(0, last + pace, pace):
        for segments in records:
            sheet.draw(segments[max(0, reached - pace + 1) : reached + 1])
        frame = sheet.shades.copy()
        for segments in records:
            if reached < len(segments):
                _put(dot, frame, segments[reached, 1])
        yield frame, FRAME
    yield sheet.shades, HOLD


def _segments(strokes: Sequence[np.ndarray]) -> np.ndarray:
    """For each point where the pen came from and it (n, 2, 2); a stroke's first point comes from itself."""
    return np.concatenate([np.stack([np.vstack([stroke[:1], stroke[:-1]]), stroke], axis=1) for stroke in strokes])


class _Sheet:
    """Paper that is drawn on: of its pixels (height, width) the shares of ink in 1/255, and `shades`, their numbers."""

    def __init__(self, shares: np.ndarray, pen: float) -> None:
        self.image = Image.fromarray(shares)
        self.image = self.image.resize((_FINE * self.image.width, _FINE * self.image.height), Image.Resampling.NEAREST)
        self.brush, self.pen = ImageDraw.Draw(self.image), pen
        self.width = max(1, round(_FINE * pen))
        self.shades = _shades(shares)

    def draw(self, segments: np.ndarray) -> None:
        """Draw segments (n, 2, 2) with round ends."""
        radius = 0.5 * (self.width - 1)
        for start, end in _FINE * segments - 0.5:
            self.brush.line([*start, *end], fill=255, width=self.width)
            self.brush.ellipse([*(end - radius), *(end + radius)], fill=255)
        if len(segments):
            self._renew(segments.reshape(-1, 2))

    def _renew(self, points: np.ndarray) -> None:
        """Bring `shades` up to date around these points."""
        left, top = np.maximum(points.min(axis=0) - self.pen - 1, 0).astype(int)
        right, bottom = np.minimum(points.max(axis=0) + self.pen + 2, self.shades.shape[::-1]).astype(int)
        part = self.image.crop((_FINE * left, _FINE * top, _FINE * right, _FINE * bottom)).reduce(_FINE)
        self.shades[top:bottom, left:right] = _shades(np.asarray(part))


def _shades(shares: np.ndarray, count: int = _INKS) -> np.ndarray:
    """Shares of a colour in 1/255 as the nearest of `count` shades."""
    return (shares * ((count - 1) / 255) + 0.5).astype(np.uint8)


def _dot(radius: float) -> np.ndarray:
    """A disc as shades of the dot, 0 where there is none."""
    size = 2 * ceil(radius) + 1
    image = Image.new("L", (_FINE * size, _FINE * size))
    middle = 0.5 * (_FINE * size - 1)
    ends = [middle + sign * _FINE * radius for sign in (-1, -1, 1, 1)]
    ImageDraw.Draw(image).ellipse(ends, fill=255)
    return _shades(np.asarray(image.reduce(_FINE)), _DOTS + 1)


def _put(dot: np.ndarray, frame: np.ndarray, place: np.ndarray) -> None:
    """Draw the dot with its centre at a place (2,), as far as it is inside the frame."""
    left, top = np.floor(place - 0.5 * dot.shape[0] + 0.5).astype(int)
    dot = dot[max(0, -top) :, max(0, -left) :]
    dot = dot[: max(0, frame.shape[0] - max(0, top)), : max(0, frame.shape[1] - max(0, left))]
    part = frame[max(0, top) :, max(0, left) :][: dot.shape[0], : dot.shape[1]]
    part[dot > 0] = dot[dot > 0] + (_INKS - 1)


def _header(shape: tuple[int, ...], ink: tuple[int, ...]) -> bytes:
    """The size, the colours, and that the frames repeat for ever."""
    white = (255, 255, 255)
    inks, dots = np.linspace(white, ink, _INKS), np.linspace(white, _DOT, _DOTS + 1)[1:]
    colours = np.zeros((2**_BITS, 3), np.uint8)
    colours[:_TRANSPARENT] = np.concatenate([inks, dots]).round()
    screen = struct.pack("<6sHHBBB", b"GIF89a", *shape[::-1], 0x80 | (_BITS - 1) << 4 | (_BITS - 1), 0, 0)
    return screen + colours.tobytes() + b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"


def _changes(before: np.ndarray, after: np.ndarray, duration: int) -> bytes:
    """The frame `after`, as what is to be drawn over `before`."""
    changed = before != after
    rows, columns = (_extent(changed.any(axis=axis)) for axis in (1, 0))
    part = Image.fromarray(np.where(changed, after, np.uint8(_TRANSPARENT))[rows, columns])
    control = struct.pack("<BBBBHBB", 0x21, 0xF9, 4, 1 << 2 | 1, duration, _TRANSPARENT, 0)
    place = struct.pack("<BHHHHB", 0x2C, columns.start, rows.start, *part.size, 0)
    return control + place + bytes([_BITS]) + part.tobytes("gif", "L", _BITS, 0) + b"\0"


def _extent(changed: np.ndarray) -> slice:
    """From the first to the last that is true, at least one."""
    there = np.flatnonzero(changed)
    return slice(int(there[0]), int(there[-1]) + 1) if len(there) else slice(0, 1)
