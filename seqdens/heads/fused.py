"""Mixtures of bivariate Gaussians in C++ (native/mixture.cpp): the log-density, its derivatives and draws.

Each is one pass over the points and an operator that PyTorch knows. It equals what `gmm_bernoulli` does with ordinary
operations, and is used where it can be: float32 on a CPU, with the compiled library. K components of a point.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from seqdens import native
from seqdens.datasets.base import Column

SIZE, POINTER = ctypes.c_long, ctypes.c_void_p
SIGNATURES: native.Signatures = {
    "mixture": [SIZE] * 2 + [POINTER] * 6,
    "draw": [SIZE] * 3 + [POINTER] * 3 + [ctypes.c_double, POINTER],
}

enabled = True  # False has everything done with ordinary operations


def possible(x: Tensor, *parts: Tensor) -> bool:
    """Return whether `log_density` takes x and parts like these."""
    return (
        enabled
        and x.shape[-1] == 2
        and not x.requires_grad
        and all(each.dtype == torch.float32 and each.device.type == "cpu" for each in (x, *parts))
        and all(part.shape[: x.ndim - 1] == x.shape[:-1] for part in parts)
        and is_compiled()
    )


def can_draw(features: Tensor, sizes: Sequence[int]) -> bool:
    """Return whether `draw` is for output numbers of features like these, in parts of `sizes`."""
    return (
        enabled
        and not torch.is_grad_enabled()
        and sizes[1] == 2 * sizes[0]
        and features.dtype == torch.float32
        and features.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and is_compiled()
    )


@torch.compiler.assume_constant_result
def is_compiled() -> bool:
    """Return whether the compiled library is there."""
    return native.has("float32")


def log_density(x: Tensor, weight_logits: Tensor, means: Tensor, log_sigmas: Tensor, correlations: Tensor) -> Tensor:
    """Return the log-density (...) at x (..., 2) in nats, whose derivatives cannot be differentiated again.

    The parts are those of `MixtureBernoulli`: weights (..., K), means and sigmas (..., 2, K), and r (..., 1, K).
    """
    found: Tensor = mixture(x, weight_logits, means, log_sigmas, correlations)
    return found


@torch.library.custom_op(
    "seqdens::mixture",
    mutates_args=(),
    schema="(Tensor x, Tensor weight_logits, Tensor means, Tensor log_sigmas, Tensor correlations) -> Tensor",
)
def mixture(x: Tensor, *parts: Tensor) -> Tensor:
    """Return what `log_density` does."""
    found = x.new_empty(x.shape[:-1])
    _call(x, parts, found, None, None)
    return found


@mixture.register_fake
def _(x: Tensor, *parts: Tensor) -> Tensor:
    return x.new_empty(x.shape[:-1])


@torch.library.custom_op(
    "seqdens::mixture_backward",
    mutates_args=(),
    schema="(Tensor incoming, Tensor x, Tensor weight_logits, Tensor means, Tensor log_sigmas, Tensor correlations)"
    " -> Tensor",
)
def mixture_backward(incoming: Tensor, x: Tensor, *parts: Tensor) -> Tensor:
    """Return the derivatives (..., 6 K) of all parts, given those of the log-density (...)."""
    found = x.new_empty(*incoming.shape, _numbers(parts, incoming.ndim))
    _call(x, parts, None, incoming.contiguous(), found)
    return found


@mixture_backward.register_fake
def _(incoming: Tensor, x: Tensor, *parts: Tensor) -> Tensor:
    return x.new_empty(*incoming.shape, _numbers(parts, incoming.ndim))


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
    x, *parts = ctx.saved_tensors
    sizes = [_numbers([part], incoming.ndim) for part in parts]
    found = mixture_backward(incoming, x, *parts).split(sizes, -1)
    return None, *(each.view(part.shape) for each, part in zip(found, parts, strict=True))


mixture.register_autograd(_differentiate, setup_context=_keep)


def _numbers(parts: Sequence[Tensor], leading: int) -> int:
    """Return how many numbers of a point the parts have."""
    return sum(math.prod(part.shape[leading:]) for part in parts)


def draw(outputs: Tensor, sizes: Sequence[int], columns: Sequence[Column], noise: Tensor, bias: float) -> Tensor:
    """Return points (..., D) of output numbers (..., N), as `MixtureBernoulli.sample` does of noise (..., 1 + D).

    `sizes` are how many numbers of a point are weight logits, means, log sigmas, correlations and binary logits.
    """
    drawn: Tensor = mixture_draw(outputs, noise, _places(columns), sizes[0], float(bias))
    return drawn


def drawer(sizes: Sequence[int], columns: Sequence[Column], bias: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function of output numbers and noise to what `draw` returns, in a fraction of an operator's time."""
    places, components, bias = _places(columns), sizes[0], float(bias)
    return lambda outputs, noise: _draw(outputs, noise, places, components, bias)


def _places(columns: Sequence[Column]) -> list[int]:
    """Return where the columns stand, the real ones first."""
    return sorted(range(len(columns)), key=lambda place: columns[place].kind, reverse=True)


def _draw(outputs: Tensor, noise: Tensor, places: Sequence[int], components: int, bias: float) -> Tensor:
    outputs, noise = outputs.contiguous(), noise.contiguous()
    drawn = noise.new_empty(*noise.shape[:-1], len(places))
    given = (outputs.data_ptr(), (SIZE * len(places))(*places), noise.data_ptr(), bias, drawn.data_ptr())
    _function("draw")(drawn.numel() // len(places), components, len(places), *given)
    return drawn


mixture_draw = torch.library.custom_op(
    "seqdens::mixture_draw",
    _draw,
    mutates_args=(),
    schema="(Tensor outputs, Tensor noise, int[] places, int components, float bias) -> Tensor",
)


@mixture_draw.register_fake
def _(outputs: Tensor, noise: Tensor, places: Sequence[int], components: int, bias: float) -> Tensor:
    return noise.new_empty(*noise.shape[:-1], len(places))


def _call(x: Tensor, parts: Sequence[Tensor], *arguments: Tensor | None) -> None:
    x, rows = x.contiguous(), [_rows(part, x.ndim - 1) for part in parts]
    pointers = (POINTER * 4)(*(each.data_ptr() for each in rows))
    strides = (SIZE * 4)(*(each.stride(0) for each in rows))
    given = [None if each is None else each.data_ptr() for each in (x, *arguments)]
    _function("mixture")(len(rows[0]), parts[0].shape[-1], pointers, strides, *given)


def _rows(part: Tensor, leading: int) -> Tensor:
    """Return `part` as (points, numbers of a point), those next to each other; without a copy if that is possible."""
    rows = part.flatten(leading).flatten(0, leading - 1)
    return rows if rows.stride(1) == 1 else rows.contiguous()


def _function(name: str) -> Callable[..., None]:
    return native.function(name, "float32", SIGNATURES[name])
