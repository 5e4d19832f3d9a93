"""The peak memory of two training steps of the paper's network, batches being worked through in pieces.

`python tests/benchmarks/bench_truncation.py POINTS TRUNCATE [float32|bf16]`: 64 lines of that many points;
TRUNCATE 0 for no pieces. On Linux.
"""

from __future__ import annotations

import resource
import sys
import time

import torch
from bench_training import model

from seqdens.batches import Batch
from seqdens.devices import autocast

LINES = 64


def main(points: int, truncate: int, precision: str = "bf16") -> None:
    drawn = torch.randn(LINES, points, 3)
    drawn[..., 2] = (drawn[..., 2] > 1).float()
    no_text = torch.zeros(LINES, 0, dtype=torch.long), torch.zeros(LINES, dtype=torch.long)
    batch = Batch(drawn, torch.full((LINES,), points), *no_text, torch.arange(LINES))
    network = model("stacked-lstm")
    for _ in range(2):
        started, losses = time.perf_counter(), iter(network.pieces(batch, truncate or points))
        while True:
            with autocast(drawn.device, precision):
                loss = next(losses, None)
            if loss is None:
                break
            loss.nats.sum().backward()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # kB on Linux
    seconds = time.perf_counter() - started
    print(f"{points} points, truncate {truncate}, {precision}: {peak:.1f} GB at most, {seconds:.1f} s a step")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
