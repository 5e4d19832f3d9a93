"""The peak memory of two training steps of the paper's network: 64 lines of 1,900 points.

`python tests/benchmarks/bench_memory.py float32|bf16 [TRUNCATE]`, batches being worked through in pieces of so many
points; on Linux.
"""

from __future__ import annotations

import resource

import torch
from bench_training import model
from comparing import command_line, sized

from seqdens.batches import Batch
from seqdens.devices import autocast

LINES, STEPS = sized((64, 1900), (2, 50))
WANTED = 6.0


def main(precision: str, truncate: int = 0) -> None:
    points = torch.randn(LINES, STEPS, 3)
    points[..., 2] = (points[..., 2] > 1).float()
    no_text = torch.zeros(LINES, 0, dtype=torch.long), torch.zeros(LINES, dtype=torch.long)
    batch = Batch(points, torch.full((LINES,), STEPS), *no_text, torch.arange(LINES))
    network = model("stacked-lstm")
    for _ in range(2):
        losses = network.pieces(batch, truncate) if truncate else map(network, [batch])
        while True:
            with autocast(points.device, precision):
                loss = next(losses, None)
            if loss is None:
                break
            nats = loss.nats.sum()
            nats.backward()
            assert torch.isfinite(nats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # kB on Linux
    print(f"{precision}, truncate {truncate}: {peak:.1f} GB at most, wanted {WANTED} GB")


def quick() -> None:
    for precision in ("float32", "bf16"):
        for truncate in (0, 20):
            main(precision, truncate)


if __name__ == "__main__":
    command_line(main, quick)
