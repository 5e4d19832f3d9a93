"""Real columns by a mixture of Gaussians, binary columns by Bernoullis: the output layer of Graves (2013).

B sequences, T steps, F features, D = R + S columns of a point (R real, S binary), K components, P = R(R-1)/2
pairs of real columns: pair (i, j) with j < i stands at i(i-1)/2 + j.

A correlation matrix is given by P numbers r: tanh(r_ij) is the partial correlation of columns i and j given
those before j (a canonical vine: Lewandowski, Kurowicka and Joe, 2009). Any r is a valid matrix, and for R=2
rho = tanh(r) as in the paper. One step v <- v sech(r_ij) + u_j tanh(r_ij) for each pair leads from standard
normals u to standardised columns z, and its inverse back: 1 - rho^2, which cancels, is never formed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqdens.clipping import clip_derivative
from seqdens.datasets.base import Column
from seqdens.errors import DataError, UsageError
from seqdens.heads import fused
from seqdens.heads.base import Distribution, Head

REAL = "real"  # the mixture's term


@dataclass(frozen=True, eq=False)
class MixtureBernoulli(Distribution):
    """A Gaussian mixture over the real columns, times a Bernoulli for each binary column.

    `correlations` are the numbers r; `binary_logits` are the paper's e with the opposite sign.
    """

    columns: tuple[Column, ...]
    weight_logits: Tensor  # (B, T, K)
    means: Tensor  # (B, T, R, K)
    log_sigmas: Tensor  # (B, T, R, K)
    correlations: Tensor  # (B, T, P, K)
    binary_logits: Tensor  # (B, T, S)

    @property
    def weights(self) -> Tensor:
        """Mixture weights (B, T, K)."""
        return self.weight_logits.softmax(-1)

    @property
    def sigmas(self) -> Tensor:
        """Standard deviations (B, T, R, K), in the units of the targets."""
        return self.log_sigmas.exp()

    def terms(self, targets: Tensor) -> dict[str, Tensor]:
        """Log-densities (B, T) in nats per point: "real" for the mixture, each binary column by its name.

        Raises `DataError` for NaN in the targets (B, T, D).
        """
        if not torch.compiler.is_compiling():  # a compiled graph cannot raise, and a missing value makes the loss NaN
            self._refuse_missing(targets)
        terms = {REAL: self._log_mixture(self._real(targets))}
        points = zip(self.columns, targets.unbind(-1), strict=True)
        binary = [(column.name, value) for column, value in points if column.kind == "binary"]
        for (name, value), logit in zip(binary, self.binary_logits.unbind(-1), strict=True):
            terms[name] = F.logsigmoid((2 * value - 1) * logit)
        return terms

    def sample(self, noise: Tensor, bias: float = 0.0) -> Tensor:
        """Draws (B, T, D) from uniform noise (B, T, 1 + R + S): the component, the normals, the binaries.

        `bias` divides the standard deviations by exp(bias) and multiplies the weights' logits by 1 + bias
        (Graves 2013, Eqs 61-62); binaries are never biased. Raises `UsageError` for a negative bias.
        """
        if not bias >= 0:
            raise UsageError(f"bias is {bias!r}, but must be 0 (unbiased) or more.")
        margin = torch.finfo(noise.dtype).eps  # keeps the normals finite
        noise, real = noise.clamp(margin, 1 - margin), self.means.shape[-2]
        uniform, normal, binary = noise.split_with_sizes((1, real, self.binary_logits.shape[-1]), -1)
        cumulative = (self.weight_logits * (1 + bias) if bias else self.weight_logits).softmax(-1).cumsum(-1)
        chosen = (cumulative < uniform * cumulative[..., -1:]).sum(-1)
        parts = torch.cat((self.means, self.log_sigmas, self.correlations), -2)  # one selection is faster than three
        means, log_sigmas, r = select(parts, chosen).split_with_sizes((real, real, self.correlations.shape[-2]), -1)
        normals = torch.erfinv(2 * normal - 1)  # of variance 1/2
        sigmas = (log_sigmas + (math.log(2) / 2 - bias)).exp()
        points = torch.addcmul(means, sigmas, correlate(normals, r))
        return self._point(points, (binary < self.binary_logits.sigmoid()).to(points.dtype))

    def mean(self) -> Tensor:
        """The mean of the mixture and the probabilities of the binary columns (B, T, D)."""
        return self._point((self.weights.unsqueeze(-2) * self.means).sum(-1), self.binary_logits.sigmoid())

    def heaviest_mean(self) -> Tensor:
        """As `mean`, but the mean of the component of the largest weight alone (B, T, D)."""
        return self._point(select(self.means, self.weight_logits.argmax(-1)), self.binary_logits.sigmoid())

    def predictions(self) -> dict[str, Tensor]:
        """The mean of the mixture, "mean", and that of its heaviest component, "heaviest" (B, T, D)."""
        return {"mean": self.mean(), "heaviest": self.heaviest_mean()}

    def sigmas_at(self, targets: Tensor) -> Tensor:
        """Standard deviations (B, T, R) of the component most responsible for targets (B, T, D)."""
        return select(self.log_sigmas, self._log_joint(self._real(targets)).argmax(-1)).exp()

    def _real(self, targets: Tensor) -> Tensor:
        """The real columns (B, T, R) of targets (B, T, D)."""
        points = zip(self.columns, targets.unbind(-1), strict=True)
        return torch.stack([value for column, value in points if column.kind == "real"], -1)

    def _log_mixture(self, x: Tensor) -> Tensor:
        """Log-density (B, T) of the mixture at x (B, T, R)."""
        parts = (self.weight_logits, self.means, self.log_sigmas, self.correlations)
        if fused.possible(x, *parts):
            return fused.log_density(x, *parts)
        return self._log_joint(x).logsumexp(-1)

    def _log_joint(self, x: Tensor) -> Tensor:
        """Log of weight times density (B, T, K) of the components at x (B, T, R)."""
        return self.weight_logits.log_softmax(-1) + self._log_normal(x)

    def _log_normal(self, x: Tensor) -> Tensor:
        """The components' log-densities (B, T, K) at x (B, T, R)."""
        z = (x.unsqueeze(-1) - self.means) * (-self.log_sigmas).exp()
        size = self.correlations.abs()
        log_cosh = size + F.softplus(-2 * size) - math.log(2)
        square = whiten(z, self.correlations).square().sum(-2)
        constant = 0.5 * z.shape[-2] * math.log(2 * math.pi)
        return log_cosh.sum(-2) - self.log_sigmas.sum(-2) - 0.5 * square - constant

    def _point(self, real: Tensor, binary: Tensor) -> Tensor:
        """Real (B, T, R) and binary (B, T, S) numbers in the order of the columns (B, T, D)."""
        values = {"real": iter(real.unbind(-1)), "binary": iter(binary.unbind(-1))}
        return torch.stack([next(values[column.kind]) for column in self.columns], -1)

    def _refuse_missing(self, targets: Tensor) -> None:
        missing = targets.isnan()
        if missing.any():
            name = next(c.name for c, some in zip(self.columns, missing.unbind(-1), strict=True) if some.any())
            raise DataError(
                f"column {name!r} holds NaN, but gmm-bernoulli does not marginalise missing values: "
                "fill them in or leave those records out."
            )


