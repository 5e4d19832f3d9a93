"""How fast each level of the compiled library is, against the same network as plain torch operations.

A training step of the encoder, 3 x 400 cells, 32 lines of 300 points; and the drawing of 1 and 32 lines of 200 points.
SEQDENS_LEVEL holds the library to a level. torch is held to the same instructions only if that is done before it
starts, so a fair comparison on AVX2 is:

    SEQDENS_LEVEL=avx2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2 \\
        python tests/benchmarks/bench_levels.py
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from comparing import command_line, compare, machine, report, report_ratio, sized

import seqdens
from seqdens import native
from seqdens.encoders.stacked_lstm import StackedLSTM

CELLS, LAYERS = 400, 3
BATCH, STEPS, DRAWN = sized((32, 300, 200), (2, 10, 5))
IMPLEMENTATIONS = ("reference", "cpu")
WANTED = {"step": 1.0, "1 line": 1.1, "32 lines": 1.1}  # times as fast


def model(recurrence: str) -> seqdens.SequenceModel:
    torch.manual_seed(0)
    encoder = seqdens.encoder("stacked-lstm", hidden_size=CELLS, layers=LAYERS, recurrence=recurrence)
    columns = (seqdens.X, seqdens.Y, seqdens.STROKE_END)
    return seqdens.SequenceModel(columns, encoder, seqdens.head("gmm-bernoulli"), mean=[0, 0], std=[1, 1])


def train(encoder: torch.nn.Module, bf16: bool) -> torch.Tensor:
    """Return the features of a batch, once its gradients are found."""
    assert isinstance(encoder, StackedLSTM)
    inputs = torch.randn(BATCH, STEPS, 3, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        features = encoder(inputs, torch.full((BATCH,), STEPS), encoder.start(BATCH)).features
    encoder.zero_grad(set_to_none=True)
    features.backward(torch.ones_like(features))
    return features.detach().float()


def sides(precision: str) -> dict[str, dict[str, Callable[[], object]]]:
    """Return, of each kind of work, what each implementation does."""
    models = {name: model(name) for name in IMPLEMENTATIONS}
    features = [train(each.encoder, precision == "bf16") for each in models.values()]
    torch.testing.assert_close(*features, rtol=1e-2, atol=2e-2)
    return {
        "step": {name: partial(train, each.encoder, precision == "bf16") for name, each in models.items()},
        **{
            work: {name: partial(each.sample, count, steps=DRAWN, precision=precision) for name, each in models.items()}
            for work, count in (("1 line", 1), ("32 lines", 32))
        },
    }


def main(rounds: int = 7) -> None:
    print(f"levels, {machine()}, torch uses {torch.backends.cpu.get_cpu_capability()}")
    for precision in ("float32", "bf16"):
        if not native.has(precision):
            print(f"no level has {precision}")
            continue
        for work, each in sides(precision).items():
            taken = compare(each, rounds)
            count = {"step": BATCH * STEPS, "1 line": DRAWN, "32 lines": 32 * DRAWN}[work]
            report({f"{work}, {precision}, {name}": seconds for name, seconds in taken.items()}, count, "points")
            report_ratio(
                f"{work}, {native.level(precision)} against plain torch", taken["cpu"], taken["reference"], WANTED[work]
            )


if __name__ == "__main__":
    command_line(main, partial(main, rounds=2))
