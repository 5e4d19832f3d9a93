"""From a text to lines of handwriting in one hand; lines that came out badly are drawn again.

A line is scored by the window of the network that drew it, which says what each point belongs to: one that ran away
did not come to the end of its text, one that skipped a letter has next to no points for it.

B lines, T points of one, D columns of a point, U characters of its text.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from seqdens.batches import Batch
from seqdens.errors import UsageError
from seqdens.model import SequenceModel
from seqdens.pages.wrapping import wrap
from seqdens.prepare import Progress
from seqdens.sampling import Precision, check_arguments, evaluating, gather
from seqdens.styles import COLUMNS, LONGEST, Style, load_style
from seqdens.text import Unknown, continued, encode, steps_for, writable

AT_ONCE = 64  # lines drawn
READ_AT_ONCE = 8  # lines scored: states and windows of all their points are there at the same time
LEAST, MOST = 2.0, 100.0  # points of a character neither skipped nor stuck at; most have some 20, a full stop a few
BEGUN = 2  # points at most of a stroke that was just begun
USUAL = 20  # points a character, by which progress is told

SHIPPED = Path(__file__).with_name("models") / "hershey.safetensors"


@dataclass(frozen=True, eq=False)
class WrittenLine:
    """A line's `text`, and its `points`, raw offsets (T, D); both are empty between paragraphs.

    `written` (U,) is how many points each character has, `finished` whether it came to the end within `steps_for` its
    text, and `draws` how often it was drawn in all.
    """

    text: str
    points: np.ndarray
    written: np.ndarray = field(default_factory=lambda: np.zeros(0))
    finished: bool = True
    draws: int = 0

    @property
    def skipped(self) -> str:
        """The characters that have next to no points."""
        return "".join(
            each for each, points in zip(self.text, self.written, strict=True) if points < LEAST and each != " "
        )

    @property
    def stuck(self) -> str:
        """The characters of a finished line that have far too many points."""
        each_with_points = zip(self.text, self.written, strict=True)
        return "".join(each for each, points in each_with_points if points > MOST and self.finished)

    @property
    def score(self) -> float:
        """The share of characters that are there, once, less 1 if the line ran away: 1 for a good one."""
        return 1.0 - len(self.skipped + self.stuck) / max(1, len(self.text)) - (not self.finished)

    @property
    def fault(self) -> str:
        """What is wrong with it; empty for a good line."""
        faults = ["ran away"] * (not self.finished) + [f"skipped {self.skipped!r}"] * bool(self.skipped)
        faults += [f"got stuck at {self.stuck!r}"] * bool(self.stuck)
        return " and ".join(faults)


class Written(NamedTuple):
    """The lines of a text, the seed that draws them again, and the style that they were primed with, if any."""

    lines: list[WrittenLine]
    seed: int
    style: Style | None

    @property
    def bad(self) -> list[tuple[int, WrittenLine]]:
        """The lines that stayed bad, with their numbers from 1 on."""
        return [(number, line) for number, line in enumerate(self.lines, start=1) if line.fault]


def write(
    text: str,
    model: SequenceModel | str | Path | None = None,
    *,
    characters: int = 40,
    style: Style | str | Path | None = None,
    bias: float = 1.0,
    seed: int | None = None,
    tries: int = 5,
    unknown: Unknown = "error",
    precision: Precision = "float32",
    progress: Progress | None = None,
) -> Written:
    """Write `text` in lines of at most so many characters, all in the hand of `style`.

    `model` is one of experiment synthesis, or where it lies; by default that which comes with seqdens. `style` may be
    given as for `load_style`. Without one the longest line is drawn first, and is the style of the others. A line that
    ran away, skipped a letter or got stuck at one is drawn again, up to `tries` times in all, and the best is kept.
    `bias`, `unknown` and `precision` are those of `SequenceModel.stream`; `progress` is told characters done and in
    all, of which there are more when lines are drawn again. `pages.layout.lay_out` places the lines. Raises
    `UsageError` for arguments out of range, a text without anything to write, characters and styles that the model does
    not know, and a model that does not write texts.
    """
    if not isinstance(text, str):
        raise UsageError(f"the text to write is {text!r}, but must be a str, its lines separated by line breaks.")
    if model is None or isinstance(model, str | Path):
        model = SequenceModel.load(model) if model else shipped()
    check_writes(model)
    check_arguments(count=1, steps=1, bias=bias, seed=seed)
    if tries < 1:
        raise UsageError(f"tries is {tries}, but must be at least 1.")
    lines = to_lines(text, model.alphabet, characters, unknown)
    texts = [line for line in lines if line]
    seed = secrets.randbits(32) if seed is None else seed
    style = load_style(str(style), like=model) if isinstance(style, str | Path) else style
    style = style and style.fit(model)
    pen = _Pen(model, bias, seed, tries, precision, progress, sum(map(len, texts)))
    written: list[WrittenLine] = []
    if style is None and len(texts) > 1:
        first = max(range(len(texts)), key=lambda index: len(texts[index]))
        own = pen.draw([texts[first]], None)
        style = as_style(own[0], model)
        others = pen.draw(texts[:first] + texts[first + 1 :], style)
        written = others[:first] + own + others[first:]
    else:
        written = pen.draw(texts, style)
    inked = iter(written)
    nothing = np.zeros((0, len(model.columns)), np.float32)
    return Written([next(inked) if line else WrittenLine("", nothing) for line in lines], seed, style)


def shipped() -> SequenceModel:
    """The model that comes with seqdens, trained on `hershey`; `models/hershey.md` is its card."""
    return SequenceModel.load(SHIPPED)


def check_writes(model: SequenceModel) -> None:
    """Raises `UsageError` where `model` does not write texts as lines of ink."""
    if model.characters is None:
        raise UsageError(
            f"the model's encoder {model.components['encoder'].name} takes no text, so it cannot write one: "
            "give a model that experiment synthesis trained."
        )
    model.check_columns(COLUMNS, "handwriting")


def to_lines(text: str, alphabet: str, characters: int, unknown: Unknown) -> list[str]:
    """`text` in characters of the alphabet, wrapped; raises `UsageError` for unknown ones and where none are left."""
    rows = "\n".join(" ".join(row.split()) for row in text.strip().splitlines())
    lines = wrap(writable(rows, alphabet + "\n", unknown), min(characters, LONGEST))
    encode(lines, alphabet)
    if not lines:
        raise UsageError(f"there is no text to write; give at least one character of the alphabet {alphabet!r}.")
    return lines


def as_style(line: WrittenLine, model: SequenceModel) -> Style | None:
    """A line that `model` wrote as the style of others; None for one that ran away."""
    if not line.finished:
        return None
    points = line.points.copy()
    points[-1, 2] = 1  # the pen is lifted before what follows
    return Style(points, line.text, "the same text", str(model.origin.get("dataset", "")))


@dataclass
class _Pen:
    """Draws lines in batches, each with a seed of its own."""

    model: SequenceModel
    bias: float
    seed: int
    tries: int
    precision: Precision
    progress: Progress | None
    total: int  # characters to draw
    done: int = 0
    batches: int = 0

    def draw(self, texts: Sequence[str], style: Style | None) -> list[WrittenLine]:
        """The best of up to `tries` drawings of each text."""
        best: dict[int, WrittenLine] = {}
        bad = list(range(len(texts)))
        for attempt in range(1, self.tries + 1):
            for some in _parts(bad, AT_ONCE):
                for index, line in zip(some, self._batch([texts[index] for index in some], style), strict=True):
                    kept = max(best.get(index, line), line, key=lambda each: each.score)
                    best[index] = dataclasses.replace(kept, draws=attempt)
            bad = [index for index in bad if best[index].fault]
            if not bad:
                break
            self.total += sum(len(texts[index]) for index in bad) * (attempt < self.tries)
        return [best[index] for index in range(len(texts))]

    def _batch(self, texts: list[str], style: Style | None) -> Iterator[WrittenLine]:
        """Each text drawn once, all at the same time."""
        seed = int(np.random.SeedSequence((self.seed, self.batches)).generate_state(1, np.uint64)[0] >> 1)
        self.batches += 1
        points = self.model.stream(
            len(texts),
            steps=max(map(steps_for, texts)),
            text=texts,
            prime=None if style is None else style.points,
            prime_text=None if style is None else style.text,
            bias=self.bias,
            seed=seed,
            precision=self.precision,
        )
        records = gather(self._telling(points, texts))
        records = [record[: steps_for(text)] for record, text in zip(records, texts, strict=True)]
        for text, record, shares in zip(texts, records, attention(self.model, texts, records, style), strict=True):
            finished = len(record) < steps_for(text)
            own = record if style is None else record[_beginning(record, shares[:, : len(style.text)].sum(axis=1)) :]
            kept = own[: _ending(own)] if finished else own[: len(own) // 2]
            yield WrittenLine(text, kept, shares[:, -len(text) :].sum(axis=0), finished)

    def _telling(self, points: Iterator[np.ndarray], texts: Sequence[str]) -> Iterator[np.ndarray]:
        """The same points, of which `progress` is told."""
        tell = self.progress or (lambda done, total: None)
        lengths = np.array([len(text) for text in texts])
        for step, drawn in enumerate(points, start=1):
            reached = np.where(np.isnan(drawn).all(axis=1), lengths, np.minimum(lengths, step / USUAL))
            tell(self.done + int(reached.sum()), self.total)
            yield drawn
        self.done += int(lengths.sum())
        tell(self.done, self.total)


@torch.inference_mode()
def attention(
    model: SequenceModel, texts: Sequence[str], records: Sequence[np.ndarray], style: Style | None = None
) -> Iterator[np.ndarray]:
    """For each record (T, D) the shares (T, U) of the window that each character of its text has at each point.

    The characters of a style, which is what was written before, and the space after it come first. Raises `UsageError`
    for an encoder that tells no window.
    """
    primer = np.zeros((0, len(model.columns)), np.float32) if style is None else style.points
    before = "" if style is None else continued(style.text, model.alphabet)
    for some in _parts(range(len(texts)), READ_AT_ONCE):
        drawn = [np.concatenate([primer, records[index]]) for index in some]
        batch = batch_of([before + texts[index] for index in some], drawn, model)
        with evaluating(model.modules()):
            window = model.encoded(batch).extras.get("window")
        if window is None:
            encoder = model.components["encoder"].name
            raise UsageError(f"the model's encoder {encoder} tells no window over the text, so no line can be scored.")
        shares = (window / window.sum(dim=2, keepdim=True).clamp(min=1e-30)).cpu().numpy()
        for row, (length, characters) in enumerate(zip(batch.lengths, batch.text_lengths, strict=True)):
            yield shares[row, len(primer) : length, :characters]


def batch_of(texts: Sequence[str], records: Sequence[np.ndarray], model: SequenceModel) -> Batch:
    """Records (T, D) and their texts as a batch on the model's device."""
    lengths = np.array([len(record) for record in records])
    points = np.zeros((len(records), lengths.max(), len(model.columns)), np.float32)
    for row, record in zip(points, records, strict=True):
        row[: len(record)] = record
    arrays = (points, lengths, *encode(texts, model.alphabet), np.arange(len(records)))
    return Batch(*map(torch.from_numpy, arrays)).to(model.device)


def _beginning(record: np.ndarray, before: np.ndarray) -> int:
    """Where what goes on from a style begins, after the pen has gone there.

    Strokes at first that belong for the most part to the style's text, `before` (T,) being its share, are none of it.
    """
    start = 0
    for end in np.flatnonzero(record[:, 2] > 0.5) + 1:
        if before[start:end].mean() < 0.5:
            break
        start = int(end)
    return start + 1 if start + 1 < len(record) else 0


def _ending(record: np.ndarray) -> int:
    """Where a finished line ends: a stroke that was just begun when nothing was left to write is none of it."""
    ends = np.flatnonzero(record[:, 2] > 0.5) + 1
    return int(ends[-1]) if len(ends) and len(record) - ends[-1] <= BEGUN else len(record)


def _parts(whole: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (whole[start : start + size] for start in range(0, len(whole), size))
