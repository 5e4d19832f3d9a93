"""How fast lines are drawn, against a loop of `nn.LSTMCell` and `torch.distributions` with the same weights.

`python tests/benchmarks/bench_sampling.py` draws with the paper's network (3 x 400 cells, 20 components), untrained,
whose lines never end. Our peepholes are zero, so that both sides draw from one distribution, and the numbers are
checked: shapes, finite values, and the mean and deviation of the offsets, which must agree.

B lines, T steps; a state is (h, c) (B, 400) of each layer.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from comparing import command_line, compare, machine, report, report_ratio, sized
from torch import Tensor, distributions, nn

import seqdens
from seqdens import native
from seqdens.datasets.base import STROKE_END, X, Y

CELLS, LAYERS, COMPONENTS = 400, 3, 20
STEPS = sized(700, 20)
WANTED = {  # of so many lines: times as fast
    1: {"float32": 4.0, "bf16": 5.0, "int8": 5.0},
    64: {"float32": 2.0, "bf16": 3.0, "int8": 4.0},
}


class Loop(nn.Module):
    """The same network as people write it, without peepholes."""

    def __init__(self, encoder: Any, head: Any) -> None:
        super().__init__()
        self.cells = nn.ModuleList(nn.LSTMCell(3 + CELLS * (layer > 0), CELLS) for layer in range(LAYERS))
        self.output = nn.Linear(CELLS * LAYERS, 6 * COMPONENTS + 1)
        self.output.load_state_dict(head.output.state_dict())
        for cell, ours in zip(self.cells, encoder.layers, strict=True):
            weights = (ours.input_weight, ours.recurrent_weight, ours.bias, torch.zeros_like(ours.bias))
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            cell.load_state_dict(dict(zip(names, weights, strict=True)))

    @torch.inference_mode()
    def sample(self, lines: int, steps: int) -> Tensor:
        """Normalised offsets (B, T, 3)."""
        point, drawn = torch.zeros(lines, 3), []
        states = [(torch.zeros(lines, CELLS), torch.zeros(lines, CELLS)) for _ in self.cells]
        for _ in range(steps):
            hidden: list[Tensor] = []
            for layer, cell in enumerate(self.cells):
                states[layer] = cell(torch.cat([point, *hidden[-1:]], dim=1), states[layer])
                hidden.append(states[layer][0])
            point = draw(self.output(torch.cat(hidden, dim=1)))
            drawn.append(point)
        return torch.stack(drawn, dim=1)


def draw(outputs: Tensor) -> Tensor:
    """A point (B, 3) of output numbers (B, 121); without the checks of arguments, which we do not make either."""
    weights, means, log_sigmas, correlations, end = outputs.split(
        (COMPONENTS, 2 * COMPONENTS, 2 * COMPONENTS, COMPONENTS, 1), dim=1
    )
    means, sigmas = (part.unflatten(1, (2, COMPONENTS)).transpose(1, 2) for part in (means, log_sigmas.exp()))
    rho, zero = correlations.tanh(), torch.zeros_like(correlations)
    rows = [sigmas[..., 0], zero, sigmas[..., 1] * rho, sigmas[..., 1] * (1 - rho**2).sqrt()]
    mixture = distributions.MixtureSameFamily(
        distributions.Categorical(logits=weights, validate_args=False),
        distributions.MultivariateNormal(
            means, scale_tril=torch.stack(rows, dim=-1).unflatten(-1, (2, 2)), validate_args=False
        ),
        validate_args=False,
    )
    return torch.cat([mixture.sample(), distributions.Bernoulli(logits=end, validate_args=False).sample()], dim=1)


def paper_model() -> seqdens.SequenceModel:
    """The paper's prediction network, untrained, with peepholes of zero."""
    torch.manual_seed(0)
    encoder = seqdens.encoder("stacked-lstm", hidden_size=CELLS, layers=LAYERS)
    head = seqdens.head("gmm-bernoulli", components=COMPONENTS)
    model = seqdens.SequenceModel((X, Y, STROKE_END), encoder, head, mean=(0, 0), std=(1, 1))
    for name, weights in model.encoder.named_parameters():
        if "peepholes" in name:
            nn.init.zeros_(weights)
    return model


def check(model: seqdens.SequenceModel, loop: Loop, lines: int) -> None:
    """Both sides draw `lines` of STEPS points from the same distribution, by its first two moments."""
    both = np.stack([np.stack(model.sample(lines, steps=STEPS, seed=0)), loop.sample(lines, STEPS).numpy()])
    assert both.shape == (2, lines, STEPS, 3)
    assert np.isfinite(both).all()
    error = 6 / math.sqrt(lines * STEPS)
    for moments in (both.mean(axis=(1, 2)), both.std(axis=(1, 2))):
        np.testing.assert_allclose(moments[0], moments[1], atol=error)


def main(rounds: int = 7) -> None:
    print(f"sampling, {machine()}")
    model = paper_model()
    loop = Loop(model.encoder, model.head)

    def ours(lines: int, precision: str) -> None:
        model.sample(lines, steps=STEPS, seed=0, precision=precision)

    for lines, wanted in WANTED.items():
        check(model, loop, lines)
        theirs = "nn.LSTMCell and torch.distributions, float32"
        wanted = {precision: least for precision, least in wanted.items() if native.has(precision)}
        sides = {f"seqdens, {precision}": partial(ours, lines, precision) for precision in wanted}
        taken = compare({theirs: partial(loop.sample, lines, STEPS)} | sides, rounds)
        print(f"{lines} line(s) of {STEPS} points at once")
        report(taken, lines * STEPS, "points")
        for name, least in zip(sides, wanted.values(), strict=True):
            report_ratio(f"{name}, against the loop, {lines} line(s)", taken[name], taken[theirs], least)


if __name__ == "__main__":
    command_line(main, partial(main, rounds=2))
