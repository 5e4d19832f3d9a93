"""The recurrence in C++ (cpu.cpp), compiled when it is first used; products in bfloat16 and int8 where there are tiles.

T steps, B sequences, F numbers of an input, L layers, H cells.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqdens.encoders.recurrence import compiled
from seqdens.encoders.recurrence.compiled import NUMBER, POINTER, SIZE, SUFFIX, Layer, call, check_shapes
from seqdens.encoders.recurrence.quantised import Step, Weights


def obstacle(weight: Tensor, dtype: torch.dtype) -> str:
    """Why weights like `weight` cannot be used with products of `dtype`, in a sentence; empty where they can.

    Raises `native.CannotCompile` where that alone is why.
    """
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or dtype not in SUFFIX:
        return f"weights are {weight.dtype} on {weight.device} and products {dtype}, but must be float32 on cpu."
    if dtype != torch.float32 and not _has_tiles():
        return f"the processor has no tiles (AMX) for products in {SUFFIX[dtype]}; use precision float32."
    _library()
    return ""


def peephole_lstm(
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    peepholes: Tensor,
    bias: Tensor,
    h0: Tensor,
    c0: Tensor,
    clip: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """As `recurrence.peephole_lstm`, with products of `dtype`."""
    given = inputs, input_weight, recurrent_weight, peepholes, bias, h0, c0
    if torch.is_grad_enabled():
        return _PeepholeLSTM.apply(*given, clip, dtype)
    _, _, hidden, cells = _forward(*given, dtype)
    return hidden[1:], cells[1:]


def stepping(layers: Sequence[Weights], width: int, dtype: torch.dtype) -> Step:
    """As `recurrence.stepping`, with products of `dtype`."""
    return _Step(layers, width, dtype)


class _Step:
    def __init__(self, layers: Sequence[Weights], width: int, dtype: torch.dtype) -> None:
        size = layers[0].recurrent_weight.shape[1]
        self.sizes = len(layers), width, size
        self.layers = [Layer.of(weights, (width, size) if at else (width,), dtype) for at, weights in enumerate(layers)]
        self.packed = (Layer * len(layers))(*self.layers)
        self.function = _function("step", dtype)
        self.states = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32

    def __call__(self, inputs: Tensor, hidden: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        batch, (layers, width, size) = len(inputs), self.sizes
        check_shapes({"inputs": inputs, "hidden": hidden, "cells": cells}, (batch, width), *[(batch, layers, size)] * 2)
        inputs, cells = inputs.float().contiguous(), cells.float().contiguous()
        hidden = hidden.to(self.states).contiguous()
        after, cells_after = torch.empty_like(hidden), torch.empty_like(cells)
        states = (hidden, cells, after, cells_after)
        call(self.function, (batch, layers, width, size), inputs, self.packed, states)
        return after, cells_after


def _forward(
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    peepholes: Tensor,
    bias: Tensor,
    h0: Tensor,
    c0: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs as they were read, activations (T, B, 4H), hidden and cell states (T + 1, B, H), the first before all."""
    (steps, batch, _), size = inputs.shape, h0.shape[1]
    seen, activations = compiled.projected(inputs, input_weight, bias, dtype)  # turned into the activations in place
    hidden, cells = seen.new_empty(steps + 1, batch, size), c0.new_empty(steps + 1, batch, size)
    hidden[0], cells[0] = h0, c0
    panels = compiled.forward_panels([recurrent_weight], dtype)
    tensors = (panels, peepholes.contiguous(), activations, hidden, cells)
    call(_function("forward", dtype), (steps, batch, size), tensors)
    return seen, activations, hidden, cells


class _PeepholeLSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        input_weight: Tensor,
        recurrent_weight: Tensor,
        peepholes: Tensor,
        bias: Tensor,
        h0: Tensor,
        c0: Tensor,
        clip: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        given = inputs, input_weight, recurrent_weight, peepholes, bias, h0, c0
        seen, activations, hidden, cells = _forward(*given, dtype)
        ctx.save_for_backward(seen, input_weight, recurrent_weight, peepholes, activations, hidden, cells)
        ctx.limit, ctx.dtype, ctx.dtypes = clip or math.inf, dtype, [each.dtype for each in given]
        ctx.set_materialize_grads(False)
        return hidden[1:], cells[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, from_hidden: Tensor | None, from_cells: Tensor | None) -> tuple[Tensor | None, ...]:
        seen, input_weight, recurrent_weight, peepholes, activations, hidden, cells = ctx.saved_tensors
        (steps, batch), size = activations.shape[:2], hidden.shape[2]
        d_inputs = torch.empty_like(seen) if ctx.needs_input_grad[0] else None
        d_input_weight, d_recurrent_weight = torch.zeros_like(input_weight), torch.zeros_like(recurrent_weight)
        d_peepholes, d_bias = cells.new_zeros(3, size), cells.new_zeros(4 * size)
        dh, dc = cells.new_zeros(2, batch, size)
        from_hidden, strides = compiled.of_hidden(from_hidden)
        from_cells = None if from_cells is None else from_cells.contiguous()
        panels, weight = compiled.backward_panels(recurrent_weight, ctx.dtype), input_weight.to(ctx.dtype)
        for part in compiled.parts(steps, compiled.AT_ONCE // (batch * 4 * size)):
            derivatives = compiled.workspace(activations[part])  # of the pre-activations, clipped
            incoming = [None if each is None else each[part] for each in (from_hidden, from_cells)]
            call(
                _function("backward", ctx.dtype),
                (len(derivatives), batch, size),
                (activations[part], panels, peepholes.contiguous(), cells[part], incoming[0], strides, incoming[1]),
                ctx.limit,
                (derivatives, d_peepholes, d_bias, dh, dc),
            )
            flat = derivatives.flatten(0, 1)
            if d_inputs is not None:
                torch.mm(flat, weight, out=d_inputs[part].flatten(0, 1))
            d_input_weight += flat.T @ seen[part].flatten(0, 1)
            d_recurrent_weight += flat.T @ hidden[part].flatten(0, 1)
        gradients = (d_inputs, d_input_weight, d_recurrent_weight, d_peepholes, d_bias, dh, dc)
        returned = [None if each is None else each.to(dtype) for each, dtype in zip(gradients, ctx.dtypes, strict=True)]
        return *returned, None, None


def _function(name: str, dtype: torch.dtype) -> Callable[..., None]:
    function: Callable[..., None] = getattr(_library(), f"{name}_{SUFFIX[dtype]}")
    return function


@cache
def _library() -> ctypes.CDLL:
    signatures: compiled.Signatures = {
        "forward": [SIZE] * 3 + [POINTER] * 5,
        "backward": [SIZE] * 3 + [POINTER] * 7 + [NUMBER] + [POINTER] * 5,
        "step": [SIZE] * 4 + [POINTER] * 6,
    }
    return compiled.load(Path(__file__).with_suffix(".cpp"), signatures)


def _has_tiles() -> bool:
    return bool(_library().has_tiles())
