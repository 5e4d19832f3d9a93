"""The loss of the output layer of Graves (2013) with its derivatives, against the same mixture of torch.distributions.

`python tests/benchmarks/bench_head.py [ROUNDS]` goes from the 121 output numbers of each point of 64 lines of 620
points (20 components; x, y, stroke_end) to the negative log-likelihood, and back to the derivatives of these numbers.
Both sides must find the same loss and derivatives before anything is timed. Ours is timed with the paper's clipping of
derivatives too, and as ordinary operations (`fused.enabled` set to False), the reference of the fused pass.

B lines, T steps, N output numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from comparing import command_line, compare, machine, report, report_ratio, sized
from torch import Tensor, distributions

from seqdens.datasets.base import STROKE_END, X, Y
from seqdens.heads import fused
from seqdens.heads.gmm_bernoulli import GMMBernoulli

BATCH, STEPS = sized((64, 620), (4, 50))
COMPONENTS = 20
WANTED = 5.0


def mixture(outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss as people write it, without the checks of arguments."""
    weights, means, log_sigmas, correlations, end = outputs.split(
        (COMPONENTS, 2 * COMPONENTS, 2 * COMPONENTS, COMPONENTS, 1), dim=-1
    )
    means, sigmas = (part.unflatten(-1, (2, COMPONENTS)).transpose(-1, -2) for part in (means, log_sigmas.exp()))
    rho, zero = correlations.tanh(), torch.zeros_like(correlations)
    rows = [sigmas[..., 0], zero, sigmas[..., 1] * rho, sigmas[..., 1] * (1 - rho**2).sqrt()]
    components = distributions.MultivariateNormal(
        means, scale_tril=torch.stack(rows, dim=-1).unflatten(-1, (2, 2)), validate_args=False
    )
    categorical = distributions.Categorical(logits=weights, validate_args=False)
    real = distributions.MixtureSameFamily(categorical, components, validate_args=False)
    binary = distributions.Bernoulli(logits=end[..., 0], validate_args=False)
    return -(real.log_prob(targets[..., :2]) + binary.log_prob(targets[..., 2])).sum()


def ours(clip: float, use_fused: bool = True) -> Callable[[Tensor, Tensor], Tensor]:
    head = GMMBernoulli(1, (X, Y, STROKE_END), components=COMPONENTS, output_clip=clip)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        fused.enabled = use_fused
        return -head.distribution(outputs).log_prob(targets).sum()

    return loss


def data() -> tuple[Tensor, Tensor]:
    """Output numbers (B, T, N) near those of an untrained head, and targets (B, T, 3)."""
    random = torch.Generator().manual_seed(0)
    outputs = 0.3 * torch.randn(BATCH, STEPS, 6 * COMPONENTS + 1, generator=random)
    targets = torch.randn(BATCH, STEPS, 3, generator=random)
    targets[..., 2] = (targets[..., 2] > 1.5).float()
    return outputs.requires_grad_(), targets


def both(loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The loss, and its derivatives (B, T, N)."""
    found = loss(outputs, targets)
    return found, torch.autograd.grad(found, outputs)[0]


def main(rounds: int = 15) -> None:
    outputs, targets = data()
    losses = {
        "seqdens": ours(0.0),
        "seqdens, derivatives clipped": ours(100.0),
        "seqdens, ordinary operations": ours(0.0, use_fused=False),
        "torch.distributions": mixture,
    }
    expected, derivatives = both(mixture, outputs, targets)
    for loss in losses.values():
        found = both(loss, outputs, targets)
        torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=0)
        torch.testing.assert_close(found[1], derivatives, rtol=1e-4, atol=1e-5 * derivatives.abs().max().item())
    taken = compare({name: lambda loss=loss: both(loss, outputs, targets) for name, loss in losses.items()}, rounds)
    print(f"Head's loss and derivatives, B={BATCH}, T={STEPS}, K={COMPONENTS}, {machine()}, {rounds} rounds")
    report(taken, BATCH * STEPS, "points")
    for name in list(losses)[:-1]:
        report_ratio(f"{name} against torch.distributions", taken[name], taken["torch.distributions"], WANTED)


if __name__ == "__main__":
    command_line(main, partial(main, rounds=2))
