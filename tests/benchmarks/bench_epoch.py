"""Points per second over an epoch of lines of IAM-OnDB's lengths: length buckets against random batches, both padded.

The paper's network in bf16, batches of 32. Each side trains on as many batches, drawn evenly from an epoch's by length;
the padding is that of the whole epoch. `python tests/benchmarks/bench_epoch.py [ROUNDS]`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from bench_training import lengths_of_lines, model
from comparing import command_line, compare, machine, report_ratio, sized

from seqdens.batches import Batch, order

BATCH, DRAWN = sized((32, 8), (4, 2))


def batch_of(lengths: np.ndarray) -> Batch:
    points = torch.zeros(len(lengths), lengths.max(), 3)
    for row, length in zip(points, lengths, strict=True):
        row[:length, :2].normal_()
    no_text = torch.zeros(len(lengths), 0, dtype=torch.long), torch.zeros(len(lengths), dtype=torch.long)
    return Batch(points, torch.from_numpy(lengths), *no_text, torch.arange(len(lengths)))


def drawn(batches: list[np.ndarray]) -> list[np.ndarray]:
    """`DRAWN` of the batches' lengths, evenly spaced by the longest in each."""
    ordered = sorted(batches, key=max)
    return [ordered[i] for i in np.linspace(0, len(ordered) - 1, 2 * DRAWN + 1).astype(int)[1::2]]


def steps(batches: list[np.ndarray]) -> Callable[[], None]:
    trained, ready = model("stacked-lstm"), [batch_of(lengths) for lengths in batches]

    def run() -> None:
        for batch in ready:
            with torch.autocast("cpu", torch.bfloat16):
                loss = trained(batch).nats.sum()
            loss.backward()
            assert torch.isfinite(loss)
            trained.zero_grad(set_to_none=True)

    return run


def main(rounds: int = 5) -> None:
    lengths, rng = lengths_of_lines(), np.random.default_rng(0)
    shuffled = np.array_split(rng.permutation(len(lengths)), len(lengths) // BATCH)
    buckets = list(order(np.arange(len(lengths)), lengths.__getitem__, BATCH, rng))
    orders = {"buckets": buckets, "random": shuffled}
    print(f"An epoch of {len(lengths):,} lines, batches of {BATCH}, {machine()}, {rounds} rounds")
    chosen = {}
    for name, batches in orders.items():
        assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
        padded = sum(len(batch) * lengths[batch].max() for batch in batches)
        print(f"  {name}: {1 - lengths.sum() / padded:.1%} of all computed points are padding")
        chosen[name] = drawn([lengths[batch] for batch in batches])
    taken = compare({name: steps(batches) for name, batches in chosen.items()}, rounds, warm_up=1)
    points = {name: sum(each.sum() for each in batches) for name, batches in chosen.items()}
    per_point = {name: [each / points[name] for each in seconds] for name, seconds in taken.items()}
    report_ratio("points per second, buckets against random", per_point["buckets"], per_point["random"], 1.6)


if __name__ == "__main__":
    command_line(main, partial(main, rounds=2))
