"""The mixture's densities against scipy, above all where values are missing."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from seqdens_timeseries.categorical import Softmaxes
from seqdens_timeseries.gmm import GMM, Mixture, colour, whiten, whiten_observed

import seqdens
from seqdens import Column, UsageError
from seqdens.testing import HeadContract

X, Y, Z = (Column(name, "real") for name in "xyz")
COLOUR, LIFT = Column("colour", "category", 3), Column("lift", "binary")


class TestContract(HeadContract):
    head = seqdens.head("gmm", components=3)
    column_sets = ((X,), (X, Y), (LIFT, X, COLOUR, Y))
    impossible = (
        ("components", 0),
        ("output_clip", -1.0),
        ("sigma_floor", -0.1),
        ("sigma_floor", float("nan")),
        ("sigma_floor", float("inf")),
    )
    tolerance = 1e-6


class TestThreeColumns(HeadContract):
    head = seqdens.head("gmm", components=2, sigma_floor=0.1)
    column_sets = ((X, LIFT, Y, Z),)


def mixture(size: int, components: int = 3, steps: int = 1, seed: int = 0, spread: float = 1.0) -> Mixture:
    """At random, of `size` real columns."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> torch.Tensor:
        return spread * torch.randn(1, 1, *shape, generator=generator, dtype=torch.float64).expand(1, steps, *shape)

    columns = tuple(Column(f"c{index}", "real") for index in range(size))
    parts = (numbers(components, count) for count in (size, size, size * (size - 1) // 2))
    return Mixture(columns, numbers(components), *parts, Softmaxes((), ()))


def covariances(dist: Mixture) -> np.ndarray:
    """(K, R, R), from the definition."""
    size = dist.means.shape[-1]
    factors = torch.eye(size, dtype=torch.float64).repeat(dist.means.shape[-2], 1, 1)
    below = torch.tril_indices(size, size, -1)
    factors[:, below[0], below[1]] = dist.slopes[0, 0]
    factors = dist.log_scales[0, 0].exp().unsqueeze(-1) * factors
    return (factors @ factors.mT).numpy()


def expected_log_density(dist: Mixture, x: np.ndarray) -> float:
    """By scipy, of the values that are not NaN."""
    there = ~np.isnan(x)
    logs = [
        weight + (multivariate_normal(mean[there], cov[np.ix_(there, there)]).logpdf(x[there]) if there.any() else 0)
        for weight, mean, cov in zip(
            dist.weight_logits[0, 0].log_softmax(-1).numpy(), dist.means[0, 0].numpy(), covariances(dist), strict=True
        )
    ]
    return float(logsumexp(logs))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_density_of_each_pattern_of_missing_values_is_that_of_scipy(size: int) -> None:
    x = np.random.default_rng(size).normal(0, 2, size)
    patterns = list(product([False, True], repeat=size))
    targets = np.where(patterns, np.nan, x)
    found = mixture(size, steps=len(patterns)).log_prob(torch.from_numpy(targets).unsqueeze(0))[0]
    expected = [expected_log_density(mixture(size), point) for point in targets]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 6), seed=st.integers(0, 10**6), data=st.data())
def test_any_mixture_is_that_of_scipy(size: int, seed: int, data: st.DataObject) -> None:
    missing = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    x = np.where(missing, np.nan, np.random.default_rng(seed).normal(0, 2, size))
    dist = mixture(size, seed=seed)
    found = dist.log_prob(torch.from_numpy(x).view(1, 1, -1)).item()
    assert found == pytest.approx(expected_log_density(dist, x), rel=1e-6, abs=1e-9)


def test_nothing_observed_has_density_one() -> None:
    assert mixture(3).log_prob(torch.full((1, 1, 3), torch.nan, dtype=torch.float64)).item() == pytest.approx(0)


