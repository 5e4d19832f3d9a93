"""The likelihood of whole records, and measures against their definitions in numpy and scipy."""

import math
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal as normal
from scipy.stats import norm
from torch import Tensor

import seqdens
from seqdens.batches import collate, evaluation_batches
from seqdens.cache import Prepared, Provenance, write
from seqdens.datasets.base import SPLITS, STROKE_END, Column, Record, X
from seqdens.errors import DataError, UsageError
from seqdens.evaluation import Likelihood, dequantisation, evaluate
from seqdens.heads.base import Distribution
from seqdens.heads.gmm_bernoulli import GMMBernoulli, MixtureBernoulli
from seqdens.model import SequenceModel
from seqdens.static import static_gaussian

COLUMNS = (Column("y", "real"), STROKE_END, Column("x", "real"))


@pytest.fixture
def data(make: Callable[..., Any]) -> Any:
    return make()


def test_totals_are_those_of_the_records_one_by_one(data: Any, small: Callable[..., Any]) -> None:
    model = small(data)
    records = data.split("train")
    one_by_one = [model(collate(data, np.array([record]))) for record in records]
    for batch_size in (1, 3, 100):
        found = evaluate(model, evaluation_batches(data, records, batch_size))
        assert found.nats == pytest.approx(sum(loss.nats.sum().item() for loss in one_by_one), rel=1e-5)
        assert (found.points, found.records) == (data.lengths_of(records).sum(), len(records))
        assert set(found.terms) == {"real", "stroke_end"}
        for name, nats in found.terms.items():
            assert nats == pytest.approx(sum(loss.terms[name].sum().item() for loss in one_by_one), rel=1e-5)
        assert sum(found.terms.values()) == pytest.approx(found.nats)


def test_metrics_are_per_point_and_per_record() -> None:
    found = Likelihood(nats=12.0, points=8, records=3)
    assert found.metrics("valid") == {"valid_nats_per_point": 1.5, "valid_nats_per_record": 4.0}
    assert Likelihood().metrics("valid") == {"valid_nats_per_point": 0.0, "valid_nats_per_record": 0.0}


def test_totals_are_accumulated_in_double_precision(data: Any, small: Callable[..., Any]) -> None:
    model = small(data)
    batch = collate(data, np.arange(2))
    loss = model(batch)
    found = Likelihood(nats=1e9)
    found.add(loss._replace(nats=torch.full_like(loss.nats, 1e-3)), batch)
    assert found.nats - 1e9 == pytest.approx(1e-3 * loss.nats.numel(), rel=1e-3)


def test_evaluating_leaves_no_trace(data: Any, small: Callable[..., Any]) -> None:
    model = small(data).train()
    model.head.eval()
    modes: list[tuple[bool, bool]] = []
    model.encoder.register_forward_pre_hook(
        lambda module, inputs: modes.append((module.training, torch.is_grad_enabled()))
    )
    evaluate(model, evaluation_batches(data, data.split("valid"), 2))
    assert modes == [(False, False)] * 2
    assert (model.training, model.encoder.training, model.head.training) == (True, True, False)
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(RuntimeError, match="stop"):
        evaluate(model, failing())
    assert model.training


def failing() -> Any:
    raise RuntimeError("stop")
    yield


def whole(tmp_path: Path, count: int = 6, longest: int = 9, reverse: bool = False) -> Prepared:
    """Records of whole numbers, of two splits: columns y, stroke_end, x in an order of their own."""
    rng = np.random.default_rng(3)
    records = [
        Record(
            f"{split}-{number}",
            np.stack([rng.integers(-30, 40, steps), rng.integers(0, 2, steps), rng.integers(-9, 9, steps)], axis=1),
            split,
        )
        for split in SPLITS[:2]
        for number in range(count)
        for steps in [rng.integers(1, longest, endpoint=True)]
    ]
    about = Provenance.of("whole", 1, {}, COLUMNS, synthetic=False, sources="", record_name="line")
    return write(tmp_path / f"{count} {reverse}.h5", about, records[::-1] if reverse else records)


