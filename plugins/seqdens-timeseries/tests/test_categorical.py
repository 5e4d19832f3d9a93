"""Softmaxes over columns of states, against scipy and by counting."""

import numpy as np
import pytest
import scipy.special
import torch
from seqdens_timeseries.categorical import Categorical, Softmaxes, pick

import seqdens
from seqdens import Column, UsageError
from seqdens.testing import HeadContract

COLOUR, LETTER = Column("colour", "category", 3), Column("letter", "category", 26)
LIFT, END = Column("lift", "binary"), Column("end", "binary", role="sequence_end")


class TestContract(HeadContract):
    head = seqdens.head("categorical")
    column_sets = ((COLOUR,), (LIFT,), (LETTER, LIFT, COLOUR))
    tolerance = 1e-6


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_terms_are_log_probabilities_by_column() -> None:
    dist = Softmaxes((COLOUR, LIFT), (logits(2, 4, 3), logits(2, 4, 2, seed=1)))
    targets = torch.tensor([[0, 1], [1, 0], [2, 1], [1, 1]]).double().expand(2, 4, 2)
    terms = dist.terms(targets)
    assert list(terms) == ["colour", "lift"]
    for index, (name, scores) in enumerate(zip(terms, dist.logits, strict=True)):
        expected = scipy.special.log_softmax(scores.numpy(), axis=-1)
        chosen = np.take_along_axis(expected, targets[..., index : index + 1].numpy().astype(int), -1)[..., 0]
        np.testing.assert_allclose(terms[name].numpy(), chosen, rtol=1e-12)


def test_draws_have_the_frequencies_of_the_softmax() -> None:
    scores = logits(1, 1, 5).expand(1, 100_000, 5)
    uniform = (torch.arange(100_000).double() + 0.5) / 100_000
    found = torch.bincount(pick(scores, uniform.unsqueeze(0))[0], minlength=5) / 100_000
    torch.testing.assert_close(found.double(), scores[0, 0].softmax(-1), rtol=0, atol=2e-5)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2.0**-24])
def test_what_is_impossible_is_not_drawn(uniform: float) -> None:
    scores = torch.tensor([0.0, -torch.inf, 0.0, -torch.inf])
    assert pick(scores, torch.tensor(uniform)).item() in (0, 2)


def test_bias_is_for_categories_and_not_for_binaries() -> None:
    dist = Softmaxes((COLOUR, LIFT), (logits(1, 1, 3).expand(1, 20_000, 3), logits(1, 1, 2).expand(1, 20_000, 2)))
    noise = torch.rand(1, 20_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fair, biased = dist.sample(noise), dist.sample(noise, bias=50.0)
    assert (biased[..., 0] == dist.logits[0].argmax(-1)).all()
    assert (fair[..., 0] != biased[..., 0]).any()
    assert torch.equal(fair[..., 1], biased[..., 1])


def test_mean_is_a_probability_or_the_likeliest() -> None:
    dist = Softmaxes((LIFT, COLOUR), (torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[0.0, 2.0, 1.0]]])))
    torch.testing.assert_close(dist.mean(), torch.tensor([[[torch.tensor(2.0).sigmoid().item(), 1.0]]]))


def test_real_columns_are_refused() -> None:
    with pytest.raises(UsageError, match=r"column 'x' is 'real', but categorical .*gmm"):
        Categorical(4, (COLOUR, Column("x", "real")))


def test_a_negative_bias_is_refused() -> None:
    with pytest.raises(UsageError, match="bias is -1"):
        Softmaxes((LIFT,), (logits(1, 1, 2),)).sample(torch.rand(1, 1, 1), bias=-1)


def test_a_sampled_sequence_ends_by_itself() -> None:
    torch.manual_seed(0)
    encoder, head = seqdens.encoder("stacked-lstm", hidden_size=4, layers=1), seqdens.head("categorical")
    model = seqdens.SequenceModel((LETTER, END), encoder, head, mean=(), std=())
    for drawn in model.sample(20, steps=200, seed=0):
        assert 1 <= len(drawn) < 200
        assert drawn[:, 1].tolist() == [0.0] * (len(drawn) - 1) + [1.0]
