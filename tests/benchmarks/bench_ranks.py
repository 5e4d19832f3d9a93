"""How much faster two ranks train than one, each on a core of its own, and what that says about more and a network.

`python tests/benchmarks/bench_ranks.py [STEPS]`. The paper's network (3 x 400) in float32, batches of 16 synthetic
lines for each rank, one thread each: more ranks, larger batches. The time of a step is that of its slowest rank, plus
that of summing gradients, of which each rank sends and receives 2 (n - 1) / n times their bytes (ring, Patarasu and
Yuan 2009); the table is this model, with the measured step of one rank.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from comparing import QUICK, command_line, sized

LINES = sized(16, 1)  # of each rank in a step
EPOCH = sized(2000, 60)  # lines
WARM_UP, TIMES = sized((3, 3), (1, 1))
NETWORKS = {"1 Gbit/s": 1e9, "10 Gbit/s": 1e10, "100 Gbit/s": 1e11}
RANKS = (2, 8, 32, 128)


def work(steps: int) -> None:
    """One rank: prints the seconds of a step, and of summing gradients within it; the first alone does."""
    import torch

    import seqdens
    from seqdens import distributed
    from seqdens.batches import training_batches
    from seqdens.devices import flushing_denormals

    torch.set_num_threads(1)
    distributed.join()
    data = distributed.first_on_each_machine(lambda: seqdens.load("hershey", lines=EPOCH))
    torch.manual_seed(0)
    model = seqdens.SequenceModel.for_data(data, seqdens.encoder("stacked-lstm"), seqdens.head("gmm-bernoulli"))
    parameters = [*model.parameters()]
    optimiser = torch.optim.Adam(parameters, 1e-4)
    rank, size = distributed.rank(), distributed.size()
    seconds, summing = [], []
    with flushing_denormals():
        for batch, _ in zip(
            training_batches(data, LINES * size, 0, 0, rank=rank, ranks=size), range(steps + WARM_UP), strict=False
        ):
            started = time.perf_counter()
            optimiser.zero_grad()
            model(batch).nats.sum().backward()
            distributed.exchange(lambda: None)
            waited = time.perf_counter()
            distributed.sum_gradients(parameters)
            summed = time.perf_counter()
            optimiser.step()
            seconds.append((time.perf_counter() - started) / int(batch.lengths.sum()))
            summing.append(summed - waited)
    if rank == 0:
        weights = sum(parameter.numel() for parameter in parameters)
        print(np.median(seconds[WARM_UP:]), np.median(summing[WARM_UP:]), weights)


def measured(ranks: int, steps: int) -> tuple[float, float, int]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    done = subprocess.run(
        [sys.executable, *torchrun, __file__, "work", str(steps), *(["--quick"] if QUICK else [])],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, summing, weights = done.stdout.split()
    return float(seconds), float(summing), int(weights)


def main(steps: int = 40) -> None:
    found = [(measured(1, steps), measured(2, steps)) for _ in range(TIMES)]
    efficiencies = [one[0] / two[0] for one, two in found]
    one, two = found[np.argsort(efficiencies)[TIMES // 2]]
    points = LINES * 610
    print(f"two ranks: {np.median(efficiencies):.1%} efficient ({', '.join(f'{each:.1%}' for each in efficiencies)})")
    print(f"a rank: {1 / one[0]:,.0f} points/s alone, {1 / two[0]:,.0f} beside another")
    step = two[0] * points
    print(f"summing {4 * one[2] / 1e6:.1f} MB of gradients: {two[1] * 1e3:.0f} ms of {step * 1e3:,.0f} ms a step")
    print("| network | " + " | ".join(f"{ranks} ranks" for ranks in RANKS) + " |")
    print("|---" * (len(RANKS) + 1) + "|")
    for name, bits in NETWORKS.items():
        sent = [2 * (ranks - 1) / ranks * 4 * one[2] * 8 / bits for ranks in RANKS]
        print(f"| {name} | " + " | ".join(f"{1 / (1 + each / (one[0] * points)):.1%}" for each in sent) + " |")


if __name__ == "__main__":
    work(int(sys.argv[2])) if sys.argv[1:2] == ["work"] else command_line(main, partial(main, steps=1))
