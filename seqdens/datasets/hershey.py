"""The embedded data set: lines of handwriting by simulated writers, as many as wanted, from a seed.

The letters are the single-stroke fonts of A. V. Hershey (U.S. National Bureau of Standards), as packaged in
Hershey-Fonts: `cursive` and the plain `futural`. A writer is a set of style parameters and a fixed deformation of
each letter; every letter written varies a little more. The pen moves by the two-thirds power law
(speed ~ curvature^(-1/3), Lacquaniti, Terzuolo and Viviani 1983) and is sampled at equal times.

N points of a line before sampling, T after it. Lengths are in x-heights, the baseline is y = 0 and y points down;
records are in device units, like a tablet's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from HersheyFonts import HersheyFonts

from seqdens.datasets.base import SPLITS, Dataset, Record, Skipped, Source, Split
from seqdens.datasets.text import ALPHABET, LONGEST, line_of_text
from seqdens.errors import UsageError

_SOURCE_LINES = 100
_STEP = 0.08  # between points, before sampling in time
_CORNER = np.radians(60)  # a sharper turn of a glyph's polyline stays a corner

# How a pen draws the strokes of a glyph: runs without lifting, of stroke numbers, "-" for backwards, and for which
# characters. All others are drawn stroke by stroke. The first run takes part in joining letters.
_PLANS = {
    "futural": {
        "0 1": "bhnpruDLP",
        "1 0": "adgq7",
        "1/0": "ij",
        "0 -1": "vGV",
        "0 1 2": "mBR",
        "1 0 2": "zZ",
        "0/1 2": "kK",
        "0 -1 2 -3": "wW",
        "-0 1/2": "A",
        "-1 0 3/2": "E",
        "-1 0/2": "F",
        "-0 1 -2 3": "M",
        "-0 1 -2": "N",
    },
    "cursive": {
        "0 1": "dghnqsuvyBNUY",
        "1 0": "7",
        "1/0": "ijT",
        "0 1 2": "kmpwM",
        "0 1/2": "t",
        "1/0/2": "F",
        "0/1 2": "K",
        "0 -1 2 -3": "W",
    },
}


class Face(NamedTuple):
    """What brings a Hershey font's lower-case letters to an x-height, an ascender and a descender of 1, 0.8, 0.8."""

    x_height: float
    width: float
    ascender: float
    descender: float


_FACES = {"futural": Face(14, 14, 1.6, 1.6), "cursive": Face(9, 11, 0.6, 0.6)}
_VARIATIONS = ("habit", "looseness", "tremor", "drift")  # what of a style makes letters unlike each other
_BASELINE, _CAPITAL = 9, 21  # of every Hershey font, in its units


class Glyph(NamedTuple):
    """One letter: runs of the pen (n, 2), its width, and whether it can be joined on the left and on the right."""

    runs: list[np.ndarray]
    width: float
    opens: bool
    leaves: bool


@dataclass(frozen=True)
class Writer:
    """The style of one simulated writer; lengths in x-heights."""

    letters: str  # the font of the lower-case letters
    capitals: str
    joins: float  # share of the possible joins between letters that are made
    size: float  # an x-height in device units
    aspect: float  # widths
    slant: float  # tangent, to the right
    ascender: float
    descender: float
    capital: float
    letter_gap: float
    word_gap: float
    roundness: int  # passes of smoothing
    habit: float  # deformation of each letter that stays
    looseness: float  # deformation that changes with every letter written
    tremor: float
    drift: float  # of the baseline
    pace: float  # distance between samples on a straight

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Writer:
        """A writer at random: half join cursive letters, half print, of whom some join now and then."""
        cursive = rng.random() < 0.5
        return cls(
            letters="cursive" if cursive else "futural",
            capitals="cursive" if cursive and rng.random() < 0.4 else "futural",
            joins=rng.uniform(0.85, 1) if cursive else 0.6 * (rng.random() < 1 / 3),
            size=142 * np.exp(rng.normal(0, 0.12)),
            aspect=rng.uniform(0.8, 1.0),
            slant=rng.normal(0.0 if cursive else 0.1, 0.13),
            ascender=rng.uniform(0.8, 1.25),
            descender=rng.uniform(0.8, 1.25),
            capital=rng.uniform(1.6, 1.9),
            letter_gap=rng.uniform(0.02, 0.2) if cursive else rng.uniform(-0.1, 0.1),
            word_gap=rng.uniform(0.65, 1),
            roundness=int(rng.integers(1, 5)),
            habit=rng.uniform(0.03, 0.07),
            looseness=rng.uniform(0.015, 0.04),
            tremor=rng.uniform(0.005, 0.02),
            drift=rng.uniform(0.02, 0.12),
            pace=rng.uniform(0.205, 0.265),
        )


