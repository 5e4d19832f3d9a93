"""Clipping of derivatives inside back-propagation, as Graves (2013, section 4) does, not of weight gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqdens.errors import UsageError


def clip_derivative(x: Tensor, limit: float) -> Tensor:
    """`x` itself; on the way back, the derivatives of the loss with respect to `x` are clamped to [-limit, limit].

    A limit of 0 clips nothing. Raises `UsageError` for a negative limit.
    """
    if not limit >= 0:
        raise UsageError(f"a clipping limit is {limit}, but must be positive, or 0 for no clipping.")
    return _ClipDerivative.apply(x, limit) if limit and x.requires_grad else x


class _ClipDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, limit: float) -> Tensor:
        ctx.limit = limit
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, derivative: Tensor) -> tuple[Tensor, None]:
        return derivative.clamp(-ctx.limit, ctx.limit), None