def by_hand(model: SequenceModel, data: Prepared, record: int) -> dict[str, np.ndarray]:
    """Of each point of a record, from the definitions, in numpy and scipy: nats, raw nats, squared errors, sigmas."""
    batch = collate(data, np.array([record]))
    dist = cast(MixtureBernoulli, model.predict(batch))
    raw = data.offsets(record).astype(float)
    mean, std = np.array(model.mean), np.array(model.std)
    x, lift = (raw[:, [0, 2]] - mean) / std, raw[:, 1]
    weights, mu, sigma = (part[0].detach().double().numpy() for part in (dist.weights, dist.means, dist.sigmas))
    rho = np.tanh(dist.correlations[0, :, 0].detach().double().numpy())
    up = 1 / (1 + np.exp(-dist.binary_logits[0, :, 0].detach().double().numpy()))
    bernoulli = -np.log(np.where(lift == 1, up, 1 - up))
    found: dict[str, list[Any]] = {name: [] for name in ("nats", "raw", "mean", "heaviest", "sigmas")}
    for t in range(len(x)):
        correlation = [np.array([[1, r], [r, 1]]) for r in rho[t]]
        scales = [np.outer(sigma[t, :, k], sigma[t, :, k]) for k in range(2)]
        parts = [weights[t, k] * normal(mu[t, :, k], scales[k] * correlation[k]).pdf(x[t]) for k in range(2)]
        in_raw_units = [
            weights[t, k]
            * normal(mu[t, :, k] * std + mean, scales[k] * correlation[k] * np.outer(std, std)).pdf(raw[t, [0, 2]])
            for k in range(2)
        ]
        found["nats"].append(bernoulli[t] - np.log(sum(parts)))
        found["raw"].append(bernoulli[t] - np.log(sum(in_raw_units)))
        found["mean"].append(((mu[t] @ weights[t] - x[t]) ** 2).sum())
        found["heaviest"].append(((mu[t, :, weights[t].argmax()] - x[t]) ** 2).sum())
        found["sigmas"].append(sigma[t, :, np.argmax(parts)])
    return {"bernoulli": bernoulli} | {name: np.array(values) for name, values in found.items()}


def test_measures_are_those_of_their_definitions(tmp_path: Path, small: Callable[..., Any]) -> None:
    data = whole(tmp_path)
    model = small(data)
    model.head.sigma_floor = 0.5
    model.head.output.bias.data.split(model.head.sizes)[2][::2] = -8  # of the first of two components
    each = [by_hand(model, data, record) for record in data.split("valid")]
    total = {name: sum(record[name].sum() for record in each) for name in each[0]}
    points = np.concatenate([record["sigmas"] for record in each])
    found = seqdens.measure(model, data)
    assert (found.dataset, found.split, found.record_name) == ("whole", "valid", "line")
    assert (found.records, found.points) == (6, len(points))
    assert found.points_per_record == found.points / 6
    assert (found.mean, found.std) == (tuple(data.mean), tuple(data.std))
    assert (found.real_columns, found.observed) == (("y", "x"), (1.0, 1.0))
    assert found.exact
    assert not found.synthetic
    assert found.nats_per_record == pytest.approx(total["nats"] / 6, rel=1e-5)
    assert found.nats_per_point == pytest.approx(total["nats"] / len(points), rel=1e-5)
    assert found.raw_nats_per_point == pytest.approx(total["raw"] / len(points), rel=1e-5)
    assert found.terms_nats_per_record["stroke_end"] == pytest.approx(total["bernoulli"] / 6, rel=1e-5)
    assert sum(found.terms_nats_per_point.values()) == pytest.approx(found.nats_per_point)
    assert list(found.sse_per_point) == ["mean", "heaviest"]
    for name, squares in found.sse_per_point.items():
        assert squares == pytest.approx(total[name] / len(points), rel=1e-5)
    assert found.floor == pytest.approx([0.505, 0.505])
    assert found.share_at_floor == (points <= 0.505).any(1).mean()
    assert 0 < found.share_at_floor < 1


def test_a_sigma_below_the_distance_of_whole_numbers_is_at_the_floor(tmp_path: Path, small: Callable[..., Any]) -> None:
    data = whole(tmp_path)
    model = small(data)
    found = seqdens.measure(model, data)
    assert found.floor == pytest.approx(1 / data.std)
    sigmas = np.concatenate([by_hand(model, data, record)["sigmas"] for record in data.split("valid")])
    assert found.share_at_floor == (sigmas <= found.floor).any(1).mean() == 0
    model.std = [0.5, 0.5]
    model.scale[[0, 2]] = 0.5
    assert seqdens.measure(model, data).share_at_floor == 1


def test_raw_units_add_the_logarithm_of_the_scaling(data: Any, small: Callable[..., Any]) -> None:
    found = seqdens.measure(small(data), data)
    assert found.raw_nats_per_point - found.nats_per_point == pytest.approx(np.log(data.std).sum(), rel=1e-5)


