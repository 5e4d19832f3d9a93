import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqdens.errors import UsageError
from seqdens.optim import GravesRMSprop, make_optimiser


def transcription(
    weights: np.ndarray, gradients: list[np.ndarray], lr: float, decay: float, momentum: float, eps: float
):
    """Equations 38-45 of Graves 2013."""
    n, g, delta = np.zeros((3, *weights.shape))
    for e in gradients:
        n = decay * n + (1 - decay) * e**2
        g = decay * g + (1 - decay) * e
        delta = momentum * delta - lr * e / np.sqrt(n - g**2 + eps)
        weights = weights + delta
    return weights


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 1000),
    scale=st.floats(1e-4, 10.0),
    lr=st.floats(1e-6, 1.0),
    decay=st.floats(0.0, 0.99),
    momentum=st.floats(0.0, 0.95),
    eps=st.floats(1e-6, 1.0),  # n - g^2 cancels: rounding of scale^2 must stay small beside eps
)
def test_equals_the_paper_s_equations(
    seed: int, scale: float, lr: float, decay: float, momentum: float, eps: float
) -> None:
    rng = np.random.default_rng(seed)
    start, gradients = rng.normal(size=(3, 2)), list(scale * (1 + rng.normal(size=(60, 3, 2))))
    weights = torch.tensor(start, requires_grad=True)
    optimiser = GravesRMSprop([weights], lr, decay=decay, momentum=momentum, eps=eps)
    for gradient in gradients:
        weights.grad = torch.tensor(gradient)
        optimiser.step()
    expected = transcription(start, gradients, lr, decay, momentum, eps)
    np.testing.assert_allclose(weights.detach().numpy(), expected, rtol=1e-6, atol=1e-9)


def test_defaults_are_the_paper_s() -> None:
    defaults = GravesRMSprop([torch.zeros(1)]).defaults
    assert defaults == {"lr": 1e-4, "decay": 0.95, "momentum": 0.9, "eps": 1e-4}


def first_step(optimiser: torch.optim.Optimizer, weights: Tensor, gradient: float) -> float:
    weights.grad = torch.full_like(weights, gradient)
    optimiser.step()
    return weights.abs().item()


def test_differs_from_torch_s_where_gradients_are_small() -> None:
    ours, theirs = torch.zeros(2, 1, dtype=torch.float64)
    theirs_to_ours = {}
    for gradient in (1e-6, 1e3):
        ours, theirs = (torch.zeros(1, dtype=torch.float64) for _ in range(2))
        centred = torch.optim.RMSprop([theirs], lr=1e-4, alpha=0.95, eps=1e-4, centered=True, momentum=0.9)
        one = first_step(GravesRMSprop([ours]), ours, gradient)
        theirs_to_ours[gradient] = first_step(centred, theirs, gradient) / one
    assert 95 < theirs_to_ours[1e-6] < 100
    assert theirs_to_ours[1e3] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("scale", [10.0, 1e3, 1e6])
def test_rounding_of_large_steady_gradients_gives_no_nan(scale: float) -> None:
    gradients = scale * (1 + torch.rand(2000, generator=torch.Generator().manual_seed(0)))
    weights = torch.zeros(2000)
    optimiser = GravesRMSprop([weights])
    for _ in range(500):
        weights.grad = gradients
        optimiser.step()
    mean_square, mean, _ = optimiser.state[weights].values()
    assert (mean_square - mean**2 < -1e-4).any()  # what the root would be taken of
    assert weights.isfinite().all()


def stepped(optimiser: torch.optim.Optimizer, weights: list[Tensor], seed: int, steps: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator).to(weight.dtype)
        optimiser.step()


def test_state_dict_resumes_bit_equal() -> None:
    weights = [torch.ones(3, 2), torch.ones(4)]
    optimiser = GravesRMSprop(weights, 0.01)
    stepped(optimiser, weights, seed=0, steps=10)
    copies = [weight.clone() for weight in weights]
    resumed = GravesRMSprop(copies)
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    stepped(optimiser, weights, seed=1, steps=10)
    stepped(resumed, copies, seed=1, steps=10)
    for one, other in zip(weights, copies, strict=True):
        assert torch.equal(one, other)


def test_shapes_and_dtypes_may_differ() -> None:
    shapes = [((3, 2), torch.float32), ((), torch.float64), ((0,), torch.float32), ((5,), torch.bfloat16)]
    together = [torch.ones(shape, dtype=dtype) for shape, dtype in shapes]
    stepped(GravesRMSprop(together, 0.01), together, seed=0, steps=5)
    alone = [torch.ones(shape, dtype=dtype) for shape, dtype in shapes]
    optimisers = [GravesRMSprop([weight], 0.01) for weight in alone]
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        for weight, optimiser in zip(alone, optimisers, strict=True):
            weight.grad = torch.randn(weight.shape, generator=generator).to(weight.dtype)
            optimiser.step()
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one, other)
        assert not one.numel() or (one != 1).all()


def test_parameters_without_gradient_stay_and_groups_have_their_own_rate() -> None:
    still, slow, fast = (torch.zeros(2) for _ in range(3))
    optimiser = GravesRMSprop([{"params": [still, slow]}, {"params": [fast], "lr": 1e-2}])
    slow.grad, fast.grad = torch.ones(2), torch.ones(2)
    optimiser.step()
    assert not still.any()
    torch.testing.assert_close(fast, 100 * slow)
    GravesRMSprop([still]).step()


def test_closure_is_evaluated_with_gradients() -> None:
    weight = torch.ones(1, requires_grad=True)

    def closure() -> Tensor:
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert GravesRMSprop([weight]).step(closure).item() == 1
    assert weight.item() < 1


def test_sparse_gradients_are_refused() -> None:
    weight = torch.zeros(3)
    weight.grad = torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1), (3,), check_invariants=True)
    with pytest.raises(UsageError, match="sparse"):
        GravesRMSprop([weight]).step()


@pytest.mark.parametrize("values", [{"lr": 0}, {"lr": -1.0}, {"decay": 1.0}, {"momentum": -0.1}, {"eps": 0.0}])
def test_values_out_of_range_are_named(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(values))):
        GravesRMSprop([torch.zeros(1)], **values)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("graves-rmsprop", GravesRMSprop),
        ("Graves-RMSprop", GravesRMSprop),
        ("adam", torch.optim.Adam),
        ("AdamW", torch.optim.AdamW),
        ("RMSPROP", torch.optim.RMSprop),
    ],
)
def test_optimisers_are_made_by_name(name: str, kind: type[torch.optim.Optimizer]) -> None:
    weight = torch.ones(2, requires_grad=True)
    optimiser = make_optimiser(name, [weight], 0.25)
    assert type(optimiser) is kind
    assert optimiser.param_groups[0]["lr"] == 0.25
    assert optimiser.param_groups[0]["params"] == [weight]


@pytest.mark.parametrize(
    ("name", "learning_rate", "said"),
    [
        ("adm", 0.1, "did you mean 'adam'.*graves-rmsprop"),
        ("optimizer", 0.1, "no optimiser is named"),
        ("LBFGS", 0.1, "several times a step"),
        ("SparseAdam", 0.1, "sparse gradients"),
        ("adam", -1.0, "learning rate"),
        ("graves-rmsprop", -1.0, "lr of graves-rmsprop is -1.0"),
    ],
)
def test_impossible_optimisers_are_refused(name: str, learning_rate: float, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_optimiser(name, [torch.ones(2, requires_grad=True)], learning_rate)
