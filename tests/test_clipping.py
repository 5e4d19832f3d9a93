import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqdens.clipping import clip_derivative
from seqdens.errors import UsageError


@settings(deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1), st.floats(1e-3, 1e3))
def test_value_passes_and_derivative_is_clamped(derivative: list[float], limit: float) -> None:
    derivatives = torch.tensor(derivative, dtype=torch.float64)
    x = torch.arange(len(derivative), dtype=torch.float64, requires_grad=True)
    y = clip_derivative(x, limit)
    assert torch.equal(y, x)
    y.backward(derivatives)
    assert x.grad is not None
    assert torch.equal(x.grad, derivatives.clamp(-limit, limit))


def test_clips_each_number_not_their_norm() -> None:
    x = torch.zeros(3, requires_grad=True)
    clip_derivative(x, 100.0).backward(torch.tensor([150.0, -3.0, -1e6]))
    assert x.grad is not None
    assert x.grad.tolist() == [100.0, -3.0, -100.0]


def test_limit_of_zero_is_off() -> None:
    x = torch.zeros(2, requires_grad=True)
    assert clip_derivative(x, 0) is x


@pytest.mark.parametrize("limit", [-1.0, float("nan")])
def test_impossible_limit(limit: float) -> None:
    with pytest.raises(UsageError, match="clipping limit"):
        clip_derivative(torch.zeros(1), limit)


def test_differentiable_once() -> None:
    x = torch.ones(2, requires_grad=True)
    (gradient,) = torch.autograd.grad((clip_derivative(x, 1.0) ** 2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_works_without_gradients() -> None:
    with torch.inference_mode():
        assert torch.equal(clip_derivative(torch.ones(2), 1.0), torch.ones(2))
