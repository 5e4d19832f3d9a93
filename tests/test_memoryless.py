"""The encoder that remembers nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import seqdens
from seqdens.encoders.memoryless import Memoryless
from seqdens.errors import UsageError


def test_every_step_of_every_record_has_the_same_feature() -> None:
    model = Memoryless(3).double()
    found = model(torch.randn(4, 7, 3).double(), torch.tensor([7, 2, 1, 0]), model.start(4))
    assert torch.equal(found.features, torch.ones(4, 7, model.output_size).double())
    assert all(len(value) == 4 for value in found.state.values())
    assert not list(model.parameters())


def test_it_never_finishes() -> None:
    model = Memoryless(3)
    assert model.finished(model.start(3), None).tolist() == [False] * 3


def test_a_trained_one_comes_near_the_static_gaussian(make: Callable[..., Any]) -> None:
    from seqdens.static import static_gaussian

    data = make(train=60, valid=20)
    torch.manual_seed(0)
    head = seqdens.head("gmm-bernoulli", components=1)
    model = seqdens.SequenceModel.for_data(data, seqdens.encoder("memoryless"), head)
    seqdens.Trainer(epochs=40, optimiser="adam", learning_rate=0.02, decay=0.5, batch_size=10).fit(model, data)
    found, best = (seqdens.measure(each, data, "train").nats_per_point for each in (model, static_gaussian(data)))
    assert best < found < best + 0.02


def test_its_draws_are_independent_of_each_other(make: Callable[..., Any]) -> None:
    from seqdens.static import static_gaussian

    drawn = torch.from_numpy(static_gaussian(make()).sample(1, steps=4000, seed=1)[0])
    assert torch.corrcoef(torch.stack([drawn[1:, 0], drawn[:-1, 0]]))[0, 1].abs() < 0.05


def test_a_text_is_refused() -> None:
    with pytest.raises(UsageError, match="context_size is 57, but memoryless takes no text"):
        Memoryless(3, 57)
