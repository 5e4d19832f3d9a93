"""Whether samples are made of letters: the distance of their stroke groups to the nearest glyph.

`python tests/benchmarks/bench_legibility.py RUN`, of a run on the embedded data set, compares its samples with held-out
lines and with samples of the same network untrained. It fails unless the samples' mean distance is at most twice that
of held-out lines and less than half that of the untrained network.

A stroke group is ink that overlaps from left to right: a printed letter, or a few joined ones; longer ones (words in
joined writing) are left out. It is compared with every character in the hands of training writers, after the shift,
widening, heightening and slant that bring that character closest. N points of a group, G groups, K characters.
"""

import sys
import tempfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from comparing import command_line, sized

import seqdens
from seqdens.cli.run import run
from seqdens.datasets.hershey import hand, write
from seqdens.datasets.text import ALPHABET
from seqdens.drawing import strokes
from seqdens.prepare import prepare
from seqdens.runner import component
from seqdens.training.run_folder import Run, read_config

N = 32
WRITERS = sized(40, 4)
FEWEST, MOST = 6, 60  # points of a group
TINY = 1e-9
TO_DATA, TO_UNTRAINED = sized((2, 0.5), (np.inf, np.inf))  # a network that hardly trained draws no letters


def groups(line: np.ndarray) -> list[np.ndarray]:
    """The ink (points, 2) of each stroke group of a line of offsets, in writing order."""
    found: list[list[np.ndarray]] = []
    reach = -np.inf
    for stroke in sorted(strokes(line), key=lambda stroke: stroke[:, 0].min()):
        if stroke[:, 0].min() > reach:
            found.append([])
        found[-1].append(stroke)
        reach = max(reach, stroke[:, 0].max())
    return [np.concatenate(group) for group in found if FEWEST <= sum(map(len, group)) <= MOST]


def outline(ink: np.ndarray) -> np.ndarray:
    """Ink (points, 2) as N points at equal distances along the pen's way, around their mean."""
    way = np.concatenate([[0], np.hypot(*np.diff(ink, axis=0).T).cumsum()])
    points = np.column_stack([np.interp(np.linspace(0, way[-1], N), way, column) for column in ink.T])
    return points - points.mean(axis=0)


def distances(outlines: np.ndarray, glyphs: np.ndarray) -> np.ndarray:
    """Root mean square distance (G,) of outlines (G, N, 2) to their nearest of glyphs (K, N, 2); their size is 1.

    x is fitted by a multiple of the glyph's x (not mirrored) plus a multiple of its y, y by a multiple of y.
    """
    (x, y), (u, v) = np.moveaxis(outlines, 2, 0), np.moveaxis(glyphs, 2, 0)
    tall = (v**2).sum(1) + TINY
    upright = u - v * ((u * v).sum(1) / tall)[:, None]
    along_v, slanted = np.maximum(y @ v.T, 0) ** 2 / tall, (x @ v.T) ** 2 / tall
    along_u = np.maximum(x @ upright.T, 0) ** 2 / ((upright**2).sum(1) + TINY)
    size = (x**2 + y**2).sum(1)[:, None]
    return np.sqrt(np.maximum(1 - (along_v + along_u + slanted) / size, 0)).min(axis=1)


def glyphs(seed: int) -> np.ndarray:
    """Every character (K, N, 2) in the hands of training writers."""
    rng = np.random.default_rng(seed)
    written = (write(c, *hand(seed, writer), rng) for writer in range(WRITERS) for c in ALPHABET if c != " ")
    return np.stack([outline(points[:, :2].astype(float)) for points in written if len(points) > 1])


def measure(lines: Iterable[np.ndarray], templates: np.ndarray) -> tuple[float, float, int]:
    """Mean distance of the groups of lines of offsets, its standard error, and how many groups there are."""
    found = distances(np.stack([outline(ink) for ink in chain.from_iterable(map(groups, lines))]), templates)
    return found.mean(), found.std() / np.sqrt(len(found)), len(found)


def main(path: str, lines: int = 60) -> None:
    config = read_config(Run(Path(path)).config_file)
    data = prepare(component("dataset", config["dataset"]))
    trained = seqdens.SequenceModel.load(path)
    torch.manual_seed(0)
    untrained = seqdens.SequenceModel.for_data(data, *trained.components.values())
    sampling = {name: config["sampling"][name] for name in ("steps", "bias")}
    held_out = np.random.default_rng(0).choice(data.split("valid"), lines, replace=False)
    templates = glyphs(seed=0)
    mean = {}
    for name, drawn in (
        ("held-out lines", [data.offsets(record) for record in held_out]),
        ("samples", trained.sample(lines, **sampling, seed=0)),
        ("untrained", untrained.sample(lines, **sampling, seed=0)),
    ):
        mean[name], error, number = measure(drawn, templates)
        print(f"{name:16} {mean[name]:.4f} +- {error:.4f} ({number} stroke groups of {lines} lines)")
    to_data, to_untrained = mean["samples"] / mean["held-out lines"], mean["samples"] / mean["untrained"]
    print(
        f"samples / held-out lines: {to_data:.2f} (at most {TO_DATA}); "
        f"samples / untrained: {to_untrained:.2f} (below {TO_UNTRAINED})"
    )
    sys.exit(0 if to_data <= TO_DATA and to_untrained < TO_UNTRAINED else 1)


def quick() -> None:
    """Train a small run, then measure it."""
    options = ("dataset.lines=60", "dataset.writers=20", "encoder.hidden_size=32", "sampling.steps=200")
    with tempfile.TemporaryDirectory() as folder:
        settings = [word for option in options for word in ("--set", option)]
        run(["handwriting", *settings, "--epochs", "1", "--out", f"{folder}/run"], standalone_mode=False)
        main(f"{folder}/run", 3)


if __name__ == "__main__":
    command_line(main, quick)
