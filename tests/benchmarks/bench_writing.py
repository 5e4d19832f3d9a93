"""How many characters of what a model writes are read as what was meant, by a recogniser that sees one at a time.

`python tests/benchmarks/bench_writing.py RUN [LINES]`, of a run of experiment synthesis on the embedded data set. Texts
are new ones; which points wrote which character is told by the network's own window. It fails unless 90 % are read at
bias 1. `bench_recogniser.py` says how far the recogniser can be trusted.

T points of a line, U characters of its text.
"""

from __future__ import annotations

import sys
from functools import partial
from itertools import chain, pairwise

import numpy as np
from comparing import command_line, sized
from recogniser import Span, alike, trained

import seqdens
from seqdens.datasets.text import line_of_text
from seqdens.writing import SHIPPED, attention

BIASES = (0.0, 0.5, 1.0, 2.0)
LONGEST = 32  # characters of a line
WANTED, AT_BIAS = sized(0.9, 0.8), 1.0


def spans_of(text: str, shares: np.ndarray) -> list[Span]:
    """Of each character but spaces the points that wrote it, where the window's shares (T, U) had their mean.

    A character begins a point before the mean is half a character from it, after a space a whole one.
    """
    mean = np.maximum.accumulate(shares @ np.arange(len(text)))
    starts = []
    for place, character in enumerate(text):
        if character != " ":
            reached = place - (1.0 if place and text[place - 1] == " " else 0.5)
            starts.append(max(0, int(np.searchsorted(mean, reached)) - 1) if place else 0)
    return [*pairwise([*np.maximum.accumulate(starts).tolist(), len(shares)])]


def place_of(text: str, place: int) -> str:
    return "line's first" if place == 0 else "word's first" if text[place - 1] == " " else "others"


def main(path: str, lines: int = 100) -> None:
    model, recogniser, rng = seqdens.SequenceModel.load(path), trained(), np.random.default_rng(970_000)
    texts = [line_of_text(rng, LONGEST) for _ in range(lines)]
    passed = False
    for bias in BIASES:
        records = model.sample(lines, text=texts, bias=bias, seed=1)
        right: dict[str, list[bool]] = {}
        for text, record, shares in zip(texts, records, attention(model, texts, records), strict=True):
            points = np.column_stack([record[:, :2].cumsum(axis=0), record[:, 2]])
            places = [place for place, character in enumerate(text) if character != " "]
            for place, read in zip(places, recogniser.read(points, spans_of(text, shares)), strict=True):
                right.setdefault(place_of(text, place), []).append(alike(read, text[place]))
        every = [*chain.from_iterable(right.values())]
        parts = ", ".join(f"{name} {np.mean(found):.1%}" for name, found in sorted(right.items()))
        print(f"bias {bias:g}: {np.mean(every):.1%} of {len(every):,} characters are read as meant ({parts})")
        passed |= bias == AT_BIAS and np.mean(every) >= WANTED
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    command_line(main, partial(main, str(SHIPPED), lines=4))