class Hershey(Dataset):
    """Lines of handwriting-like pen points, generated: (T, 3) integers x, y, stroke_end, in device units.

    About 29 characters, 610 points and 23 strokes a line. No writer is in two splits (90/5/5 percent).
    Raises `UsageError` for a folder and for options out of range.

    Options:
        lines: records of all splits together
        writers: simulated hands, each with a style of its own
        characters: the longest that a line's text may be
        shortest: of this limit, which is drawn for each line from here to `characters`; 0 for `characters` always
        scrambled: share of words that are characters at random instead
        variation: of the letters, tremor and drift, as a multiple of a usual writer's
        printed: whether all writers print, and none joins letters
        seed: of writers, texts and everything that varies
    """

    synthetic: ClassVar[bool] = True
    record_name: ClassVar[str] = "line"

    def __init__(
        self,
        root: Path | None = None,
        *,
        lines: int = 6000,
        writers: int = 200,
        characters: int = 32,
        shortest: int = 0,
        scrambled: float = 0.0,
        variation: float = 1.0,
        printed: bool = False,
        seed: int = 0,
    ) -> None:
        if root is not None:
            raise UsageError(f"hershey got the folder {str(root)!r}, but is generated and takes no data folder.")
        for name, value, least, most in (
            ("lines", lines, 3, 10**8),
            ("writers", writers, 3, 10**8),
            ("characters", characters, LONGEST, 10**4),
            ("shortest", shortest, 0, characters),
            ("scrambled", scrambled, 0, 1),
            ("variation", variation, 0, 2),
            ("seed", seed, 0, 2**63 - 1),
        ):
            if not least <= value <= most:
                raise UsageError(f"option {name!r} of hershey is {value}, but must be from {least} to {most}.")
        self.lines, self.writers, self.seed = lines, min(writers, lines), seed
        self.characters, self.shortest = characters, shortest or characters
        self.scrambled, self.variation, self.printed = scrambled, variation, printed
        self._lines = dict(self._blocks())

    def sources(self) -> list[Source]:
        return list(self._lines)

    def read(self, source: Source) -> Iterator[Record | Skipped]:
        return (self._record(line, source.split) for line in self._lines[source])

    def _blocks(self) -> Iterator[tuple[Source, range]]:
        """The sources, whole writers in each split, and the lines of each source."""
        held_out = max(1, round(self.writers / 20))
        writers = (0, self.writers - 2 * held_out, self.writers - held_out, self.writers)
        first_lines = [math.ceil(writer * self.lines / self.writers) for writer in writers]
        for split, (first, after) in zip(SPLITS, pairwise(first_lines), strict=True):
            for start in range(first, after, _SOURCE_LINES):
                lines = range(start, min(start + _SOURCE_LINES, after))
                yield Source(f"lines {lines[0]}-{lines[-1]}", split=split), lines

    def _record(self, line: int, split: Split) -> Record:
        rng = np.random.default_rng((self.seed, 1, line))
        writer = line * self.writers // self.lines
        varied = self.shortest < self.characters
        longest = int(rng.integers(self.shortest, self.characters + 1)) if varied else self.characters
        text = line_of_text(rng, longest, self.scrambled)
        points = write(text, *hand(self.seed, writer, self.variation, self.printed), rng)
        return Record(f"w{writer:03d}-l{line:05d}", points, split, text, group=f"w{writer:03d}")


class Written(NamedTuple):
    """Pen points (T, 3) of a line, in device units: x, y, stroke_end; and the position in its text that each draws."""

    points: np.ndarray
    letter: np.ndarray  # (T,)


