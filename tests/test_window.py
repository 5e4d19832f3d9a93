"""The layer with the window, held to the paper's equations in float64, written out with loops."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqdens.encoders.recurrence import window_lstm
from seqdens.encoders.recurrence.window import Read

ALPHABET, WIDTH = 5, 2


class Operands(NamedTuple):
    """Arguments of `window_lstm` up to the limits."""

    inputs: Tensor
    input_weight: Tensor
    recurrent_weight: Tensor
    peepholes: Tensor
    bias: Tensor
    window_weight: Tensor
    window_bias: Tensor
    h0: Tensor
    c0: Tensor
    w0: Tensor
    kappa0: Tensor
    characters: Tensor

    @property
    def wanting(self) -> list[Tensor]:
        return list(self[:-1])


def operands(steps: int, texts: list[list[int]], size: int, components: int, seed: int = 0) -> Operands:
    """Random ones, float64, that want gradients; one sequence for each text."""
    generator = torch.Generator().manual_seed(seed)
    batch, longest = len(texts), max(map(len, texts))
    shapes = (
        (steps, batch, WIDTH),
        (4 * size, WIDTH + ALPHABET),
        (4 * size, size),
        (3, size),
        (4 * size,),
        (3 * components, size),
        (3 * components,),
        (batch, size),
        (batch, size),
        (batch, ALPHABET),
    )
    draws = [torch.randn(shape, generator=generator, dtype=torch.float64) * 0.7 for shape in shapes]
    draws.append(2 * torch.rand(batch, components, generator=generator, dtype=torch.float64))
    characters = torch.tensor([text + [ALPHABET] * (longest + 1 - len(text)) for text in texts])
    return Operands(*(draw.requires_grad_() for draw in draws), characters)


def hooked(x: Tensor, clip: float, seen: list[float]) -> Tensor:
    """`x`, whose derivatives are clamped on the way back; `seen` collects the largest before that."""

    def clamped(derivative: Tensor) -> Tensor:
        seen.append(derivative.abs().max().item())
        return derivative.clamp(-clip, clip) if clip else derivative

    x = x + 0
    if x.requires_grad:
        x.register_hook(clamped)
    return x


def transcribed(given: Operands, clip: float, window_clip: float, seen: list[float] | None = None) -> Read:
    """Graves 2013, Eqs 7-11 and 46-52, one sequence, step, component and character after the other."""
    seen = [] if seen is None else seen
    records = []
    for b in range(given.h0.shape[0]):
        text = [character for character in given.characters[b].tolist() if character < ALPHABET]
        places = given.characters.shape[1]
        h, c, w, kappa = given.h0[b], given.c0[b], given.w0[b], given.kappa0[b]
        p_i, p_f, p_o = given.peepholes
        steps = []
        for x in given.inputs[:, b]:
            z = given.input_weight @ torch.cat([x, w]) + given.recurrent_weight @ h + given.bias
            z_i, z_f, z_g, z_o = z.chunk(4)
            i = hooked(z_i + p_i * c, clip, seen).sigmoid()
            f = hooked(z_f + p_f * c, clip, seen).sigmoid()
            c = f * c + i * hooked(z_g, clip, seen).tanh()
            o = hooked(z_o + p_o * c, clip, seen).sigmoid()
            h = o * c.tanh()
            logarithms = hooked(given.window_weight @ h + given.window_bias, window_clip, seen)
            alpha, beta, advance = logarithms.exp().chunk(3)
            kappa = kappa + advance
            phi = []
            for u in range(1, places + 1):
                terms = [alpha[k] * torch.exp(-beta[k] * (kappa[k] - u) ** 2) for k in range(len(kappa))]
                phi.append(torch.stack(terms).sum())
            w = torch.zeros(ALPHABET, dtype=torch.float64)
            for u, character in enumerate(text, start=1):
                w = w + phi[u - 1] * torch.eye(ALPHABET, dtype=torch.float64)[character]
            steps.append((h, c, w, kappa, torch.stack(phi).detach()))
        records.append([torch.stack(each) for each in zip(*steps, strict=True)])
    return Read(*(torch.stack(each, dim=1) for each in zip(*records, strict=True)))


def gradients(run: Callable[..., Read], arguments: Operands, scale: float = 1.0) -> list[Tensor]:
    """What is read, and the gradients of a weighted sum of all of it that has some."""
    read = run(arguments)
    generator = torch.Generator().manual_seed(1)
    parts = [scale * torch.randn(part.shape, generator=generator, dtype=torch.float64) * part for part in read[:4]]
    loss = sum(part.sum() for part in parts)
    return [*read, *torch.autograd.grad(loss, arguments.wanting)]


TEXTS = [[0, 1, 2, 3], [4], [2, 2]]


@pytest.mark.parametrize("limits", [(0.0, 0.0), (1e9, 1e9)])
def test_gradcheck(limits: tuple[float, float]) -> None:
    given = operands(3, [[0, 1], [2]], 2, 2)
    assert torch.autograd.gradcheck(
        lambda *wanting: window_lstm(*wanting, given.characters, *limits)[:4], given.wanting
    )


@settings(deadline=None, max_examples=20)
@given(
    steps=st.integers(1, 5),
    texts=st.lists(st.lists(st.integers(0, ALPHABET - 1), min_size=1, max_size=4), min_size=1, max_size=3),
    size=st.integers(1, 4),
    components=st.integers(1, 3),
    limits=st.sampled_from([(0.0, 0.0), (0.3, 0.0), (0.0, 0.3), (0.2, 0.1)]),
)
def test_equals_the_equations(
    steps: int, texts: list[list[int]], size: int, components: int, limits: tuple[float, float]
) -> None:
    arguments = operands(steps, texts, size, components, seed=steps)
    ours = gradients(lambda given: window_lstm(*given, *limits), arguments, scale=3.0)
    wanted = gradients(lambda given: transcribed(given, *limits), arguments, scale=3.0)
    for one, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_clipping_is_active_at_many_steps_and_changes_every_gradient() -> None:
    arguments, seen = operands(8, TEXTS, 3, 2), []
    wanted = gradients(lambda given: transcribed(given, 0.5, 0.4, seen), arguments, scale=10.0)
    assert sum(largest > 0.5 for largest in seen) > 40
    ours = gradients(lambda given: window_lstm(*given, 0.5, 0.4), arguments, scale=10.0)
    without = gradients(lambda given: window_lstm(*given, 0.0, 0.0), arguments, scale=10.0)
    for one, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)
    for one, other in zip(ours[5:-2], without[5:-2], strict=True):  # w0 and kappa0 are before the first clipping
        assert (one - other).abs().max() > 0.05


@pytest.mark.parametrize("used", range(4))
def test_one_output_alone_has_gradients(used: int) -> None:
    arguments = operands(4, TEXTS, 3, 2)
    found, wanted = (
        torch.autograd.grad(read[used].square().sum(), arguments.wanting, allow_unused=True, materialize_grads=True)
        for read in (window_lstm(*arguments, 0.0, 0.0), transcribed(arguments, 0.0, 0.0))
    )
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_the_weights_of_characters_have_no_derivatives() -> None:
    assert not window_lstm(*operands(2, TEXTS, 3, 2), 0.0, 0.0).phi.requires_grad


def test_far_from_the_window_next_to_nothing_is_left() -> None:
    given = operands(1, [[0] * 50], 2, 1)
    phi = window_lstm(*given, 0.0, 0.0).phi[0, 0]
    assert (phi[-1] < 1e-30).all()
    assert phi.isfinite().all()


def test_backward_twice_gives_the_same_and_leaves_operands_as_they_were() -> None:
    arguments = operands(4, TEXTS, 3, 2)
    before = [operand.detach().clone() for operand in arguments]
    loss = sum(part.sum() for part in window_lstm(*arguments, 1.0, 1.0)[:4])
    first = torch.autograd.grad(loss, arguments.wanting, retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(loss, arguments.wanting), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(arguments, before, strict=True):
        assert torch.equal(one, other)


def test_step_by_step_is_the_whole() -> None:
    given = operands(7, TEXTS, 3, 2)
    with torch.inference_mode():
        whole = window_lstm(*given, 0.0, 0.0)
        step = given
        for t, x in enumerate(given.inputs):
            read = window_lstm(*step._replace(inputs=x.unsqueeze(0)), 0.0, 0.0)
            for one, all_steps in zip(read, whole, strict=True):
                torch.testing.assert_close(one[0], all_steps[t], rtol=0, atol=1e-12)
            step = step._replace(h0=read.hidden[0], c0=read.cells[0], w0=read.window[0], kappa0=read.kappa[0])


def test_bf16_autocast_stays_near_float64() -> None:
    rough = operands(30, TEXTS, 32, 4)
    gentle = {name: (getattr(rough, name) / 6).detach().requires_grad_() for name in rough._fields[1:7]}
    exact = rough._replace(**gentle)
    single = Operands(*(each.detach().float().requires_grad_() for each in exact.wanting), exact.characters)
    limits: tuple[Any, ...] = (1.0, 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        read = window_lstm(*single, *limits)
    assert [part.dtype for part in read] == [torch.bfloat16, *[torch.float32] * 4]
    wanted = window_lstm(*exact, *limits)
    for one, other in zip(read, wanted, strict=True):
        assert 0 < (one - other).norm() < 0.02 * other.norm()
    found = torch.autograd.grad(read.hidden.sum(), single.wanting)
    for one, other in zip(found, torch.autograd.grad(wanted.hidden.sum(), exact.wanting), strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() <= 0.05 * other.norm()
