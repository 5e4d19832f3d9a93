"""A reader of single characters, to measure legibility without eyes: a small network trained on simulated writers.

It is given a line's points and, for each character, the span of points that wrote it. It sees the ink of that span,
measured from the line's baseline in the line's height, and the small strokes that were put over it later (dots,
crossbars): nothing of its neighbours, so that it cannot guess from the word. Spans are as a window over the text
has them: from where a character begins to where the next one does, the spaces left out.

T points of a line, (T, 3) x, y, stroke_end in any units, y down; n characters, P points and F numbers of a point.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from comparing import sized
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from seqdens.datasets import hershey, text
from seqdens.datasets.hershey import hand, write_letters
from seqdens.datasets.text import ALPHABET, line_of_text
from seqdens.files import replacing
from seqdens.prepare import cache_folder

CHARACTERS = ALPHABET.replace(" ", "")
ALIKE = ("Il",)  # drawn alike by a printing writer: a bar of much the same height
P, F = 40, 7
LINES, EPOCHS = sized((2000, 6), (100, 3))  # that it learns from, and how often
SEED = 10_000  # of the writers that it learns from; a data set's own have its option `seed`, 0 by default
SMALL = 0.8  # widest stroke put over a character later, in line heights (about an x-height and a half)
LATER = 500  # points after a character within which its dot or crossbar comes

Span = tuple[int, int]


class Written(NamedTuple):
    """A line whose text is known: points (T, 3), and of each character but spaces its span."""

    points: np.ndarray
    text: str
    spans: list[Span]


def written_line(text: str, seed: int, writer: int, rng: np.random.Generator) -> Written:
    """A line in the hand of a simulated writer, with the span of each character."""
    points, letters = write_letters(text, *hand(seed, writer), rng)
    starts = [int(np.argmax(letters == index)) for index, character in enumerate(text) if character != " "]
    return Written(points, text.replace(" ", ""), [*pairwise([*starts, len(points)])])


def jittered(spans: Sequence[Span], length: int, rng: np.random.Generator, most: float = 0.2) -> list[Span]:
    """The spans, both ends moved by up to `most` of their length, and not empty."""
    moved = []
    for start, end in spans:
        shifts = rng.uniform(-most, most, 2) * (end - start)
        first = int(np.clip(round(start + shifts[0]), 0, length - 2))
        moved.append((first, int(np.clip(round(end + shifts[1]), first + 2, length))))
    return moved


def examples(points: np.ndarray, spans: Sequence[Span]) -> np.ndarray:
    """What the network sees (n, P, F) float32 of the characters in `spans`."""
    ink = points[:, :2].astype(float)
    ends = points[:, 2] > 0.5
    slope, _ = np.polyfit(ink[:, 0], ink[:, 1], 1) if np.ptp(ink[:, 0]) > 0 else (0.0, 0.0)
    slope = float(np.clip(slope, -0.2, 0.2))
    ink = ink @ np.array([[1, -slope], [0, 1]])
    size = 2.5 * float(ink[:, 1].std()) + 1e-9
    ink /= size
    cuts = [0, *(np.flatnonzero(ends[:-1]) + 1), len(ink)]
    strokes = [*pairwise(cuts)]
    return np.stack([_example(ink, strokes, span) for span in spans]).astype(np.float32)


def _example(ink: np.ndarray, strokes: Sequence[Span], span: Span) -> np.ndarray:
    start, end = span
    own = [(max(a, start), min(b, end)) for a, b in strokes if a < end and b > start]
    main = max(own, key=lambda piece: _way(ink[slice(*piece)])[-1])
    left, right = ink[slice(*main), 0].min(), ink[slice(*main), 0].max()
    own = [piece for piece in own if _overlaps(ink[slice(*piece), 0], left, right, 0.3)]
    over = [
        (a, b)
        for a, b in strokes
        if end <= a < end + LATER
        and np.ptp(ink[a:b, 0]) < SMALL
        and np.ptp(ink[a:b, 1]) < SMALL / 2
        and left - 0.1 < ink[a:b, 0].mean() < right + 0.1
    ]
    near = np.abs(ink[:, 0] - (left + right) / 2) < 4
    middle = np.median(ink[near, 1])
    pieces = [ink[slice(*piece)] for piece in (*own, *over)]
    points = np.concatenate(pieces) - ((left + right) / 2, middle)
    lift = np.concatenate([[0.0, *np.zeros(len(piece) - 1)] for piece in pieces])
    lift[np.cumsum([len(piece) for piece in pieces])[:-1]] = 1
    later = np.repeat([0.0] * len(own) + [1.0] * len(over), [len(piece) for piece in pieces])
    way = _way(points) + np.arange(len(points)) * 1e-6
    places = np.linspace(0, way[-1], P)
    sampled = np.column_stack([np.interp(places, way, column) for column in (*points.T, later)])
    lifted = np.interp(places, way, lift.cumsum())
    up = np.diff(lifted, prepend=0) > 0
    step = np.diff(sampled[:, :2], axis=0, prepend=sampled[:1, :2]) * P / 5
    return np.column_stack([sampled[:, :2], step, up, sampled[:, 2], np.full(P, way[-1] / 3)])


def _overlaps(x: np.ndarray, left: float, right: float, margin: float) -> bool:
    return bool(x.max() > left - margin and x.min() < right + margin)


def _way(points: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.hypot(*np.diff(points, axis=0).T).cumsum()])


class Recogniser(nn.Module):
    """Log-odds (n, characters) of examples (n, P, F); `read` gives the characters."""

    def __init__(self) -> None:
        super().__init__()
        widths = (F, 48, 64, 96)
        blocks = [
            nn.Sequential(nn.Conv1d(a, b, 5, padding=2), nn.BatchNorm1d(b), nn.ReLU(), nn.MaxPool1d(2))
            for a, b in pairwise(widths)
        ]
        hidden = widths[-1] * (P // 8)
        self.layers = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(hidden, 256), nn.ReLU(), nn.Dropout(0.2))
        self.output = nn.Linear(256, len(CHARACTERS))

    def forward(self, examples: Tensor) -> Tensor:
        odds: Tensor = self.output(self.layers(examples.transpose(1, 2)))
        return odds

    @torch.inference_mode()
    def read(self, points: np.ndarray, spans: Sequence[Span]) -> list[str]:
        """The character that each span of a line's points reads as; "" where it has fewer than two points."""
        drawn = [index for index, (start, end) in enumerate(spans) if end - start > 1]
        read = [""] * len(spans)
        if drawn:
            odds = self(torch.from_numpy(examples(points, [spans[index] for index in drawn])))
            for index, best in zip(drawn, odds.argmax(1).tolist(), strict=True):
                read[index] = CHARACTERS[best]
        return read


