"""Cost against the number of sequences: preparing, opening, iterating the training batches of an epoch, and training.

Sequences are made up: walks of 40 to 160 points with a word, a hundred of each writer after each other, in sources of
a thousand. Each stage runs in a process of its own; its memory is the largest `Pss_Anon` of it and its children, beyond
that before it began: what they hold, without the pages of mapped files, which the system may drop.

`python tests/benchmarks/bench_scale.py FOLDER SEQUENCES [SHARDS]`: FOLDER gets 0.55 GB a million, twice that while it
is written; with SHARDS, that many are prepared one after the other and opened as one. `... FOLDER SEQUENCES shuffle`
says how well an epoch is shuffled, against a shuffle without regard to length.
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from comparing import command_line

import seqdens
from seqdens import components
from seqdens.batches import order, training_batches
from seqdens.cache import Prepared
from seqdens.datasets.base import Dataset, Record, Source, Split
from seqdens.prepare import prepare
from seqdens.shards import Shard, all_of

PART = 1000  # sequences of a source
BY_A_WRITER = 100
BATCH = 64
BATCHES = 20_000  # of an epoch that are taken
STEPS = 20  # of an epoch that are trained
WORDS = ("a", "line", "of", "handwriting", "writes", "itself", "with", "pen", "and", "ink")


class Walks(Dataset):
    """Random walks of whole numbers with a few strokes, as many as asked for."""

    synthetic = True

    def __init__(self, root: Path | None = None, *, count: int = PART) -> None:
        self.count = count

    def sources(self) -> list[Source]:
        return [Source(str(first)) for first in range(0, self.count, PART)]

    def read(self, source: Source) -> Iterator[Record]:
        first = int(source.name)
        rng = np.random.default_rng(first)
        lengths = rng.integers(40, 160, min(PART, self.count - first), endpoint=True)
        ends = np.cumsum(lengths)
        steps = rng.integers(-30, 30, (ends[-1], 3))
        steps[:, 2] = steps[:, 2] > 27
        steps[:, :2] = np.cumsum(steps[:, :2], axis=0)
        for number, points in enumerate(np.split(steps, ends[:-1]), first):
            split: Split = "valid" if number % 100 == 99 else "train"
            yield Record(str(number), points, split, WORDS[number % len(WORDS)], f"w{number // BY_A_WRITER}")


def held() -> int:
    """Bytes of anonymous memory of this process and its children, what they share counted once."""
    pid = os.getpid()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0
    for process in (pid, *children):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Anon"))
    return total


def measured(stage: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """What `stage` returns, in a process of its own, with its seconds and the most memory that it held."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_measured, stage, *arguments).result()