def near(value: Any, relative: float) -> Any:
    """What is near `value`, if it is a number or some."""
    return value if isinstance(value, str) or value == ("y", "x") else pytest.approx(value, rel=relative)


def test_neither_batch_size_nor_order_matters(tmp_path: Path, small: Callable[..., Any]) -> None:
    data = whole(tmp_path)
    model = small(data)
    expected = asdict(seqdens.measure(model, data, batch_size=1))
    for batch_size in (2, 5, 100):
        found = asdict(seqdens.measure(model, data, batch_size=batch_size))
        for name, value in expected.items():
            assert found[name] == (
                value if isinstance(value, str) or name == "real_columns" else pytest.approx(value, rel=1e-5)
            ), name
    other_way = asdict(seqdens.measure(model, whole(tmp_path, reverse=True)))
    for name, value in expected.items():
        if name != "bits_per_point":  # whose noise is that of a record's place
            assert other_way[name] == (
                value if isinstance(value, str) or name == "real_columns" else pytest.approx(value, rel=1e-4)
            ), name
    assert other_way["bits_per_point"] == pytest.approx(expected["bits_per_point"], abs=0.1)


def one_column(tmp_path: Path, train: np.ndarray, valid: np.ndarray | None = None) -> Prepared:
    """A data set of whole numbers in one column, by default the same to train and to validate."""
    about = Provenance.of("one", 1, {}, (Column("v", "real"),), synthetic=False, sources="")
    values = {"train": train, "valid": train if valid is None else valid}
    records = [Record(split, values[split][:, None].astype(int), split) for split in SPLITS[:2]]
    return write(tmp_path / "one.h5", about, records)


@pytest.mark.parametrize("spread", [0.6, 3.0, 50.0])
def test_bits_are_those_of_noisy_values_and_bound_those_of_whole_numbers(tmp_path: Path, spread: float) -> None:
    data = one_column(tmp_path, np.random.default_rng(0).normal(7, spread, 20_000).round())
    found = seqdens.measure(static_gaussian(data), data)
    v, mean, std = data.offsets(0)[:, 0].astype(float), data.mean[0], data.std[0]
    square = ((v - mean) ** 2 + 1 / 12) / std**2  # whose mean over the noise is known
    expected = (0.5 * square + math.log(std * math.sqrt(2 * math.pi))).mean() / math.log(2)
    discrete = -np.log2(norm.cdf(v + 0.5, mean, std) - norm.cdf(v - 0.5, mean, std)).mean()
    assert found.bits_per_point == pytest.approx(expected, abs=0.01)
    assert found.bits_per_point is not None
    assert found.bits_per_point > discrete - 0.01
    assert found.bits_per_point == pytest.approx(discrete, abs=0.01 if spread > 1 else 0.2)


def test_a_spike_on_a_whole_number_wins_nats_and_no_bits(tmp_path: Path) -> None:
    data = one_column(tmp_path, np.array([0, 1]), valid=np.zeros(20))
    model = SequenceModel.for_data(data, seqdens.encoder("memoryless"), seqdens.head("gmm-bernoulli", components=1))
    where_zero_is = torch.tensor([-1.0])
    cast(GMMBernoulli, model.head).set_gaussian(where_zero_is, torch.full((1, 1), 1e-8), torch.empty(0))
    found = seqdens.measure(model, data)
    assert found.raw_nats_per_point < -8
    assert found.share_at_floor == 1
    assert found.bits_per_point is not None
    assert found.bits_per_point > 1000


def test_the_noise_belongs_to_record_and_step(tmp_path: Path) -> None:
    data = whole(tmp_path)
    together = collate(data, np.array([0, 3, 5]))
    noise = dequantisation(together, 2)
    for row, (record, length) in enumerate(zip(together.records, together.lengths, strict=True)):
        alone = dequantisation(collate(data, np.array([record])), 2)
        assert torch.equal(noise[row, :length], alone[0])
        assert not noise[row, length:].any()
    many = dequantisation(collate(one_column(tmp_path, np.zeros(50_000)), np.array([0])), 1)
    assert -0.5 <= many.min() < -0.499
    assert 0.499 < many.max() < 0.5
    assert many.mean().item() == pytest.approx(0, abs=0.01)
    assert many.var().item() == pytest.approx(1 / 12, abs=0.001)


