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
from seqdens.static import static_gaussian

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
    assert found.sse_per_point == pytest.approx(dict.fromkeys(("mean", "heaviest"), squares.sum(1).mean()), rel=1e-5)


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
    assert found.terms_nats_per_point["lift"] == pytest.approx(-np.log(0.05))


@pytest.mark.parametrize("second", [np.zeros(9), 2 * np.arange(9), np.full(9, np.nan)])
def test_columns_without_a_density_are_refused(tmp_path: Path, second: np.ndarray) -> None:
    about = Provenance.of("flat", 1, {}, (P, Q), synthetic=True, sources="")
    data = write(tmp_path / "flat.h5", about, [Record("0", np.stack([np.arange(9.0), second], axis=1))])
    with pytest.raises(DataError, match="the real columns of flat have no Gaussian density over the training split"):
        static_gaussian(data)


def test_categories_are_refused(make: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="column 'digit' is 'category'"):
        static_gaussian(make((P, Column("digit", "category", 10))))