def select(part: Tensor, component: Tensor) -> Tensor:
    """The numbers (B, T, N) of one component (B, T) out of those of all (B, T, N, K)."""
    return part.gather(-1, component[..., None, None].expand(*part.shape[:-1], 1)).squeeze(-1)


def whiten(z: Tensor, r: Tensor) -> Tensor:
    """Standard normals (..., R, K) of standardised z (..., R, K), for r (..., P, K)."""
    grow, shrink = r.exp().unbind(-2), (-r).exp().unbind(-2)
    normals: list[Tensor] = []
    for i, v in enumerate(z.unbind(-2)):
        for j, u in enumerate(normals):
            pair = i * (i - 1) // 2 + j
            # v cosh r - u sinh r, which cancels near |rho| = 1
            v = 0.5 * (grow[pair] * (v - u) + shrink[pair] * (v + u))
        normals.append(v)
    return torch.stack(normals, -2)


def correlate(normals: Tensor, r: Tensor) -> Tensor:
    """Standardised z (..., R) of standard normals (..., R): the inverse of `whiten`, for r (..., P)."""
    columns, cosh, tanh = normals.unbind(-1), r.cosh().unbind(-1), r.tanh().unbind(-1)
    correlated = []
    for i, v in enumerate(columns):
        for j in reversed(range(i)):
            pair = i * (i - 1) // 2 + j
            v = torch.addcmul(v / cosh[pair], columns[j], tanh[pair])
        correlated.append(v)
    return torch.stack(correlated, -1)


def correlations_of(covariance: Tensor) -> Tensor:
    """The numbers r (P,) of a covariance matrix (R, R); raises `torch.linalg.LinAlgError` for a singular one."""
    factor = torch.linalg.cholesky(covariance)
    left = factor.square().flip(1).cumsum(1).flip(1).sqrt()  # what the columns before j leave of a row's length
    below_diagonal = torch.tril_indices(len(factor), len(factor), -1).unbind()
    return (factor / left)[below_diagonal].atanh()