def test_fractions_have_neither_bits_nor_a_floor_of_their_own(data: Any, small: Callable[..., Any]) -> None:
    model = small(data)
    found = seqdens.measure(model, data)
    assert (found.bits_per_point, found.floor, found.share_at_floor) == (None, None, None)
    model.head.sigma_floor = 1e3
    found = seqdens.measure(model, data)
    assert (found.bits_per_point, found.floor, found.share_at_floor) == (None, (1010.0, 1010.0), 1.0)


def test_measuring_leaves_no_trace_and_tells_of_its_progress(data: Any, small: Callable[..., Any]) -> None:
    model, told = small(data).train(), list[tuple[int, int]]()
    seqdens.measure(model, data, batch_size=3, progress=lambda done, total: told.append((done, total)))
    assert told == [(3, 4), (4, 4)]
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_int8_costs_a_little_and_its_batch_size_does_not_matter(data: Any, small: Callable[..., Any]) -> None:
    model = small(data)
    exact = seqdens.measure(model, data).nats_per_point
    rounded = [seqdens.measure(model, data, precision="int8", batch_size=size).nats_per_point for size in (1, 64)]
    assert rounded[0] == pytest.approx(rounded[1], rel=1e-6)
    assert 1e-8 < abs(rounded[0] - exact) < 0.02
    with pytest.raises(UsageError, match="int8 have no derivatives"):
        model.predict(collate(data, np.arange(2)), int8=True)


def test_a_distribution_that_offers_a_mean_alone_is_measured(data: Any, small: Callable[..., Any]) -> None:
    model = small(data)
    whole_head = model.head.forward
    model.head.forward = lambda features: Plain(whole_head(features))
    found, expected = seqdens.measure(model, data), seqdens.measure(small(data), data)
    assert found.nats_per_point == expected.nats_per_point
    assert found.sse_per_point == {"mean": expected.sse_per_point["mean"]}
    model.head.sigma_floor = 1.0
    assert seqdens.measure(model, data).share_at_floor is None


class Plain(Distribution):
    """A mixture of which nothing is told but what every distribution must."""

    def __init__(self, mixture: Distribution) -> None:
        self.mixture = mixture

    def terms(self, targets: Tensor) -> dict[str, Tensor]:
        return self.mixture.terms(targets)

    def sample(self, noise: Tensor, bias: float = 0.0) -> Tensor:
        return self.mixture.sample(noise, bias)

    def mean(self) -> Tensor:
        return self.mixture.mean()


def test_all_records_are_measured_of_data_without_training_records_too(
    make: Callable[..., Any], small: Callable[..., Any]
) -> None:
    model = small(make())
    whole, valid = (seqdens.measure(model, make(test=7, valid=3), split) for split in ("all", "valid"))
    assert (whole.split, whole.records, valid.records) == ("all", 10, 3)
    assert whole.mean == tuple(model.mean)
    one_by_one = [seqdens.measure(model, make(test=7, valid=3), split) for split in ("test", "valid")]
    assert whole.nats_per_record * 10 == pytest.approx(sum(one.nats_per_record * one.records for one in one_by_one))
    assert seqdens.measure(model, make(test=3), "all").records == 3


def test_the_share_that_is_observed_is_told(tmp_path: Path) -> None:
    points = np.array([[1, 1, 0], [np.nan, 2, 1], [3, 5, 0], [np.nan, np.nan, 1.0]])
    about = Provenance.of("gaps", 1, {}, (X, Column("p", "real"), STROKE_END), synthetic=False, sources="")
    data = write(tmp_path / "gaps.h5", about, [Record("0", points), Record("1", points[:2])])
    found = seqdens.measure(static_gaussian(data), data, "train")
    assert (found.points, found.real_columns, found.observed) == (6, ("x", "p"), (3 / 6, 5 / 6))


def test_what_cannot_be_measured_is_refused(make: Callable[..., Any], data: Any, small: Callable[..., Any]) -> None:
    model = small(data)
    with pytest.raises(
        UsageError, match=r"split 'test' of made has no records; there are: train 10, valid 4, test 0\."
    ):
        seqdens.measure(model, data, "test")
    with pytest.raises(UsageError, match="there is no split 'validation'"):
        seqdens.measure(model, data, "validation")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=re.escape("made has columns x (real), stroke_end (binary), but the")):
        seqdens.measure(model, make((X, STROKE_END)))
    torch.nn.init.constant_(model.head.output.bias, math.nan)
    with pytest.raises(DataError, match="the loss of the valid split of made is nan"):
        seqdens.measure(model, data)