def alike(read: str, meant: str) -> bool:
    """Whether they are the same character, or two that are drawn alike."""
    return read == meant or any({read, meant} <= set(group) for group in ALIKE)


def training_lines(count: int, seed: int) -> list[Written]:
    """Lines of simulated writers, two a writer; half of them of random words, so that every character is frequent."""
    rng = np.random.default_rng((seed, 7))
    return [written_line(_text(index, rng), SEED + seed, index // 2, rng) for index in range(count)]


def _text(index: int, rng: np.random.Generator) -> str:
    if index % 2:
        return line_of_text(rng, 32)
    pools = [[*(CHARACTERS[:26] if rng.random() < 0.5 else CHARACTERS)] for _ in range(6)]
    return " ".join("".join(rng.choice(pool, rng.integers(2, 8))) for pool in pools)


def train(seed: int = 0, lines: int = LINES, epochs: int = EPOCHS) -> Recogniser:
    """A recogniser that has learnt from simulated writers of its own; the same one for the same arguments."""
    rng = np.random.default_rng((seed, 8))
    inputs, targets = [], []
    for line in training_lines(lines, seed):
        for spans in (line.spans, jittered(line.spans, len(line.points), rng)):
            inputs.append(examples(line.points, spans))
            targets += [CHARACTERS.index(character) for character in line.text]
    x, y = torch.from_numpy(np.concatenate(inputs)), torch.tensor(targets)
    torch.manual_seed(seed)
    model = Recogniser()
    batches = (len(x) + 255) // 256
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, epochs * batches)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(256):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[chosen]), y[chosen], label_smoothing=0.05).backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def trained(seed: int = 0) -> Recogniser:
    """`train(seed)`, kept in the cache folder until this file or the simulated writers change."""
    code = b"".join(Path(str(each)).read_bytes() for each in (__file__, hershey.__file__, text.__file__))
    path = cache_folder() / f"recogniser-{seed}-{sha256(code).hexdigest()[:12]}.safetensors"
    if path.exists():
        recogniser = Recogniser()
        load_model(recogniser, path)
        return recogniser.eval()
    recogniser = train(seed)
    with replacing(path) as temporary:
        save_model(recogniser, str(temporary))
    return recogniser