def test_both_ways_to_whiten_agree_where_nothing_is_missing() -> None:
    dist = mixture(5, spread=2.0)
    z = torch.randn(1, 1, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    normals, log_norms = whiten_observed(z, dist.slopes, torch.ones(5, dtype=torch.bool))
    torch.testing.assert_close(normals, whiten(z, dist.slopes))
    torch.testing.assert_close(log_norms, torch.zeros_like(z))
    torch.testing.assert_close(colour(normals, dist.slopes), z)


def test_a_missing_value_in_one_record_changes_no_other() -> None:
    dist = mixture(3, steps=4)
    targets = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = dist.log_prob(targets)
    targets[0, 2, 1] = torch.nan
    found = dist.log_prob(targets)
    torch.testing.assert_close(found[0, [0, 1, 3]], whole[0, [0, 1, 3]])
    assert found[0, 2] != whole[0, 2]


@pytest.mark.parametrize("slope", [1e3, -1e5])
def test_nearly_dependent_columns_keep_their_precision(slope: float) -> None:
    """In float32, with the first of three columns missing and the others correlated by almost 1."""
    slopes = torch.tensor([slope, slope, 0.5])
    parts = (torch.zeros(1), torch.zeros(1, 3), torch.zeros(1, 3), slopes.unsqueeze(0))
    logits, means, scales, rows = (part.view(1, 1, *part.shape) for part in parts)
    x = torch.tensor([[[torch.nan, slope, slope + 0.7]]])
    single = Mixture((X, Y, Z), logits, means, scales, rows, Softmaxes((), ()))
    double = Mixture((X, Y, Z), *(part.double() for part in (logits, means, scales, rows)), Softmaxes((), ()))
    assert single.log_prob(x).item() == pytest.approx(double.log_prob(x.double()).item(), abs=0.1)


def test_gradients_are_those_of_finite_differences() -> None:
    dist = mixture(3, components=2)
    x = torch.tensor([[[0.3, torch.nan, -0.7]]], dtype=torch.float64)
    leaves = [part.clone().requires_grad_() for part in (dist.weight_logits, dist.means, dist.log_scales, dist.slopes)]
    assert torch.autograd.gradcheck(lambda *parts: Mixture(dist.columns, *parts, dist.states).log_prob(x), leaves)


def test_draws_have_mean_and_covariance() -> None:
    dist = mixture(3, steps=200_000)
    noise = torch.rand(1, 200_000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = dist.sample(noise)[0].numpy()
    weights, means = dist.weights[0, 0].numpy(), dist.means[0, 0].numpy()
    mean = weights @ means
    centred = means - mean
    covariance = np.einsum("k,kij->ij", weights, covariances(dist) + centred[:, :, None] * centred[:, None, :])
    np.testing.assert_allclose(dist.mean()[0, 0].numpy(), mean)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.03)
    np.testing.assert_allclose(np.cov(drawn.T), covariance, rtol=0.03, atol=0.03)


def test_a_bias_narrows_every_component() -> None:
    dist = mixture(2, components=1, steps=5000)
    noise = torch.rand(1, 5000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fair, biased = (dist.sample(noise, bias) - dist.means[..., 0, :] for bias in (0.0, 1.0))
    torch.testing.assert_close(biased, fair * np.exp(-1))


def test_sigmas_are_those_of_the_most_responsible_component() -> None:
    dist = mixture(3)
    sigmas = np.sqrt(np.diagonal(covariances(dist), axis1=1, axis2=2))
    np.testing.assert_allclose(dist.sigmas[0, 0].numpy(), sigmas)
    for component in range(3):
        found = dist.sigmas_at(dist.means[:, :, component])[0, 0].numpy()
        responsible = np.argmax(
            [w + multivariate_normal(m, c).logpdf(dist.means[0, 0, component]) for w, m, c in components_of(dist)]
        )
        np.testing.assert_allclose(found, sigmas[responsible])


def components_of(dist: Mixture) -> list[tuple[float, np.ndarray, np.ndarray]]:
    logs = dist.weight_logits[0, 0].log_softmax(-1).tolist()
    return list(zip(logs, dist.means[0, 0].numpy(), covariances(dist), strict=True))


def test_derivatives_are_clipped_at_the_outputs() -> None:
    head = GMM(4, (X, Y), components=2, output_clip=1e-3)
    head(torch.ones(1, 1, 4)).log_prob(torch.full((1, 1, 2), 50.0)).sum().backward()
    assert head.output.bias.grad.abs().max().item() == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((LIFT, COLOUR), "gmm needs a column of kind 'real', but has only lift, colour: use categorical"),
        ((X, X), "two columns named 'x'"),
        ((X, Column("real", "binary")), "rename the other column"),
        ((), "needs a column"),
    ],
)
def test_columns_it_cannot_model_are_refused(columns: tuple[Column, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        GMM(4, columns)


def test_as_many_outputs_as_the_formula() -> None:
    head = GMM(4, (X, LIFT, Y, COLOUR, Z), components=7)
    assert head.output.out_features == 7 * (1 + 3 + 3 + 3) + 2 + 3
