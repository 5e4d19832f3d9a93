"""The peak memory of two training steps of the paper's network: 64 lines of 1,900 points.

`python tests/benchmarks/bench_memory.py float32` or `bf16`; on Linux.
"""

from __future__ import annotations

import resource
import sys

import torch
from bench_training import model

from seqdens.batches import Batch
from seqdens.devices import autocast

LINES, STEPS, WANTED = 64, 1900, 6.0


def main(precision: str) -> None:
    points = torch.randn(LINES, STEPS, 3)
    points[..., 2] = (points[..., 2] > 1).float()
    no_text = torch.zeros(LINES, 0, dtype=torch.long), torch.zeros(LINES, dtype=torch.long)
    batch = Batch(points, torch.full((LINES,), STEPS), *no_text, torch.arange(LINES))
    network = model("stacked-lstm")
    for _ in range(2):
        with autocast(points.device, precision):
            loss = network(batch).nats.sum()
        loss.backward()
        assert torch.isfinite(loss)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # kB on Linux
    print(f"{precision}: {peak:.1f} GB at most, wanted {WANTED} GB")


if __name__ == "__main__":
    main(*sys.argv[1:])
