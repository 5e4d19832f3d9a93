"""The likelihood of whole records."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from seqdens.batches import collate, evaluation_batches
from seqdens.evaluation import Likelihood, evaluate


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
