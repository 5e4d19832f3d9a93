"""Whether the recogniser can be trusted: what it reads of the letters of held-out data.

`python tests/benchmarks/bench_recogniser.py` trains one (once; some minutes on one core) and reads lines of the
embedded data set's held-out writers, with exact spans and with spans whose ends are wrong by up to 20 %. It
fails unless 98 % of the characters with exact spans are read as what was meant.
"""

import sys
import time
from collections import Counter

import numpy as np
import torch
from comparing import command_line, sized
from recogniser import ALIKE, Recogniser, alike, jittered, trained, written_line

from seqdens.datasets.hershey import hand
from seqdens.datasets.text import line_of_text

WRITERS = range(*sized((180, 200), (180, 186)))  # those of the valid and test splits
LINES = sized(15, 4)  # of each
WANTED = sized(0.98, 0.8)
GROUPS = {"lower case": str.islower, "capitals": str.isupper, "digits": str.isdigit, "marks": lambda c: not c.isalnum()}


def readings(recogniser: Recogniser, jitter: float) -> list[tuple[str, str, str]]:
    """(face, meant, read) of every character of held-out lines."""
    rng = np.random.default_rng(5)
    found = []
    for writer in WRITERS:
        for _ in range(LINES):
            line = written_line(line_of_text(rng, 32), 0, writer, rng)
            spans = jittered(line.spans, len(line.points), rng, jitter) if jitter else line.spans
            face = hand(0, writer)[0].letters
            found += [(face, *pair) for pair in zip(line.text, recogniser.read(line.points, spans), strict=True)]
    return found


def share(found: list[tuple[str, str, str]]) -> str:
    right = sum(alike(read, meant) for _, meant, read in found)
    return f"{right / len(found):.2%} of {len(found):,}"


def main() -> None:
    torch.set_num_threads(1)
    began = time.perf_counter()
    recogniser = trained()
    print(f"had in {time.perf_counter() - began:.0f} s; counted as one: {', '.join(ALIKE)}")
    for name, jitter in (("exact spans", 0.0), ("spans wrong by up to 20 %", 0.2)):
        found = readings(recogniser, jitter)
        print(f"{name}: {share(found)}")
        for face in ("futural", "cursive"):
            print(f"  {face:10} {share([each for each in found if each[0] == face])}")
        for group, member in GROUPS.items():
            print(f"  {group:10} {share([each for each in found if member(each[1])])}")
        wrong = Counter(f"{meant} as {read}" for _, meant, read in found if not alike(read, meant))
        print("  most often:", ", ".join(f"{pair} ({count})" for pair, count in wrong.most_common(12)))
        if not jitter:
            passed = sum(alike(read, meant) for _, meant, read in found) >= WANTED * len(found)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    command_line(main, main)