def _measured(stage: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    before, most, done = held(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.05):
            most = max(most, held() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    found = stage(*arguments)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return {"seconds": seconds, "memory": most} | found


def component(count: int) -> components.Component:
    components.register("datasets", "walks", Walks)
    return components.dataset("walks", count=count)


def preparing(folder: Path, count: int, shard: Shard | None) -> dict[str, Any]:
    return {"path": prepare(component(count), folder=folder, shard=shard).path}


def opening(paths: list[Path]) -> dict[str, Any]:
    data = Prepared(*paths)
    return {"records": len(data), "points": data.points}


def iterating(paths: list[Path]) -> dict[str, Any]:
    """An epoch, of many batches the first; the memory that it takes includes that of a batch."""
    data = Prepared(*paths)
    start = time.perf_counter()
    points, first = 0, 0.0
    for batch in islice(training_batches(data, BATCH, seed=0, epoch=0), BATCHES):
        first = first or time.perf_counter() - start
        points += int(batch.lengths.sum())
    return {"first": first, "rate": points / (time.perf_counter() - start)}


class Enough(Exception):
    """Raised after `STEPS`."""


class Few:
    """A listener that ends training after `STEPS`."""

    @seqdens.hookimpl
    def metrics_logged(self, step: int) -> None:
        if step == STEPS:
            raise Enough


def training(paths: list[Path]) -> dict[str, Any]:
    """The first steps of an epoch, by a small network; the memory that it takes includes the network's."""
    data = Prepared(*paths)
    encoder, head = seqdens.encoder("stacked-lstm", hidden_size=32, layers=1), seqdens.head("gmm-bernoulli")
    model = seqdens.SequenceModel.for_data(data, encoder, head)
    with suppress(Enough):
        seqdens.Trainer(batch_size=BATCH).fit(model, data, events=seqdens.load_events([Few()]))
    return {}


def measure(folder: Path, count: int, shards: int = 1) -> None:
    parts = [measured(preparing, folder, count, shard if shards > 1 else None) for shard in all_of(shards)]
    paths = [part["path"] for part in parts]
    seconds, memory = sum(part["seconds"] for part in parts), max(part["memory"] for part in parts)
    size = sum(path.stat().st_size for path in paths)
    opened = measured(opening, paths)
    epoch, trained = measured(iterating, paths), measured(training, paths)
    print(
        f"{opened['records']:,} sequences, {opened['points']:,} points, {size / 1e9:.3f} GB, {shards} file(s): "
        f"prepared in {seconds:.1f} s with {memory / 1e6:.0f} MB, opened in {opened['seconds'] * 1000:.1f} ms with "
        f"{opened['memory'] / 1e6:.1f} MB, first batch after {epoch['first']:.2f} s, an epoch with "
        f"{epoch['memory'] / 1e6:.1f} MB ({epoch['memory'] / count:.1f} bytes a sequence), "
        f"{epoch['rate']:,.0f} points a second, {STEPS} steps of training with {trained['memory'] / 1e6:.1f} MB"
    )


def shuffle(folder: Path, count: int) -> None:
    """How like a uniform shuffle of all sequences the batches of an epoch are."""
    data = prepare(component(count), folder=folder)
    batches = list(order(data.split("train"), data.lengths_of, BATCH, np.random.default_rng([0, 0])))
    shuffled = np.random.default_rng(1).permutation(data.split("train"))
    uniform = [shuffled[start : start + BATCH] for start in range(0, len(shuffled), BATCH)]
    for name, chosen in (("batches of like length", batches), ("uniform", uniform)):
        print(f"{name}: {describe(chosen)}")


def describe(batches: list[np.ndarray]) -> str:
    records = np.concatenate(batches)
    position = np.empty(records.max() + 1, int)
    batch_of = np.full(records.max() + 1, -1)
    position[records] = np.arange(len(records))
    batch_of[records] = np.repeat(np.arange(len(batches)), [len(batch) for batch in batches])
    along = np.corrcoef(records, position[records])[0, 1]
    neighbours = np.sort(records)
    together = (batch_of[neighbours[1:]] == batch_of[neighbours[:-1]]).mean()
    full = [batch for batch in batches if len(batch) == BATCH]
    entropy = np.mean([entropy_of(batch // BY_A_WRITER) for batch in full])
    means = np.array([batch.mean() for batch in full])
    next_ = np.corrcoef(means[1:], means[:-1])[0, 1]
    return (
        f"correlation of place in the file and in the epoch {along:+.5f}, neighbours in one batch {together:.2e} "
        f"(by chance {(BATCH - 1) / (len(records) - 1):.2e}), writers of a batch {entropy:.3f} of "
        f"{math.log2(BATCH):.0f} bits, correlation of the mean places of one batch and the next {next_:+.4f}"
    )


def entropy_of(values: np.ndarray) -> float:
    """Bits of the distribution of values."""
    share = np.unique(values, return_counts=True)[1] / len(values)
    return float(-(share * np.log2(share)).sum())


def main(folder: Path, sequences: int, shards: str = "1") -> None:
    shuffle(folder, sequences) if shards == "shuffle" else measure(folder, sequences, int(shards))


def quick() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for shards in ("2", "shuffle"):
            main(Path(folder), 2 * PART, shards)


if __name__ == "__main__":
    command_line(main, quick)
