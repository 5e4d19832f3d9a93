"""A training step of the paper's network, 3 x 400 with skips and 20 components, on 64 lines of IAM-OnDB's lengths.

Ours, with peepholes and derivatives clipped at every step, against the same stack of three `torch.nn.LSTM`, which has
neither; loss, head and optimiser are the same. Before anything is timed, both are given the same weights, without
peepholes and clipping, and must find the same loss. `python tests/benchmarks/bench_training.py [ROUNDS]`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from comparing import command_line, compare, machine, report, report_ratio, sized
from torch import Tensor, nn

import seqdens
from seqdens import native
from seqdens.batches import Batch, order
from seqdens.encoders.stacked_lstm import StackedLSTM
from seqdens.model import SequenceModel
from seqdens.optim import GravesRMSprop

HIDDEN, LAYERS = 400, 3
BATCH = sized(64, 4)
LINES, SHORTER = sized((10741, 1), (100, 20))  # of an epoch; so many times as short as those of IAM-OnDB


class TorchStack(seqdens.Encoder):
    """The stack of `torch.nn.LSTM`."""

    def __init__(self, input_size: int, context_size: int = 0) -> None:
        super().__init__()
        self.output_size = LAYERS * HIDDEN
        widths = [input_size + (HIDDEN if below else 0) for below in range(LAYERS)]
        self.layers = nn.ModuleList(nn.LSTM(width, HIDDEN) for width in widths)

    def start(self, batch_size: int, context: seqdens.Context | None = None) -> seqdens.State:
        return {"state": torch.zeros(batch_size, 2 * LAYERS, HIDDEN)}

    def forward(
        self, inputs: Tensor, lengths: Tensor, state: seqdens.State, context: seqdens.Context | None = None
    ) -> seqdens.Encoded:
        steps = below = inputs.transpose(0, 1)
        outputs = []
        for number, layer in enumerate(self.layers):
            below, _ = layer(torch.cat((steps.to(below.dtype), below), dim=2) if number else steps)
            outputs.append(below.transpose(0, 1))
        return seqdens.Encoded(torch.cat(outputs, dim=2), state, {})


def lengths_of_lines() -> np.ndarray:
    """As those of IAM-OnDB's training lines: mean 628 and standard deviation 194, from 30 to 1,939."""
    return np.random.default_rng(0).normal(628, 194, LINES).clip(30, 1939).astype(np.int64) // SHORTER


def middle_batch() -> Batch:
    """The bucketed batch whose longest line is the median one of an epoch's batches."""
    lengths = lengths_of_lines()
    batches = list(order(np.arange(len(lengths)), lengths.__getitem__, BATCH, np.random.default_rng(0)))
    chosen = sorted((lengths[batch] for batch in batches if len(batch) == BATCH), key=max)[len(batches) // 2]
    points = np.random.default_rng(1).normal(size=(BATCH, chosen.max(), 3)).astype(np.float32)
    points[..., 2] = points[..., 2] > 2
    points *= np.arange(chosen.max())[None, :, None] < chosen[:, None, None]
    no_text = torch.zeros(BATCH, 0, dtype=torch.long), torch.zeros(BATCH, dtype=torch.long)
    return Batch(torch.from_numpy(points), torch.from_numpy(chosen), *no_text, torch.arange(BATCH))


def model(encoder: str, **options: object) -> SequenceModel:
    torch.manual_seed(0)
    columns = (seqdens.X, seqdens.Y, seqdens.STROKE_END)
    parts = seqdens.encoder(encoder, **options), seqdens.head("gmm-bernoulli", components=20)
    return SequenceModel(columns, *parts, mean=[0, 0], std=[1, 1])


@torch.no_grad()
def copy_weights(stack: StackedLSTM, other: TorchStack) -> None:
    """Those of `other` into `stack`, whose peepholes become zero."""
    for mine, theirs in zip(stack.layers, other.layers, strict=True):
        mine.input_weight.copy_(theirs.weight_ih_l0)
        mine.recurrent_weight.copy_(theirs.weight_hh_l0)
        mine.bias.copy_(theirs.bias_ih_l0 + theirs.bias_hh_l0)
        mine.peepholes.zero_()


def check_equal(batch: Batch) -> None:
    """Raises where the two stacks find another loss or other gradients of the head."""
    ours, theirs = model("stacked-lstm", gate_clip=0.0), model("torch-stack")
    copy_weights(ours.encoder, theirs.encoder)
    ours.head.load_state_dict(theirs.head.state_dict())
    losses = [each(batch).nats.sum() for each in (ours, theirs)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=0)
    gradients = [
        torch.autograd.grad(loss, each.head.output.weight)[0] for loss, each in zip(losses, (ours, theirs), strict=True)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-3 * gradients[0].abs().max().item())


def step(trained: SequenceModel, batch: Batch, bf16: bool) -> Callable[[], None]:
    optimiser = GravesRMSprop(trained.parameters(), lr=1e-5)

    def run() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = trained(batch).nats.sum()
        loss.backward()
        assert torch.isfinite(loss)
        optimiser.step()

    return run


def main(rounds: int = 9) -> None:
    seqdens.register("encoders", "torch-stack", TorchStack)
    batch = middle_batch()
    check_equal(batch)
    sides = {
        f"{name}, {precision}": step(model(encoder), batch, precision == "bf16")
        for name, encoder in (("seqdens", "stacked-lstm"), ("nn.LSTM", "torch-stack"))
        for precision in ("float32", "bf16")
    }
    taken = compare(sides, rounds)
    print(f"Training step, B={BATCH}, T={batch.points.shape[1]}, {machine()}, {rounds} rounds")
    report(taken, int(batch.lengths.sum()), "points")
    report_ratio("float32 against float32 nn.LSTM", taken["seqdens, float32"], taken["nn.LSTM, float32"], 1.1)
    if native.has("bf16"):
        against, wanted = "bf16 against nn.LSTM under bf16 autocast", 2.0 if native.level("bf16") == "amx" else 1.2
        report_ratio(against, taken["seqdens, bf16"], taken["nn.LSTM, bf16"], wanted)
        report_ratio("bf16 against float32 nn.LSTM", taken["seqdens, bf16"], taken["nn.LSTM, float32"], 2.5)


if __name__ == "__main__":
    command_line(main, partial(main, rounds=2))
