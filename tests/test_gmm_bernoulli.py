"""The mixture head against the equations of Graves (2013), against scipy, and against its own draws.

What every head is tested for is in test_contracts.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import Tensor

from seqdens.datasets.base import STROKE_END, Column, X, Y
from seqdens.errors import DataError, UsageError
from seqdens.heads import fused
from seqdens.heads.gmm_bernoulli import GMMBernoulli, MixtureBernoulli, correlate, whiten

XYE = (X, Y, STROKE_END)
Z = Column("z", "real")
LIFT = Column("lift", "binary")


def double(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distribution(outputs: Tensor, columns: tuple[Column, ...] = XYE, **options: Any) -> MixtureBernoulli:
    """The head's distributions for given output numbers (B, T, N), as many components as fit."""
    real = sum(column.kind == "real" for column in columns)
    binary = len(columns) - real
    components = (outputs.shape[-1] - binary) // (1 + 2 * real + real * (real - 1) // 2)
    head = GMMBernoulli(outputs.shape[-1], columns, components=components, **options).to(outputs.dtype)
    torch.nn.init.eye_(head.output.weight)
    torch.nn.init.zeros_(head.output.bias)
    return head.requires_grad_(False)(outputs)


def paper_density(outputs: np.ndarray, point: np.ndarray, components: int) -> float:
    """Eqs 18-25 for one point, in probability space; the output numbers in this project's order."""
    x1, x2, x3 = point
    pi_, mu, s, rho_, e = np.split(outputs, np.cumsum([1, 2, 2, 1]) * components)
    e = 1 / (1 + np.exp(-e[0]))  # Eq 18, with the logit's sign turned
    pi = np.exp(pi_) / np.exp(pi_).sum()  # Eq 19
    mu1, mu2 = mu.reshape(2, components)  # Eq 20
    sigma1, sigma2 = np.exp(s).reshape(2, components)  # Eq 21
    rho = np.tanh(rho_)  # Eq 22
    z = (
        (x1 - mu1) ** 2 / sigma1**2
        + (x2 - mu2) ** 2 / sigma2**2
        - 2 * rho * (x1 - mu1) * (x2 - mu2) / (sigma1 * sigma2)
    )  # Eq 25
    normal = np.exp(-z / (2 * (1 - rho**2))) / (2 * np.pi * sigma1 * sigma2 * np.sqrt(1 - rho**2))  # Eq 24
    return (pi * normal).sum() * (e if x3 == 1 else 1 - e)  # Eq 23


def line(length: int, seed: int = 1) -> Tensor:
    points = double(1, length, 3, seed=seed)
    points[..., 2] = (points[..., 2] > 0.5).double()
    return points


