"""The static Gaussian against scipy's maximum-likelihood fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import bernoulli, multivariate_normal

import seqdens
from seqdens.cache import Prepared, Provenance, write
from seqdens.datasets.base import STROKE_END, Column, Record, X, Y
from seqdens.errors import DataError, UsageError
from seqdens.static import gaussian, static_gaussian, statistics

P, Q = Column("p", "real"), Column("q", "real")
LIFT = Column("lift", "binary")


def rows(data: Prepared, split: Any) -> np.ndarray:
    return np.concatenate([data.offsets(record) for record in data.split(split)]).astype(float)


def real(data: Prepared, split: Any) -> np.ndarray:
    return rows(data, split)[:, [column.kind == "real" for column in data.columns]]


@pytest.mark.parametrize("columns", [(P,), (X, Y), (STROKE_END, X, LIFT, Y), (X, STROKE_END, P, Y, Q)])
def test_it_is_the_maximum_likelihood_fit(make: Callable[..., Any], columns: tuple[Column, ...]) -> None:
    data = make(columns)
    found = seqdens.measure(static_gaussian(data), data)
    mean, covariance = multivariate_normal.fit(real(data, "train"))
    gaussian = -multivariate_normal(mean, covariance).logpdf(real(data, "valid")).mean()
    binary = {column.name: i for i, column in enumerate(columns) if column.kind == "binary"}
    expected = {
        name: -bernoulli(rows(data, "train")[:, i].mean()).logpmf(rows(data, "valid")[:, i]).mean()
        for name, i in binary.items()
    }
    assert found.raw_nats_per_point == pytest.approx(gaussian + sum(expected.values()), rel=1e-5)
    assert found.nats_per_point == pytest.approx(found.raw_nats_per_point - np.log(data.std).sum(), rel=1e-5)
    assert found.terms_nats_per_point == pytest.approx({"real": gaussian - np.log(data.std).sum()} | expected, rel=1e-5)
    squares = ((real(data, "valid") - real(data, "train").mean(0)) / data.std) ** 2
    assert found.sse_per_point == pytest.approx({"mean": squares.sum(1).mean()}, rel=1e-5)


def test_it_speaks_in_the_units_of_another_model(make: Callable[..., Any], small: Callable[..., Any]) -> None:
    data, other = make(), small(make(seed=1))
    own, like = (seqdens.measure(model, data) for model in (static_gaussian(data), static_gaussian(data, like=other)))
    assert (own.mean, own.std) == (tuple(data.mean), tuple(data.std))
    assert (like.mean, like.std) == (tuple(other.mean), tuple(other.std))
    assert like.raw_nats_per_point == pytest.approx(own.raw_nats_per_point, rel=1e-5)
    assert like.nats_per_point == pytest.approx(like.raw_nats_per_point - np.log(other.std).sum(), rel=1e-5)


def test_squares_far_from_zero_do_not_cancel(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(1e6, 1.0, (500, 2))
    about = Provenance.of("far", 1, {}, (P, Q), synthetic=True, sources="")
    data = write(tmp_path / "far.h5", about, [Record("0", points), Record("1", points, "valid")])
    stored = rows(data, "train")
    expected = -multivariate_normal(*multivariate_normal.fit(stored)).logpdf(stored).mean()
    assert seqdens.measure(static_gaussian(data), data).raw_nats_per_point == pytest.approx(expected, rel=1e-3)


def test_what_training_never_showed_stays_possible(tmp_path: Path) -> None:
    about = Provenance.of("lifts", 1, {}, (P, LIFT), synthetic=True, sources="")
    down, up = (np.stack([np.arange(10.0), np.full(10, lift)], axis=1) for lift in (0, 1))
    records = [Record("0", down), Record("1", up, "valid")]
    found = seqdens.measure(static_gaussian(data := write(tmp_path / "l.h5", about, records)), data)
    assert found.terms_nats_per_point["lift"] == pytest.approx(-np.log(0.5 / 10.5))


@pytest.mark.parametrize("second", [np.zeros(9), 2 * np.arange(9), np.full(9, np.nan)])
def test_columns_without_a_density_are_refused(tmp_path: Path, second: np.ndarray) -> None:
    about = Provenance.of("flat", 1, {}, (P, Q), synthetic=True, sources="")
    data = write(tmp_path / "flat.h5", about, [Record("0", np.stack([np.arange(9.0), second], axis=1))])
    with pytest.raises(DataError, match="the real columns of flat have no Gaussian density over the training split"):
        static_gaussian(data)


COLOUR = Column("colour", "category", 4)


def test_categories_have_the_shares_of_training(make: Callable[..., Any]) -> None:
    data = make((P, COLOUR, LIFT), train=30, valid=9)
    found = seqdens.measure(static_gaussian(data), data)
    shares = np.bincount(rows(data, "train")[:, 1].astype(int), minlength=4) / len(rows(data, "train"))
    expected = -np.log(shares[rows(data, "valid")[:, 1].astype(int)]).mean()
    assert list(found.terms_nats_per_point) == ["real", "colour", "lift"]
    assert found.terms_nats_per_point["colour"] == pytest.approx(expected, rel=1e-5)


def test_categories_alone_need_no_gaussian(make: Callable[..., Any]) -> None:
    data = make((COLOUR,))
    found = seqdens.measure(static_gaussian(data), data)
    assert set(found.terms_nats_per_point) == {"colour"}
    assert (found.sse_per_point, found.share_at_floor) == ({}, None)


def with_gaps(tmp_path: Path, seed: int = 0) -> Prepared:
    """Correlated p and q, of which q is missing where p is large, and p now and then."""
    rng = np.random.default_rng(seed)
    points = rng.multivariate_normal([3, -5], [[4, 3], [3, 9]], 600)
    points[points[:, 0] > 4, 1] = np.nan
    points[rng.random(600) < 0.2, 0] = np.nan
    about = Provenance.of("gaps", 1, {}, (P, Q), synthetic=True, sources="")
    return write(tmp_path / "gaps.h5", about, [Record("0", points[:400]), Record("1", points[400:], "valid")])


def density(points: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Log-densities of rows, of the values that are not NaN."""
    found = np.zeros(len(points))
    for number, (point, there) in enumerate(zip(points, ~np.isnan(points), strict=True)):
        if there.any():
            found[number] = multivariate_normal(mean[there], covariance[np.ix_(there, there)]).logpdf(point[there])
    return found