def write(text: str, writer: Writer, glyphs: dict[str, Glyph], rng: np.random.Generator) -> np.ndarray:
    """Pen points (T, 3) of a line, in device units: x, y, stroke_end."""
    return write_letters(text, writer, glyphs, rng).points


def write_letters(text: str, writer: Writer, glyphs: dict[str, Glyph], rng: np.random.Generator) -> Written:
    """The points that `write` gives, and which of them draw which letter."""
    points, ends, letter = _trace(text, writer, glyphs, rng)
    points = _deform(points, letter, len(text), writer.looseness, rng)
    points += _positions(text, writer, glyphs, rng)[letter]
    traced = np.column_stack([points, letter])
    traced, ends = _resample(traced, ends, _distances(points) / _STEP)
    points, letter = traced[:, :2], traced[:, 2:]
    points += _smooth(rng.normal(0, writer.tremor, points.shape), ends, passes=3)
    points = _smooth(points, ends, writer.roundness)
    traced, ends = _resample(np.column_stack([points, letter]), ends, _durations(points, ends) / writer.pace)
    points = _slope(traced[:, :2], writer, rng) * writer.size
    return Written(np.column_stack([np.rint(points), ends]).astype(np.int32), np.rint(traced[:, 2]).astype(int))


def _trace(
    text: str, writer: Writer, glyphs: dict[str, Glyph], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the pen draws, in order: points (N, 2), the ends of strokes (N,), the position in the text (N,)."""
    pens, lifts = [], []
    for chain in _chains(text, writer, glyphs, rng):
        later = [(letter, run) for letter in chain for run in glyphs[text[letter]].runs[1:]]
        pens += [(letter, glyphs[text[letter]].runs[0]) for letter in chain] + later
        lifts += [False] * (len(chain) - 1) + [True] * (1 + len(later))
    sizes = [len(run) for _, run in pens]
    ends = np.zeros(sum(sizes), bool)
    ends[np.cumsum(sizes) - 1] = lifts
    return np.concatenate([run for _, run in pens]), ends, np.repeat([letter for letter, _ in pens], sizes)


def _chains(text: str, writer: Writer, glyphs: dict[str, Glyph], rng: np.random.Generator) -> Iterator[range]:
    """The positions in the text of letters that are joined; their dots and crossbars come after the chain."""
    lifted = [
        not (glyphs[left].leaves and glyphs[right].opens and chance < writer.joins)
        for (left, right), chance in zip(pairwise(text), rng.random(len(text) - 1), strict=True)
    ]
    cuts = [0, *(np.flatnonzero(lifted) + 1), len(text)]
    return (range(first, after) for first, after in pairwise(cuts) if text[first] != " ")


def _positions(text: str, writer: Writer, glyphs: dict[str, Glyph], rng: np.random.Generator) -> np.ndarray:
    """Where each letter stands (letters, 2)."""
    widths = np.array([glyphs[character].width + writer.letter_gap for character in text])
    widths += widths * rng.normal(0, writer.looseness, len(text))
    return np.column_stack([np.cumsum(widths) - widths, rng.normal(0, writer.looseness, len(text))])


def _slope(points: np.ndarray, writer: Writer, rng: np.random.Generator) -> np.ndarray:
    """The points (T, 2) with the writer's slant, on a baseline that rises or falls and drifts."""
    x, y = points.T
    rise, waves, phase = rng.normal(0, 0.006), rng.uniform(0.1, 0.25), rng.uniform(0, 2 * np.pi)
    return np.column_stack([x - writer.slant * y, y + rise * x + writer.drift * np.sin(waves * x + phase)])


def _deform(
    points: np.ndarray, letter: np.ndarray, letters: int, strength: float, rng: np.random.Generator
) -> np.ndarray:
    """The points (N, 2), each letter scaled, turned and bent by two plane waves of its own."""
    affine = np.eye(2) + rng.normal(0, strength, (letters, 2, 2))
    wave, phase = rng.normal(0, 2, (letters, 2, 2)), rng.uniform(0, 2 * np.pi, (letters, 2))
    amplitude = rng.normal(0, strength, (letters, 2, 2))
    waves = np.sin(np.einsum("nd,nde->ne", points, wave[letter]) + phase[letter])
    affine, amplitude = affine[letter], amplitude[letter]
    return np.einsum("nd,nde->ne", points, affine) + np.einsum("nd,nde->ne", waves, amplitude)


def _starts(ends: np.ndarray) -> np.ndarray:
    return np.concatenate([[True], ends[:-1]])


def _distances(points: np.ndarray) -> np.ndarray:
    """How far each point (N, 2) is from the one before it; 0 for the first."""
    return np.concatenate([[0.0], np.hypot(*np.diff(points, axis=0).T)])


def _resample(points: np.ndarray, ends: np.ndarray, costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (T, 2) and stroke ends (T,) at unit cost along each stroke; `costs` (N,) are from the point before.

    A stroke's costs are scaled to a whole number, at least 1, so that both its ends are kept.
    """
    starts = _starts(ends)
    stroke = np.cumsum(starts) - 1
    costs = np.where(starts, 0, costs)
    totals = np.bincount(stroke, costs)
    steps = np.maximum(1, np.rint(totals))
    clock = np.cumsum(costs * (steps / np.maximum(totals, 1e-9))[stroke]) + stroke
    clock[ends] = np.cumsum(steps + 1) - 1
    ticks = np.arange(clock[-1] + 1)
    sampled = np.column_stack([np.interp(ticks, clock, column) for column in points.T])
    sampled_ends = np.zeros(len(ticks), bool)
    sampled_ends[clock[ends].astype(int)] = True
    return sampled, sampled_ends


def _smooth(values: np.ndarray, ends: np.ndarray, passes: int) -> np.ndarray:
    """Values (N, D) averaged with their neighbours in the stroke, whose two ends stay."""
    share = np.where(ends | _starts(ends), 0, 0.25)[1:-1, None]
    values = values.copy()
    for _ in range(passes):
        values[1:-1] += share * np.diff(values, 2, axis=0)
    return values


def _durations(points: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The time (N,) from the point before, by the two-thirds power law, slower at the ends of strokes."""
    steps = np.diff(points, axis=0)
    (x, y), (next_x, next_y) = steps[:-1].T, steps[1:].T
    turns = np.abs(np.arctan2(x * next_y - y * next_x, x * next_x + y * next_y))
    curvature = np.concatenate([[0], turns, [0]]) / _STEP
    index = np.arange(len(points))
    first = np.maximum.accumulate(np.where(_starts(ends), index, 0))
    last = np.minimum.accumulate(np.where(ends, index, len(points))[::-1])[::-1]
    from_end = np.minimum(index - first, last - index) * _STEP
    speed = (curvature + 0.3) ** (-1 / 3) * np.minimum(1, 0.3 + from_end)
    return _distances(points) / _smooth(speed[:, None], ends, passes=4)[:, 0]


@lru_cache(maxsize=16)
def hand(seed: int, writer: int, variation: float = 1.0, printed: bool = False) -> tuple[Writer, dict[str, Glyph]]:
    """A writer (`printed`: one who never joins) and the usual letters, more alike below a `variation` of 1."""
    rng = np.random.default_rng((seed, 0, writer))
    style = Writer.draw(rng)
    while printed and style.joins:
        style = Writer.draw(rng)
    style = replace(style, **{name: variation * getattr(style, name) for name in _VARIATIONS})
    fonts = {c: style.letters if c.islower() else style.capitals for c in ALPHABET if c != " "}
    glyphs = {c: _own(c, _font(font)[c], style, rng) for c, font in fonts.items()}
    return style, glyphs | {" ": Glyph([], style.word_gap, False, False)}


def _own(character: str, glyph: Glyph, writer: Writer, rng: np.random.Generator) -> Glyph:
    """A writer's own form of a letter."""
    points = np.concatenate(glyph.runs)
    scale = 1 if character.islower() else writer.capital
    if character.islower():
        points = _stretch(points, writer.ascender, writer.descender)
    points = points * scale * (writer.aspect, 1)
    points = _deform(points, np.zeros(len(points), int), 1, writer.habit, rng)
    cuts = np.cumsum([len(run) for run in glyph.runs])[:-1]
    return glyph._replace(runs=np.split(points, cuts), width=glyph.width * scale * writer.aspect)


@lru_cache
def _font(name: str) -> dict[str, Glyph]:
    """The glyphs of a Hershey font: lower-case letters in x-heights, all others in capital heights."""
    hershey = HersheyFonts()
    hershey.load_default_font(name)
    return {c: _glyph(c, hershey, name) for c in ALPHABET if c != " "}


def _glyph(character: str, hershey: HersheyFonts, font: str) -> Glyph:
    strokes = [_tick(np.array(list(stroke), float)) for stroke in hershey.strokes_for_text(character)]
    stroke_by_stroke = "/".join(map(str, range(len(strokes))))
    plan = next((plan for plan, drawn in _PLANS[font].items() if character in drawn), stroke_by_stroke)
    runs = [
        np.concatenate([strokes[abs(int(n))][:: -1 if n.startswith("-") else 1] for n in run.split()])
        for run in plan.split("/")
    ]
    right = np.array([[hershey.all_glyphs[character].char_width, _BASELINE]])
    width = _normalise(right, character, font)[0, 0]
    runs = [_spline(_normalise(run, character, font)) for run in runs]
    (left, start), (end_x, end) = runs[0][0], runs[0][-1]
    opens = character.islower() and left < 0.4 and -1.2 < start < 0.1
    leaves = character.isalpha() and width - end_x < 0.35 and -0.7 < end < 0.1
    return Glyph(runs, width, opens, leaves)


def _tick(stroke: np.ndarray) -> np.ndarray:
    """The stroke (n, 2), but half of it if it is a dot, which Hershey drew as a small diamond."""
    return stroke[: len(stroke) // 2 + 1] if len(stroke) == 5 and np.ptp(stroke, axis=0).max() <= 2 else stroke


def _normalise(points: np.ndarray, character: str, font: str) -> np.ndarray:
    """Points in a Hershey font's units, on our baseline and scale."""
    x, y = points.T - np.array([[0], [_BASELINE]])
    if not character.islower():
        return np.column_stack([x / (2 if character == "-" else 1), y]) / _CAPITAL
    face = _FACES[font]
    return _stretch(np.column_stack([x / face.width, y / face.x_height]), face.ascender, face.descender)


def _stretch(points: np.ndarray, ascender: float, descender: float) -> np.ndarray:
    """The points (N, 2), what is above the x-height and below the baseline stretched by these factors."""
    x, y = points.T
    above, below = np.minimum(y + 1, 0), np.maximum(y, 0)
    return np.column_stack([x, y + (ascender - 1) * above + (descender - 1) * below])


def _spline(polyline: np.ndarray) -> np.ndarray:
    """A smooth curve (N, 2) through the polyline's points, bent at its corners."""
    chords = np.diff(polyline, axis=0)
    polyline = polyline[np.concatenate([[True], chords.any(axis=1)])]
    chords = np.diff(polyline, axis=0)
    lengths = np.hypot(*chords.T)
    slopes = chords / lengths[:, None]
    turns = np.arccos(np.clip((slopes[:-1] * slopes[1:]).sum(axis=1), -1, 1))
    weights = (lengths[:-1] / (lengths[:-1] + lengths[1:]))[:, None]
    tangents = slopes[:-1] * (1 - weights) + slopes[1:] * weights
    corner = (turns > _CORNER)[:, None]
    leaving = np.concatenate([slopes[:1], np.where(corner, slopes[1:], tangents)])
    arriving = np.concatenate([np.where(corner, slopes[:-1], tangents), slopes[-1:]])
    pieces = [_hermite(*ends) for ends in zip(polyline, polyline[1:], leaving, arriving, lengths, strict=False)]
    return np.concatenate([*pieces, polyline[-1:]])


def _hermite(
    start: np.ndarray, end: np.ndarray, leaving: np.ndarray, arriving: np.ndarray, length: float
) -> np.ndarray:
    """Points (N, 2) of the cubic between two points with the given directions, without the last."""
    t = np.arange(0, 1, min(1.0, 2 * _STEP / length))[:, None]
    bend = length * t * (1 - t) * (leaving * (1 - t) - arriving * t)
    return start + (end - start) * t * t * (3 - 2 * t) + bend
