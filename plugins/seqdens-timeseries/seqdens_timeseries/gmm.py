"""Real columns by a mixture of Gaussians whose missing values are marginalised, other columns by softmaxes.

B sequences, T steps, F features, D columns of a point, R of them real, K components, P = R(R-1)/2.

A component's covariance is L L^T with L = diag(s) A: s_i > 0 is the standard deviation of column i given those before
it, A is lower triangular with ones on its diagonal and P numbers of any size below it, row by row. So x - mean = L u
for standard normals u. Where values are missing, the rows of A that are left are made triangular again by rotating u
(Gram-Schmidt): this is the exact density of the observed values, since u rotated is standard normal as before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seqdens import Column, Distribution, Head, UsageError
from seqdens_timeseries.categorical import Softmaxes, at_least_float32, check_bias, check_names, pick, sizes_of

REAL = "real"  # the mixture's term


@dataclass(frozen=True, eq=False)
class Mixture(Distribution):
    """A mixture of Gaussians over the real columns, times a softmax for each of the others."""

    columns: tuple[Column, ...]
    weight_logits: Tensor  # (B, T, K)
    means: Tensor  # (B, T, K, R)
    log_scales: Tensor  # (B, T, K, R) of s
    slopes: Tensor  # (B, T, K, P) of A
    states: Softmaxes

    @property
    def weights(self) -> Tensor:
        """Mixture weights (B, T, K)."""
        return self.weight_logits.softmax(-1)

    @property
    def sigmas(self) -> Tensor:
        """Standard deviations (B, T, K, R), in the units of the targets."""
        squares = [row.square().sum(-1) for row in rows(self.slopes, self.means.shape[-1])]
        return self.log_scales.exp() * (1 + torch.stack(squares, -1)).sqrt()

    def terms(self, targets: Tensor) -> dict[str, Tensor]:
        """Log-densities (B, T) in nats per point: "real" for the mixture, each other column by its name.

        NaN in a real column of targets (B, T, D) is a missing value: the density is that of the others.
        """
        real, states = self._split(targets)
        return {REAL: self._log_joint(real).logsumexp(-1)} | self.states.terms(states)

    def sample(self, noise: Tensor, bias: float = 0.0) -> Tensor:
        """Draws (B, T, D) from uniform noise (B, T, 1 + D): the component, the normals, the other columns.

        `bias` divides the standard deviations by exp(bias) and multiplies the logits of weights and of categories by
        1 + bias (Graves 2013, Eqs 61-62); binaries are never biased. Raises `UsageError` for a negative bias.
        """
        check_bias(bias)
        margin = torch.finfo(noise.dtype).eps  # keeps the normals finite
        uniform, normal, others = noise.clamp(margin, 1 - margin).split(
            (1, self.means.shape[-1], len(self.states.columns)), -1
        )
        chosen = pick(self.weight_logits * (1 + bias), uniform.squeeze(-1))
        means, log_scales, slopes = (select(part, chosen) for part in (self.means, self.log_scales, self.slopes))
        real = means + (log_scales - bias).exp() * colour(math.sqrt(2) * torch.erfinv(2 * normal - 1), slopes)
        return self._join(real, self.states.draws(others, bias))

    def mean(self) -> Tensor:
        """The mean of the mixture; probabilities of binary columns, of a category its most probable value (B, T, D)."""
        real = (self.weights.unsqueeze(-1) * self.means).sum(-2)
        return self._join(real, self.states.means())

    def sigmas_at(self, targets: Tensor) -> Tensor:
        """Standard deviations (B, T, R) of the component most responsible for targets (B, T, D)."""
        real, _ = self._split(targets)
        return select(self.sigmas, self._log_joint(real).argmax(-1))

    def _log_joint(self, x: Tensor) -> Tensor:
        """Log of weight times density (B, T, K) of the components at the values of x (B, T, R) that are not NaN."""
        return self.weight_logits.log_softmax(-1) + self._log_normal(x)

    def _log_normal(self, x: Tensor) -> Tensor:
        there = ~x.isnan().unsqueeze(-2)
        z = (x.nan_to_num().unsqueeze(-2) - self.means) * (-self.log_scales).exp()
        if there.all():
            u, log_norms = whiten(z, self.slopes), torch.zeros_like(z)
        else:
            u, log_norms = whiten_observed(z, self.slopes, there)
        each = self.log_scales + log_norms + 0.5 * u.square() + 0.5 * math.log(2 * math.pi)
        return -torch.where(there, each, 0.0).sum(-1)

    def _split(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The real columns (B, T, R) of points (B, T, D), and the others."""
        real = [index for index, column in enumerate(self.columns) if column.kind == "real"]
        others = [index for index in range(len(self.columns)) if index not in real]
        return points[..., real], points[..., others]

    def _join(self, real: Tensor, others: list[Tensor]) -> Tensor:
        """The real columns (B, T, R) and the others (B, T) as points (B, T, D)."""
        values = {True: iter(real.unbind(-1)), False: iter(others)}
        return torch.stack([next(values[column.kind == "real"]) for column in self.columns], -1)