class GMMBernoulli(Head):
    """The output layer of Graves (2013): 121 numbers for (x, y, stroke_end) and 20 components.

    Initially the standard deviations are near 1 and the means spread over +-0.5, for data of unit variance.
    Raises `UsageError` for category columns, for columns of which none is real, and for impossible options.

    Options:
        components: Gaussians of the mixture
        output_clip: limit of the derivatives of the output numbers in back-propagation, 0 for none
        sigma_floor: standard deviations are sigma_floor + exp(s), in the targets' units; 0 as in the paper
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
        check_columns(self.columns)
        at_least("components", components, 1)
        at_least("output_clip", output_clip, 0)
        at_least("sigma_floor", sigma_floor, 0)
        self.components, self.output_clip, self.sigma_floor = components, output_clip, sigma_floor
        real = sum(column.kind == "real" for column in self.columns)
        binary = len(self.columns) - real
        pairs = real * (real - 1) // 2
        self.noise_size = 1 + real + binary
        self.sizes = (components, components * real, components * real, components * pairs, binary)
        self.output = nn.Linear(input_size, sum(self.sizes))  # its weights start within +-1/sqrt(F)
        nn.init.zeros_(self.output.bias)
        nn.init.uniform_(self.output.bias.detach().split(self.sizes)[1], -0.5, 0.5)

    def forward(self, features: Tensor) -> MixtureBernoulli:
        """The distributions for features (B, T, F), in float32 or float64 whatever the projection ran in."""
        outputs = self.output(features)
        return self.distribution(outputs.to(torch.promote_types(outputs.dtype, torch.float32)))

    def sample(self, features: Tensor, noise: Tensor, bias: float = 0.0) -> Tensor:
        """As the draws of `forward`, in one pass where that is possible."""
        fits = noise.shape == (*features.shape[:-1], self.noise_size) and noise.dtype == features.dtype and bias >= 0
        if self.sigma_floor or not fits or not fused.can_draw(features, self.sizes):
            return super().sample(features, noise, bias)
        return fused.draw(self.output(features), self.sizes, self.columns, noise, bias)

    def drawer(self, bias: float = 0.0) -> Callable[[Tensor, Tensor], Tensor]:
        """As of `Head.drawer`; the projection and a draw in one pass if that is possible, looked at once."""
        hooks = any(each._forward_hooks or each._forward_pre_hooks for each in (self, self.output))
        plain = type(self) is GMMBernoulli and type(self.output) is nn.Linear and not hooks
        weight, offsets = self.output.weight, self.output.bias
        if self.sigma_floor or not plain or not bias >= 0 or not fused.can_draw(weight, self.sizes):
            return super().drawer(bias)
        draw = fused.drawer(self.sizes, self.columns, bias)
        return lambda features, noise: draw(F.linear(features, weight, offsets), noise)

    def distribution(self, outputs: Tensor) -> MixtureBernoulli:
        """The distributions for output numbers (B, T, N)."""
        weights, *parts, binary = clip_derivative(outputs, self.output_clip).split(self.sizes, -1)
        means, log_sigmas, correlations = (part.unflatten(-1, (-1, self.components)) for part in parts)
        if self.sigma_floor:
            log_floor = math.log(self.sigma_floor)
            log_sigmas = log_floor + F.softplus(log_sigmas - log_floor)
        return MixtureBernoulli(self.columns, weights, means, log_sigmas, correlations, binary)

    @torch.no_grad()
    def set_gaussian(self, mean: Tensor, covariance: Tensor, probabilities: Tensor) -> None:
        """Predict, whatever the features, one Gaussian of mean (R,) and covariance (R, R), and these binaries (S,).

        In the units of the targets; the standard deviations must be above `sigma_floor`.
        """
        log_sigmas = (covariance.diagonal().sqrt() - self.sigma_floor).log()
        each = torch.cat([torch.zeros_like(mean[:1]), mean, log_sigmas, correlations_of(covariance)])
        nn.init.zeros_(self.output.weight)
        self.output.bias.copy_(torch.cat([each.repeat_interleave(self.components), probabilities.logit()]))


def at_least(option: str, value: float, least: float) -> None:
    """Raises `UsageError` for an option below its least value, or NaN."""
    if not value >= least:
        raise UsageError(f"option {option!r} of gmm-bernoulli is {value!r}, but must be {least} or more.")


def check_columns(columns: Sequence[Column]) -> None:
    """Raises `UsageError` for columns that are not for a mixture of Gaussians and Bernoullis."""
    for column in columns:
        if column.kind == "category":
            raise UsageError(
                f"column {column.name!r} is 'category', but gmm-bernoulli models 'real' and 'binary': "
                "make it one binary column for each category, or use a head for categories."
            )
    names = [column.name for column in columns if column.kind == "binary"]
    if len(names) == len(columns):
        raise UsageError(
            f"gmm-bernoulli needs a column of kind 'real', but has only {', '.join(names) or 'none'}: "
            "use a head for binary columns alone."
        )
    if len({REAL, *names}) <= len(names):
        raise UsageError(
            f"gmm-bernoulli got binary columns {', '.join(names)}: rename those of equal name and those named {REAL!r}."
        )
