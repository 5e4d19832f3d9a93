"""Mixtures of bivariate Gaussians in C++ (fused.cpp): the log-density, its derivatives and draws, in one pass each.

It equals what `gmm_bernoulli` does with ordinary operations, and is used where it can be: float32 on a CPU, with a
compiler. K components of a point.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqdens import native
from seqdens.datasets.base import Column

enabled = True  # False has everything done with ordinary operations


def possible(x: Tensor, *parts: Tensor) -> bool:
    """Whether `log_density` takes x and parts like these."""
    return (
        enabled
        and not torch.compiler.is_compiling()
        and x.shape[-1] == 2
        and not x.requires_grad
        and all(each.dtype == torch.float32 and each.device.type == "cpu" for each in (x, *parts))
        and all(part.shape[: x.ndim - 1] == x.shape[:-1] for part in parts)
        and _library() is not None
    )


def log_density(x: Tensor, weight_logits: Tensor, means: Tensor, log_sigmas: Tensor, correlations: Tensor) -> Tensor:
    """Log-density (...) at x (..., 2), in nats, of weights (..., K), means and sigmas (..., 2, K), and r (..., 1, K).

    The parts are those of `MixtureBernoulli`. The derivatives cannot be differentiated again.
    """
    return _LogDensity.apply(x, weight_logits, means, log_sigmas, correlations)


def can_draw(features: Tensor, sizes: Sequence[int]) -> bool:
    """Whether `draw` is for output numbers of features like these, in parts of `sizes`."""
    return (
        enabled
        and not torch.is_grad_enabled()
        and sizes[1] == 2 * sizes[0]
        and features.dtype == torch.float32
        and features.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and _library() is not None
    )


def draw(outputs: Tensor, sizes: Sequence[int], columns: Sequence[Column], noise: Tensor, bias: float) -> Tensor:
    """Points (..., D) of output numbers (..., N), as `MixtureBernoulli.sample` draws them from noise (..., 1 + D).

    `sizes` are how many numbers of a point are weight logits, means, log sigmas, correlations and binary logits.
    """
    outputs, noise = outputs.contiguous(), noise.contiguous()
    drawn = noise.new_empty(*noise.shape[:-1], len(columns))
    places = sorted(range(len(columns)), key=lambda place: columns[place].kind, reverse=True)  # real, then binary
    given = (outputs.data_ptr(), (ctypes.c_long * len(places))(*places), noise.data_ptr(), bias, drawn.data_ptr())
    _library().draw(drawn.numel() // len(columns), sizes[0], len(columns), *given)
    return drawn


class _LogDensity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(x, *parts)
        found = x.new_empty(x.shape[:-1])
        _call(x, parts, found, None, None)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        x, *parts = ctx.saved_tensors
        sizes = [math.prod(part.shape[incoming.ndim :]) for part in parts]
        found = x.new_empty(*incoming.shape, sum(sizes))
        _call(x, parts, None, incoming.contiguous(), found)
        return None, *(each.view(part.shape) for each, part in zip(found.split(sizes, -1), parts, strict=True))


def _call(x: Tensor, parts: Sequence[Tensor], *arguments: Tensor | None) -> None:
    x, rows = x.contiguous(), [_rows(part, x.ndim - 1) for part in parts]
    pointers = (ctypes.c_void_p * 4)(*(each.data_ptr() for each in rows))
    strides = (ctypes.c_long * 4)(*(each.stride(0) for each in rows))
    given = [None if each is None else each.data_ptr() for each in (x, *arguments)]
    _library().mixture(len(rows[0]), parts[0].shape[-1], pointers, strides, *given)


def _rows(part: Tensor, leading: int) -> Tensor:
    """`part` as (points, numbers of a point), those next to each other; without a copy where it can be."""
    rows = part.flatten(leading).flatten(0, leading - 1)
    return rows if rows.stride(1) == 1 else rows.contiguous()


@cache
def _library() -> Any:
    """None where it cannot be compiled."""
    try:
        library = native.load(Path(__file__).with_suffix(".cpp"))
    except native.CannotCompile:
        return None
    size, pointer = ctypes.c_long, ctypes.c_void_p
    library.mixture.argtypes, library.mixture.restype = [size] * 2 + [pointer] * 6, None
    library.draw.argtypes = [size] * 3 + [pointer] * 3 + [ctypes.c_double, pointer]
    library.draw.restype = None
    return library
