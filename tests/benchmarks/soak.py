"""Hours of training and sampling in one process: memory, open files, mapped files and threads, minute by minute.

Two models, one that writes a text and one that does not, train in turns; each `fit` goes on with the run of the one
before and opens its data anew. After every epoch each is saved, loaded, evaluated, drawn from in every precision (once
without coming to the end) and drawn with; after every `fit` a text is written by the weights that come with seqdens.

On Linux with glibc: `python tests/benchmarks/soak.py MINUTES [FOLDER]`. `FOLDER/soak.csv` has a row a minute. It
fails if, from the first third on, something grows by more than `MOST`.
"""

from __future__ import annotations

import csv
import ctypes
import gc
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from statistics import linear_regression
from typing import NamedTuple

import numpy as np
from comparing import command_line, sized

import seqdens
from seqdens.export import save_records

MOST = {"files": 0, "threads": 0}  # more an hour
MOST |= sized({"held": 20_000_000, "mappings": 10}, {})  # some mappings are the allocator's
MINUTE = sized(60, 1)  # seconds
EPOCHS, LINES = sized((4, 200), (1, 20))  # of a `fit`
ENCODERS = {
    "stacked-lstm": seqdens.encoder("stacked-lstm", hidden_size=96, layers=2),
    "window-lstm": seqdens.encoder("window-lstm", hidden_size=64, layers=1),
}


class Row(NamedTuple):
    """What the process holds, and what it has done."""

    minute: float
    memory: int  # bytes, without the pages of files
    held: int  # of these, what is left once all that is free went back to the system
    files: int
    mappings: int
    threads: int
    epochs: int
    points: int  # drawn


class Soak:
    """Two runs that go on and on; a listener of theirs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.epochs, self.points = folder, 0, 0

    def fit(self, name: str, epochs: int) -> None:
        data = seqdens.load("hershey", lines=LINES, writers=20, characters=20, cache=self.folder / "cache")
        model = seqdens.SequenceModel.for_data(data, ENCODERS[name], seqdens.head("gmm-bernoulli", components=8))
        trainer = seqdens.Trainer(epochs=epochs, optimiser="adam", learning_rate=1e-3, truncate=100)
        run = seqdens.Run(self.folder / name)
        self.data, self.model = data, model
        trainer.fit(model, data, run=run, resume=True, events=seqdens.load_events([self]))
        page = seqdens.write("The same again.", seed=epochs)
        self.points += sum(len(line.points) for line in page.lines)

    @seqdens.hookimpl
    def epoch_finished(self) -> None:
        self.epochs += 1
        text = self.data.texts[0] if self.model.encoder.takes_text else None
        weights, seed = self.folder / "again.safetensors", self.epochs
        self.model.save(weights)
        model = seqdens.SequenceModel.load(weights)
        seqdens.measure(model, self.data, "valid")
        next(model.stream(4, text=text, steps=50, seed=seed))
        drawn: list[np.ndarray] = []
        for precision in ("float32", "bf16", "int8") if text is None else ("float32", "bf16"):
            drawn += model.sample(4, text=text, steps=100, seed=seed, precision=precision)
        for suffix in (".svg", ".png", ".npz", ".json"):
            save_records(drawn, self.folder / f"drawn{suffix}", columns=model.columns)
        self.points += sum(len(record) for record in drawn)

    def row(self, minute: float) -> Row:
        memory = of_process("RssAnon") * 1024
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        return Row(
            minute=round(minute, 2),
            memory=memory,
            held=of_process("RssAnon") * 1024,
            files=len(os.listdir("/proc/self/fd")),
            mappings=len(Path("/proc/self/maps").read_text().splitlines()),
            threads=of_process("Threads"),
            epochs=self.epochs,
            points=self.points,
        )


def of_process(name: str) -> int:
    """A number of `/proc/self/status`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def rows(soak: Soak, minutes: float) -> Iterator[Row]:
    """One a minute, between two `fit`."""
    start = time.monotonic()
    passed = 0.0
    for turn in count(1):
        for name in ENCODERS:
            soak.fit(name, turn * EPOCHS)
        before, passed = passed, (time.monotonic() - start) / MINUTE
        if int(before) < int(passed) or passed > minutes:
            yield soak.row(passed)
        if passed > minutes:
            return


def main(minutes: float, folder: str = "") -> None:
    with tempfile.TemporaryDirectory() as made:
        chosen = Path(folder or made)
        chosen.mkdir(parents=True, exist_ok=True)
        watch(minutes, chosen)


def watch(minutes: float, folder: Path) -> None:
    found: list[Row] = []
    with (folder / "soak.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(Row._fields)
        for row in rows(Soak(folder), minutes):
            found.append(row)
            table.writerow(row)
            file.flush()
            print(*(f"{name} {value:,}" for name, value in row._asdict().items()), sep=", ", flush=True)
    settled = found[len(found) // 3 :]
    grown = [name for name, most in MOST.items() if len(settled) > 1 and growth(name, settled) > most]
    if grown:
        sys.exit("grows: " + ", ".join(grown))


def growth(name: str, settled: list[Row]) -> float:
    """By how much it becomes more in an hour: the slope of a line through all rows."""
    slope, _ = linear_regression([row.minute / 60 for row in settled], [getattr(row, name) for row in settled])
    print(f"{name}: {slope:+,.1f} an hour, at most {MOST[name]:,} allowed")
    return slope


if __name__ == "__main__":
    command_line(main, partial(main, minutes=3))
