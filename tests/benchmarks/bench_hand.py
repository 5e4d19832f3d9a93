"""Whether the lines of a page are in one hand: how much of what differs between lines differs between pages.

`python tests/benchmarks/bench_hand.py MODEL [PAGES]`, of a run or a weights file of experiment synthesis. For each
trait of a hand, the share of its variance that lies between pages (intraclass correlation, Shrout and Fleiss 1979): 1
where the lines of a page are alike, 0 where they are no more so than those of different pages. Beside it, the same of
lines that were drawn without regard to each other, where it should be near 0.

P pages, L lines of each, T points of a line.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from comparing import command_line, sized

import seqdens
from seqdens.datasets.text import line_of_text
from seqdens.writing import SHIPPED, write

LINES, LONGEST = sized((6, 32), (2, 12))


def traits(points: np.ndarray, text: str) -> dict[str, float]:
    """What tells hands apart, of raw offsets (T, 3)."""
    moves, ends = points[1:, :2], points[1:, 2] > 0.5
    drawn = moves[~np.concatenate([[True], ends[:-1]])]  # not those in the air
    down = drawn[drawn[:, 1] > np.abs(drawn[:, 0])]
    return {
        "slant": float(-down[:, 0].sum() / down[:, 1].sum()),
        "size": float(np.log(np.median(np.hypot(*drawn.T)))),
        "width of a character": float(np.log(np.abs(points[:, 0].sum()) / len(text))),
        "strokes a character": float(np.log(ends.sum() / len(text))),
    }


def between(values: np.ndarray) -> float:
    """The share of the variance of values (P, L) that lies between pages."""
    within = values.var(axis=1, ddof=1).mean()
    pages = values.shape[1] * values.mean(axis=1).var(ddof=1)
    return float((pages - within) / (pages + (values.shape[1] - 1) * within))


def main(model: str, pages: int = 24) -> None:
    writer, rng = seqdens.SequenceModel.load(model), np.random.default_rng(980_000)
    texts = [[line_of_text(rng, LONGEST) for _ in range(LINES)] for _ in range(pages)]
    found: dict[str, list[list[dict[str, float]]]] = {"pages": [], "single lines": []}
    for seed, lines in enumerate(texts):
        page = write("\n".join(lines), writer, characters=LONGEST, seed=seed).lines
        single = [
            write(line, writer, characters=LONGEST, seed=1000 * seed + 500 + n).lines[0] for n, line in enumerate(lines)
        ]
        for name, drawn in (("pages", page), ("single lines", single)):
            found[name].append([traits(line.points, line.text) for line in drawn])
    for trait in found["pages"][0][0]:
        shares = [between(np.array([[line[trait] for line in page] for page in some])) for some in found.values()]
        print(f"{trait}: {shares[0]:.2f} between pages; {shares[1]:.2f} of lines that were drawn singly")


if __name__ == "__main__":
    command_line(main, partial(main, str(SHIPPED), pages=2))