def test_missing_values_are_marginalised(tmp_path: Path) -> None:
    data = with_gaps(tmp_path)
    sums, _ = statistics(data)
    mean, covariance = gaussian(sums, 2)
    mean, covariance = mean * data.std + data.mean, covariance * np.outer(data.std, data.std)
    found = seqdens.measure(static_gaussian(data), data)
    assert found.raw_nats_per_point == pytest.approx(-density(rows(data, "valid"), mean, covariance).mean(), rel=1e-4)


def test_no_gaussian_near_by_is_more_likely_for_training_with_gaps(tmp_path: Path) -> None:
    data = with_gaps(tmp_path)
    normalised = (rows(data, "train") - data.mean) / data.std
    sums, _ = statistics(data)
    mean, covariance = gaussian(sums, 2)
    best = density(normalised, mean, covariance).sum()
    for step in (-1e-2, 1e-2):
        for change in np.eye(2):
            assert density(normalised, mean + step * change, covariance).sum() < best
        for change in (np.diag([1, 0]), np.diag([0, 1]), 1 - np.eye(2)):
            assert density(normalised, mean, covariance + step * change).sum() < best


def test_draws_have_its_moments(make: Callable[..., Any]) -> None:
    data = make((P, COLOUR, Q, LIFT), train=30)
    drawn = static_gaussian(data).sample(1, steps=20_000, seed=1)[0].astype(float)
    training = rows(data, "train")
    np.testing.assert_allclose(drawn[:, [0, 2]].mean(0), training[:, [0, 2]].mean(0), atol=1)
    np.testing.assert_allclose(np.cov(drawn[:, [0, 2]].T), np.cov(training[:, [0, 2]].T), rtol=0.1, atol=20)
    for column, states in ((1, 4), (3, 2)):
        shares = [np.bincount(some[:, column].astype(int), minlength=states) / len(some) for some in (drawn, training)]
        np.testing.assert_allclose(*shares, atol=0.02)


def test_a_column_of_the_name_of_a_term_is_refused(make: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="calls the loss of the real columns 'real'"):
        static_gaussian(make((P, Column("real", "binary"))))


def test_without_training_records_there_is_none(make: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="made has no training records among 3"):
        static_gaussian(make(test=3))
