from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqdens.encoders.recurrence import peephole_lstm

Operands = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def operands(steps: int, batch: int, size: int, seed: int = 0, scale: float = 1.0) -> Operands:
    """Random gates, weight, peepholes, h0 and c0, float64, that want gradients."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((steps, batch, 4 * size), (4 * size, size), (3, size), (batch, size), (batch, size))
    draws = (scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    gates, weight, peepholes, h0, c0 = (draw.requires_grad_() for draw in draws)
    return gates, weight, peepholes, h0, c0


def with_hooks(
    gates: Tensor, weight: Tensor, peepholes: Tensor, h0: Tensor, c0: Tensor, clip: float, seen: list[float]
) -> tuple[Tensor, Tensor]:
    """The same recurrence with ordinary operations, each pre-activation's derivative clamped by a hook.

    `seen` collects the largest derivative before it is clamped.
    """

    def clamped(derivative: Tensor) -> Tensor:
        seen.append(derivative.abs().max().item())
        return derivative.clamp(-clip, clip) if clip else derivative

    def hooked(x: Tensor) -> Tensor:
        x.register_hook(clamped)
        return x

    h, c, hidden, cells = h0, c0, [], []
    p_i, p_f, p_o = peepholes
    for z in gates:
        z_i, z_f, z_g, z_o = (z + h @ weight.T).chunk(4, dim=1)
        i = hooked(z_i + p_i * c).sigmoid()
        f = hooked(z_f + p_f * c).sigmoid()
        c = f * c + i * hooked(z_g + 0).tanh()
        h = hooked(z_o + p_o * c).sigmoid() * c.tanh()
        hidden.append(h)
        cells.append(c)
    return torch.stack(hidden), torch.stack(cells)


def gradients(run: Callable[..., tuple[Tensor, Tensor]], arguments: Operands, scale: float) -> list[Tensor]:
    """Outputs, and gradients of a weighted sum of hidden and cell states of all steps."""
    hidden, cells = run(*arguments)
    generator = torch.Generator().manual_seed(1)
    weights = scale * torch.randn(2, *hidden.shape, generator=generator, dtype=torch.float64)
    loss = (weights[0] * hidden + weights[1] * cells).sum()
    return [hidden, cells, *torch.autograd.grad(loss, arguments)]


@pytest.mark.parametrize("clip", [0.0, 1e9])
def test_gradcheck(clip: float) -> None:
    assert torch.autograd.gradcheck(lambda *given: peephole_lstm(*given, clip), operands(4, 2, 3))


@settings(deadline=None, max_examples=25)
@given(steps=st.integers(1, 6), batch=st.integers(1, 4), size=st.integers(1, 5), clip=st.sampled_from([0.0, 0.3, 5.0]))
def test_equals_ordinary_operations_with_hooks(steps: int, batch: int, size: int, clip: float) -> None:
    arguments = operands(steps, batch, size, seed=steps)
    ours = gradients(lambda *given: peephole_lstm(*given, clip), arguments, scale=4.0)
    reference = gradients(lambda *given: with_hooks(*given, clip, []), arguments, scale=4.0)
    for one, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_clipping_is_active_at_many_steps_and_changes_every_gradient() -> None:
    arguments = operands(12, 3, 4)
    seen: list[float] = []
    reference = gradients(lambda *given: with_hooks(*given, 0.5, seen), arguments, scale=20.0)
    assert sum(largest > 0.5 for largest in seen) > 24
    ours = gradients(lambda *given: peephole_lstm(*given, 0.5), arguments, scale=20.0)
    unclipped = gradients(lambda *given: peephole_lstm(*given, 0.0), arguments, scale=20.0)
    for one, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    for one, other in zip(ours[2:], unclipped[2:], strict=True):
        assert (one - other).abs().max() > 0.1
    assert ours[2].abs().max() == 0.5


def test_equals_torch_lstm_without_peepholes() -> None:
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(3, 5).double()
    inputs = torch.randn(7, 2, 3, dtype=torch.float64)
    h0, c0 = torch.randn(2, 1, 2, 5, dtype=torch.float64)
    expected, (_, last_cell) = lstm(inputs, (h0, c0))
    gates = inputs @ lstm.weight_ih_l0.T + lstm.bias_ih_l0 + lstm.bias_hh_l0
    no_peepholes = torch.zeros(3, 5, dtype=torch.float64)
    hidden, cells = peephole_lstm(gates, lstm.weight_hh_l0, no_peepholes, h0[0], c0[0], 0.0)
    torch.testing.assert_close(hidden, expected)
    torch.testing.assert_close(cells[-1], last_cell[0])
    wanted = torch.autograd.grad(expected.square().sum(), [lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0])
    found = torch.autograd.grad(hidden.square().sum(), [lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0])
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("used", [0, 1])
def test_one_output_alone_has_gradients(used: int) -> None:
    arguments = operands(4, 2, 3)
    wanted = torch.autograd.grad(with_hooks(*arguments, 0.0, [])[used].sum(), arguments)
    found = torch.autograd.grad(peephole_lstm(*arguments, 0.0)[used].sum(), arguments)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def test_backward_twice_gives_the_same() -> None:
    arguments = operands(4, 2, 3)
    loss = peephole_lstm(*arguments, 1.0)[0].sum()
    first = torch.autograd.grad(loss, arguments, retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(loss, arguments), strict=True):
        assert torch.equal(one, other)


def test_operands_are_left_as_they_were() -> None:
    arguments = operands(3, 2, 3)
    before = [operand.detach().clone() for operand in arguments]
    peephole_lstm(*arguments, 1.0)[0].sum().backward()
    for one, other in zip(arguments, before, strict=True):
        assert torch.equal(one, other)


def test_differentiable_once() -> None:
    arguments = operands(2, 1, 2)
    loss = peephole_lstm(*arguments, 1.0)[0].square().sum()
    (gradient,) = torch.autograd.grad(loss, arguments[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_inference_mode_gives_the_same() -> None:
    arguments = operands(3, 2, 3)
    with torch.inference_mode():
        hidden, cells = peephole_lstm(*arguments, 1.0)
    expected = peephole_lstm(*arguments, 1.0)
    assert torch.equal(hidden, expected[0])
    assert torch.equal(cells, expected[1])


def single_precision(arguments: Operands) -> list[Tensor]:
    return [operand.detach().float().requires_grad_() for operand in arguments]


def test_bf16_products_stay_near_float64() -> None:
    exact = operands(20, 4, 16, scale=0.3)
    rounded = single_precision(exact)
    hidden, _ = peephole_lstm(*exact, 10.0)
    with torch.autocast("cpu", torch.bfloat16):
        low, cells = peephole_lstm(*rounded, 10.0)
    assert low.dtype == cells.dtype == torch.float32
    assert 1e-5 < (low - hidden).abs().max() < 0.02
    wanted = torch.autograd.grad(hidden.square().sum(), exact)
    found = torch.autograd.grad(low.square().sum(), rounded)  # outside autocast: backward remembers
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.02 * other.norm()
    assert torch.equal(found[0], found[0].bfloat16().float())


def test_products_keep_their_precision_where_bf16_is_not_asked_for() -> None:
    exact = operands(5, 2, 4)
    rounded = single_precision(exact)
    plain, plain64 = peephole_lstm(*rounded, 1.0)[0], peephole_lstm(*exact, 1.0)[0]
    with torch.autocast("cpu", torch.float16):
        assert torch.equal(peephole_lstm(*rounded, 1.0)[0], plain)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(peephole_lstm(*exact, 1.0)[0], plain64)


def test_gates_may_be_bf16() -> None:
    rounded = single_precision(operands(5, 2, 4))
    gates = rounded[0].detach().bfloat16().requires_grad_()
    hidden, _ = peephole_lstm(gates, *rounded[1:], 1.0)
    expected, _ = peephole_lstm(gates.detach().float(), *rounded[1:], 1.0)
    assert torch.equal(hidden, expected)
    hidden.sum().backward()
    assert gates.grad is not None
    assert gates.grad.dtype == torch.bfloat16