def select(part: Tensor, component: Tensor) -> Tensor:
    """The numbers (B, T, N) of one component (B, T) out of those of all (B, T, K, N)."""
    return part.take_along_dim(component[..., None, None], -2).squeeze(-2)


def rows(slopes: Tensor, size: int) -> tuple[Tensor, ...]:
    """What is left of the diagonal (..., i) in each row i of A, for slopes (..., P)."""
    return slopes.split(list(range(size)), -1)


def whiten(z: Tensor, slopes: Tensor) -> Tensor:
    """Standard normals u (..., R) of z = A u (..., R), for slopes (..., P)."""
    u = z[..., :0]
    for i, row in enumerate(rows(slopes, z.shape[-1])):
        u = torch.cat([u, z[..., i : i + 1] - (row * u).sum(-1, keepdim=True)], -1)
    return u


def colour(u: Tensor, slopes: Tensor) -> Tensor:
    """z = A u (..., R): the inverse of `whiten`."""
    before = [(row * u[..., :i]).sum(-1) for i, row in enumerate(rows(slopes, u.shape[-1]))]
    return u + torch.stack(before, -1)


def whiten_observed(z: Tensor, slopes: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Standard normals (..., R) of those of z (..., R) that are `there` (..., R), and log |dz/du| (..., R) of each.

    Zeros where they are not. The row of a column has a one where rows before it have zeros: no norm is below 1.
    """
    size = z.shape[-1]
    axes, normals, log_norms = list[Tensor](), list[Tensor](), list[Tensor]()
    for i, row in enumerate(rows(slopes, size)):
        here = there[..., i : i + 1]
        axis = nn.functional.pad(torch.cat([row, torch.ones_like(z[..., :1])], -1), (0, size - 1 - i))
        u = z[..., i : i + 1]
        for before, normal in zip(axes, normals, strict=True):
            along = (axis * before).sum(-1, keepdim=True)
            axis, u = axis - along * before, u - along * normal
        norm = axis.square().sum(-1, keepdim=True).sqrt()
        axes.append(torch.where(here, axis / norm, 0.0))
        normals.append(torch.where(here, u / norm, 0.0))
        log_norms.append(torch.where(here, norm.log(), 0.0))
    return torch.cat(normals, -1), torch.cat(log_norms, -1)


class GMM(Head):
    """A mixture of Gaussians with full covariances over any real columns, their missing values marginalised.

    Binary and category columns are predicted by a softmax each. Initially the standard deviations are near 1 and the
    means spread over +-0.5, for data of unit variance. Raises `UsageError` for columns of which none is real or two
    have one name, and for impossible options.

    Options:
        components: Gaussians of the mixture
        output_clip: limit of the derivatives of the output numbers in back-propagation, 0 for none
        sigma_floor: what no standard deviation falls below, in the targets' units
    """

    def __init__(
        self,
        input_size: int,
        columns: Sequence[Column],
        *,
        components: int = 20,
        output_clip: float = 100.0,
        sigma_floor: float = 0.0,
    ) -> None:
        super().__init__(input_size, columns)
        check_names("gmm", self.columns)
        names = [column.name for column in self.columns if column.kind != "real"]
        if len(names) == len(self.columns):
            raise UsageError(f"gmm needs a column of kind 'real', but has only {', '.join(names)}: use categorical.")
        if REAL in names:
            raise UsageError(f"gmm calls the loss of the real columns {REAL!r}: rename the other column of that name.")
        for option, value, least in (
            ("components", components, 1),
            ("output_clip", output_clip, 0),
            ("sigma_floor", sigma_floor, 0),
        ):
            if not least <= value < math.inf:
                raise UsageError(f"option {option!r} of gmm is {value!r}, but must be a number from {least}.")
        self.components, self.output_clip, self.sigma_floor = components, output_clip, sigma_floor
        self.state_columns = tuple(column for column in self.columns if column.kind != "real")
        real = len(self.columns) - len(self.state_columns)
        pairs = real * (real - 1) // 2
        self.noise_size = 1 + len(self.columns)
        self.sizes = [components, *(components * size for size in (real, real, pairs)), *sizes_of(self.columns)]
        self.output = nn.Linear(input_size, sum(self.sizes))
        nn.init.zeros_(self.output.bias)
        nn.init.uniform_(self.output.bias.detach().split(self.sizes)[1], -0.5, 0.5)

    def forward(self, features: Tensor) -> Mixture:
        """The distributions for features (B, T, F), in float32 or float64 whatever the projection ran in."""
        outputs = at_least_float32(self.output(features))
        if self.output_clip and outputs.requires_grad:
            outputs.register_hook(lambda gradient: gradient.clamp(-self.output_clip, self.output_clip))
        weights, *parts = outputs.split(self.sizes, -1)
        means, log_scales, slopes = (part.unflatten(-1, (self.components, -1)) for part in parts[:3])
        if self.sigma_floor:
            log_floor = math.log(self.sigma_floor)
            log_scales = log_floor + nn.functional.softplus(log_scales - log_floor)
        return Mixture(
            self.columns, weights, means, log_scales, slopes, Softmaxes(self.state_columns, tuple(parts[3:]))
        )