def covariances(dist: MixtureBernoulli) -> np.ndarray:
    """(K, R, R) of the first step, from the definition of a partial correlation as a Cholesky factor."""
    sigmas, r = dist.sigmas[0, 0].numpy(), dist.correlations[0, 0].numpy()
    size, components = sigmas.shape
    found = []
    for k in range(components):
        factor = np.zeros((size, size))
        for i in range(size):
            left = 1.0
            for j in range(i):
                partial = np.tanh(r[i * (i - 1) // 2 + j, k])
                factor[i, j] = partial * math.sqrt(left)
                left *= 1 - partial**2
            factor[i, i] = math.sqrt(left)
        scaled = sigmas[:, k, None] * factor
        found.append(scaled @ scaled.T)
    return np.stack(found)


def test_head_of_the_paper_has_121_outputs_and_its_parameters() -> None:
    head = GMMBernoulli(1200, XYE)
    assert head.output.out_features == 121
    assert sum(parameter.numel() for parameter in head.parameters()) == 145_321
    assert head.noise_size == 4


def test_density_is_the_papers() -> None:
    outputs, points = double(1, 30, 7 * 6 + 1) * 0.7, line(30)
    dist = distribution(outputs)
    expected = [
        paper_density(row, point, components=7)
        for row, point in zip(outputs[0].numpy(), points[0].numpy(), strict=True)
    ]
    torch.testing.assert_close(dist.log_prob(points)[0], torch.tensor(expected).double().log())
    assert -dist.log_prob(points).sum().item() == pytest.approx(-np.log(expected).sum())  # Eq 26


def test_terms_are_named_and_add_up() -> None:
    dist, points = distribution(double(2, 5, 13)), line(10).view(2, 5, 3)
    terms = dist.terms(points)
    assert list(terms) == ["real", "stroke_end"]
    torch.testing.assert_close(terms["real"] + terms["stroke_end"], dist.log_prob(points))
    probability = torch.where(points[..., 2] == 1, dist.mean()[..., 2], 1 - dist.mean()[..., 2])
    torch.testing.assert_close(terms["stroke_end"].exp(), probability)


@pytest.mark.parametrize("columns", [(X,), (X, Y), (X, Y, Z), (X, Y, Z, Column("w", "real"))])
def test_density_is_scipys(columns: tuple[Column, ...]) -> None:
    size, components = len(columns), 4
    outputs = double(1, 1, components * (1 + 2 * size + size * (size - 1) // 2)) * 0.8
    dist, points = distribution(outputs, columns), double(6, 1, 1, size, seed=3)
    each = [
        multivariate_normal(dist.means[0, 0, :, k], covariance).logpdf(points.reshape(6, size))
        for k, covariance in enumerate(covariances(dist))
    ]
    expected = logsumexp(each, axis=0, b=dist.weights[0, 0].numpy()[:, None])
    found = torch.stack([dist.log_prob(point) for point in points]).flatten()
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@settings(deadline=None, max_examples=40)
@given(
    kinds=st.lists(st.sampled_from(["real", "binary"]), min_size=1, max_size=6).filter(lambda k: "real" in k),
    components=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_any_columns_and_components(kinds: list[str], components: int, seed: int) -> None:
    columns = tuple(Column(f"c{i}", kind) for i, kind in enumerate(kinds))  # type: ignore[arg-type]
    head = GMMBernoulli(3, columns, components=components).double()
    dist = head(double(2, 4, 3, seed=seed))
    drawn = dist.sample(uniform(2, 4, head.noise_size, seed=seed))
    assert drawn.shape == dist.mean().shape == dist.heaviest_mean().shape == (2, 4, len(kinds))
    assert set(dist.terms(drawn)) == {"real"} | {c.name for c in columns if c.kind == "binary"}
    assert dist.log_prob(drawn).shape == (2, 4)
    assert dist.log_prob(drawn).isfinite().all()
    for place, kind in enumerate(kinds):
        assert kind == "real" or set(drawn[..., place].unique().tolist()) <= {0.0, 1.0}


@settings(deadline=None, max_examples=40)
@given(size=st.integers(1, 5), seed=st.integers(0, 1000), scale=st.floats(0, 3))
def test_whitening_undoes_correlating(size: int, seed: int, scale: float) -> None:
    normals = double(7, size, seed=seed)
    r = scale * double(7, size * (size - 1) // 2, seed=seed + 1)
    again = whiten(correlate(normals, r).unsqueeze(-1), r.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(again, normals, rtol=1e-4, atol=1e-5)


def test_columns_interleave() -> None:
    columns = (STROKE_END, X, LIFT, Y)
    outputs = double(1, 6, 20)
    outputs[..., -2:] = torch.tensor([30.0, -30.0])
    dist = distribution(outputs, columns)
    points = torch.cat((torch.ones(1, 6, 1), double(1, 6, 1), torch.zeros(1, 6, 1), double(1, 6, 1, seed=1)), -1)
    plain = distribution(outputs[..., :-1], XYE)
    torch.testing.assert_close(dist.log_prob(points), plain.log_prob(points[..., [1, 3, 0]]))
    torch.testing.assert_close(dist.mean()[..., [1, 3, 0]], plain.mean())
    drawn = dist.sample(uniform(1, 6, 5))
    assert (drawn[..., 0] == 1).all()
    assert (drawn[..., 2] == 0).all()
    torch.testing.assert_close(drawn[..., [1, 3, 0]], plain.sample(uniform(1, 6, 5)[..., :4]))


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("far", [0.1, 1e3])
@pytest.mark.parametrize("r", [-8.0, 0.0, 8.0])
@pytest.mark.parametrize("s", [math.log(1e-3), 0.0, math.log(1e3)])
def test_float32_is_safe_at_extremes(
    s: float, r: float, far: float, enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "enabled", enabled)
    outputs = double(1, 8, 4 * 6 + 1) * 0.3
    outputs[..., 12:20] += s
    outputs[..., 20:24] += r
    points = line(8)
    points[..., :2] *= far
    single, exact = outputs.float().requires_grad_(), outputs.float().double().requires_grad_()
    found, expected = (
        distribution(outputs, output_clip=0.0).log_prob(points.float().to(outputs.dtype)) for outputs in (single, exact)
    )
    found.sum().backward()
    expected.sum().backward()
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)
    assert single.grad is not None
    assert exact.grad is not None
    largest = exact.grad.abs().max().item()
    torch.testing.assert_close(single.grad.double(), exact.grad, rtol=1e-2, atol=1e-3 * largest)


def test_derivatives_are_right() -> None:
    points = torch.cat((double(2, 2, 3, seed=5), torch.ones(2, 2, 1)), -1)

    def log_prob(outputs: Tensor) -> Tensor:
        return distribution(outputs, (X, Y, Z, LIFT), output_clip=0.0, sigma_floor=0.1).log_prob(points)

    assert torch.autograd.gradcheck(log_prob, double(2, 2, 21).requires_grad_())


def output_derivatives(clip: float) -> Tensor:
    head = GMMBernoulli(3, XYE, components=2, output_clip=clip).double()
    torch.nn.init.zeros_(head.output.weight)
    head.output.bias.data.copy_(double(13))
    points = torch.tensor([[[40.0, -30.0, 1.0]]]).double()
    (-head(torch.zeros(1, 1, 3).double()).log_prob(points)).sum().backward()
    assert head.output.bias.grad is not None
    return head.output.bias.grad


def test_output_derivatives_are_clipped() -> None:
    free = output_derivatives(0.0)
    assert free.abs().max() > 100 > free.abs().min()
    torch.testing.assert_close(output_derivatives(100.0), free.clamp(-100, 100))
    torch.testing.assert_close(output_derivatives(1e9), free)


def test_sigma_floor() -> None:
    outputs = double(1, 5, 13) * 5
    plain, floored = (distribution(outputs, sigma_floor=floor) for floor in (0.0, 0.025))
    torch.testing.assert_close(plain.sigmas.flatten(-2), outputs[..., 6:10].exp())
    torch.testing.assert_close(floored.sigmas, plain.sigmas + 0.025)


def test_autocast_leaves_the_distribution_in_float32() -> None:
    torch.manual_seed(0)
    head, features = GMMBernoulli(8, XYE, components=3), double(2, 5, 8).float()
    points = line(10).view(2, 5, 3).float()
    with torch.autocast("cpu", torch.bfloat16):
        dist = head(features)
        found = dist.log_prob(points)
    assert {dist.means.dtype, dist.log_sigmas.dtype, dist.correlations.dtype, found.dtype} == {torch.float32}
    torch.testing.assert_close(found, dist.log_prob(points))
    torch.testing.assert_close(found, head(features).log_prob(points), rtol=0.05, atol=0.1)


def test_untrained_head_is_near_a_unit_normal() -> None:
    torch.manual_seed(0)
    head = GMMBernoulli(1200, XYE)
    dist, points = head(0.2 * double(4, 50, 1200).float()), line(200).view(4, 50, 3).float()
    assert dist.sigmas.log().abs().max() < 1
    assert dist.means.std(-1).min() > 0.1
    assert 2 < -dist.log_prob(points).mean() < 5


def test_predictions_are_the_mean_and_that_of_the_heaviest_component() -> None:
    dist = distribution(double(2, 4, 25))
    found = dist.predictions()
    assert list(found) == ["mean", "heaviest"]
    assert torch.equal(found["mean"], dist.mean())
    heaviest = dist.weights.argmax(-1)
    for b, t in np.ndindex(2, 4):
        assert torch.equal(found["heaviest"][b, t, :2], dist.means[b, t, :, heaviest[b, t]])


def test_sigmas_are_those_of_the_component_most_responsible() -> None:
    chosen = set()
    for outputs, point in zip(double(30, 1, 1, 19) * 2, line(30)[0], strict=True):
        dist = distribution(outputs)
        weights, means = dist.weights[0, 0], dist.means[0, 0]
        shares = [
            weights[k] * multivariate_normal(means[:, k], covariance).pdf(point[:2])
            for k, covariance in enumerate(covariances(dist))
        ]
        responsible = int(np.argmax(shares))
        torch.testing.assert_close(dist.sigmas_at(point.view(1, 1, 3))[0, 0], dist.sigmas[0, 0, :, responsible])
        chosen.add(responsible)
    assert chosen == {0, 1, 2}


@settings(deadline=None, max_examples=30)
@given(size=st.integers(1, 5), components=st.integers(1, 3), seed=st.integers(0, 99), floor=st.sampled_from([0, 0.01]))
def test_a_head_can_be_set_to_one_gaussian(size: int, components: int, seed: int, floor: float) -> None:
    root, mean = double(size, size, seed=seed), double(size, seed=seed + 1)
    covariance = root @ root.T + 0.01 * torch.eye(size).double()
    columns = (LIFT, *(Column(f"x{i}", "real") for i in range(size)))
    head = GMMBernoulli(4, columns, components=components, sigma_floor=floor).double()
    head.set_gaussian(mean, covariance, torch.tensor([0.2]).double())
    points = double(1, 6, 1 + size, seed=seed + 2)
    points[..., 0] = torch.tensor([0, 1, 0, 1, 0, 1])
    terms = head(double(1, 6, 4)).terms(points)
    expected = multivariate_normal(mean, covariance).logpdf(points[0, :, 1:].reshape(6, size))
    np.testing.assert_allclose(terms["real"][0].detach(), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(terms["lift"][0].exp().detach(), [0.8, 0.2] * 3)


def test_moments_of_draws() -> None:
    outputs = double(1, 1, 3 * 10 + 1) * 0.6
    dist = distribution(outputs, (X, Y, Z, LIFT))
    drawn = distribution(outputs.expand(1, 200_000, -1), dist.columns).sample(uniform(1, 200_000, 5))[0]
    np.testing.assert_allclose(drawn.mean(0), dist.mean()[0, 0], atol=0.02)
    weights, means = dist.weights[0, 0].numpy(), dist.means[0, 0].numpy()
    within = np.einsum("k,kij->ij", weights, covariances(dist))
    between = np.cov(means, aweights=weights, ddof=0)
    np.testing.assert_allclose(np.cov(drawn[:, :3].T), within + between, atol=0.05)


def test_bias_draws_near_the_heaviest_component_and_leaves_binaries() -> None:
    outputs = double(1, 400, 25)
    outputs[..., 0] = outputs[..., :4].amax(-1) + 1
    dist, noise = distribution(outputs), uniform(1, 400, 4)
    plain, biased = dist.sample(noise), dist.sample(noise, bias=20.0)
    torch.testing.assert_close(biased[..., :2], dist.heaviest_mean()[..., :2], rtol=0, atol=1e-5)
    assert (plain[..., :2] - biased[..., :2]).abs().mean() > 0.5
    assert torch.equal(plain[..., 2], biased[..., 2])
    assert 0 < plain[..., 2].mean() < 1


def test_bias_scales_sigma_and_sharpens_weights() -> None:
    one = distribution(double(1, 1, 7))
    noise = uniform(1, 1, 4)
    deviation = one.sample(noise)[..., :2] - one.mean()[..., :2]
    torch.testing.assert_close(one.sample(noise, bias=0.7)[..., :2] - one.mean()[..., :2], deviation * math.exp(-0.7))
    narrow = torch.tensor([0.4, 0.0, -3.0, 3.0, -30.0, -30.0]).double().expand(1, 20_000, 6)
    drawn = distribution(narrow, (X,)).sample(uniform(1, 20_000, 2), bias=1.0)
    assert (drawn < 0).double().mean().item() == pytest.approx(1 / (1 + math.exp(-0.8)), abs=0.01)


def test_draws_of_a_noise_of_one_are_finite() -> None:
    assert distribution(double(2, 3, 25).float()).sample(torch.ones(2, 3, 4)).isfinite().all()


@pytest.mark.parametrize(
    ("logits", "uniform", "component"),
    [((0, 0), 0.0, 0), ((0, 0), 1.0, 1), ((0, -200), 1.0, 0), ((-200, 0), 0.0, 1)],
)
def test_ends_of_the_noise_draw_a_component_that_has_weight(
    logits: tuple[float, float], uniform: float, component: int
) -> None:
    outputs = torch.tensor([*logits, 0.0, 100.0, 0.0, 0.0]).expand(1, 1, 6)
    drawn = distribution(outputs, (X,)).sample(torch.tensor([[[uniform, 0.5]]]))
    assert drawn.item() == pytest.approx(100 * component)


def test_maximum_likelihood_recovers_the_mixture() -> None:
    truth = torch.tensor([0.4, -0.4, -2.0, 2.0, 1.0, -1.0, -0.5, 0.3, 0.2, -0.6, 0.8, -0.5, -1.0], dtype=torch.float64)
    many = 4000
    points = distribution(truth.expand(1, many, 13)).sample(uniform(1, many, 4))
    found = torch.tensor([0, 0, -0.5, 0.5, 0, 0, 0, 0, 0, 0, 0, 0, 0], dtype=torch.float64).requires_grad_()
    optimiser = torch.optim.LBFGS([found], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = -distribution(found.expand(1, many, 13), output_clip=0.0).log_prob(points).mean()
        value.backward()
        return value

    optimiser.step(loss)
    fitted, true = (distribution(outputs.detach().view(1, 1, 13)) for outputs in (found, truth))
    torch.testing.assert_close(fitted.weights, true.weights, rtol=0, atol=0.05)
    torch.testing.assert_close(fitted.means, true.means, rtol=0, atol=0.1)
    torch.testing.assert_close(fitted.log_sigmas, true.log_sigmas, rtol=0, atol=0.1)
    torch.testing.assert_close(fitted.correlations, true.correlations, rtol=0, atol=0.1)
    torch.testing.assert_close(fitted.binary_logits, true.binary_logits, rtol=0, atol=0.15)


def test_missing_values_are_refused_by_name() -> None:
    points = line(4)
    points[0, 2, 1] = math.nan
    with pytest.raises(DataError, match="'y' holds NaN"):
        distribution(double(1, 4, 13)).log_prob(points)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ((X, Column("digit", "category", size=10)), "'digit' is 'category'"),
        ((STROKE_END, LIFT), "needs a column of kind 'real', but has only stroke_end, lift"),
        ((), "but has only none"),
        ((X, LIFT, LIFT), "binary columns lift, lift"),
        ((X, Column("real", "binary")), "named 'real'"),
    ],
)
def test_columns_it_cannot_model_are_refused(columns: tuple[Column, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        GMMBernoulli(3, columns)


@pytest.mark.parametrize("bias", [-0.1, math.nan])
def test_negative_bias_is_refused(bias: float) -> None:
    with pytest.raises(UsageError, match=r"bias is .*0 \(unbiased\) or more"):
        distribution(double(1, 1, 13)).sample(uniform(1, 1, 4), bias=bias)
