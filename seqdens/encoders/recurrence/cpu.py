"""The recurrence in C++ (native/lstm.cpp), with products in float32, bfloat16 and int8.

T steps, B sequences, F numbers of an input, L layers, H cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from seqdens import native
from seqdens.encoders.recurrence import compiled
from seqdens.encoders.recurrence.compiled import NUMBER, POINTER, PRODUCTS, SIZE, Layer, call, check_shapes
from seqdens.encoders.recurrence.quantised import Step, Weights

SIGNATURES: native.Signatures = {
    "forward": [SIZE] * 3 + [POINTER] * 7,
    "backward": [SIZE] * 3 + [POINTER] * 8 + [NUMBER] + [POINTER] * 5,
    "step": [SIZE] * 4 + [POINTER] * 6,
}


def forward(
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    peepholes: Tensor,
    bias: Tensor,
    h0: Tensor,
    c0: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `reference.forward` does; the activations have `dtype`."""
    (steps, batch, _), size = inputs.shape, h0.shape[1]
    activations = compiled.projected(inputs, input_weight, bias, dtype)  # turned into the activations in place
    hidden, cells = activations.new_empty(steps, batch, size), c0.new_empty(steps, batch, size, dtype=torch.float32)
    panels = compiled.forward_panels([recurrent_weight], dtype)
    first = h0.to(dtype).contiguous(), c0.float().contiguous()
    call(
        function("forward", dtype),
        (steps, batch, size),
        (panels, peepholes.contiguous(), *first, activations, hidden, cells),
    )
    return hidden, cells, activations


def backward(
    from_hidden: Tensor | None,
    from_cells: Tensor | None,
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    peepholes: Tensor,
    h0: Tensor,
    c0: Tensor,
    hidden: Tensor,
    cells: Tensor,
    activations: Tensor,
    clip: float,
    dtype: torch.dtype,
    wants_inputs: bool,
) -> tuple[Tensor, ...]:
    """Return what `reference.backward` does."""
    (steps, batch), size = activations.shape[:2], hidden.shape[2]
    seen, weight = inputs.to(dtype), input_weight.to(dtype)
    d_inputs = torch.empty_like(seen, memory_format=torch.contiguous_format) if wants_inputs else seen.new_empty(0)
    d_input_weight, d_recurrent_weight = torch.zeros_like(input_weight), torch.zeros_like(recurrent_weight)
    d_peepholes, d_bias = cells.new_zeros(3, size), cells.new_zeros(4 * size)
    dh, dc = cells.new_zeros(batch, size), cells.new_zeros(batch, size)
    from_hidden, strides = compiled.of_hidden(None if from_hidden is None else from_hidden.to(dtype))
    from_cells = None if from_cells is None else from_cells.contiguous()
    first, panels = c0.float().contiguous(), compiled.backward_panels(recurrent_weight, dtype)
    for part in compiled.parts(steps, compiled.AT_ONCE // (batch * 4 * size)):
        derivatives = compiled.workspace(activations[part])  # of the pre-activations, clipped
        incoming = [None if each is None else each[part] for each in (from_hidden, from_cells)]
        call(
            function("backward", dtype),
            (len(derivatives), batch, size),
            (activations[part], panels, peepholes.contiguous(), compiled.before(first, cells, part), cells[part]),
            (incoming[0], strides, incoming[1]),
            clip or math.inf,
            (derivatives, d_peepholes, d_bias, dh, dc),
        )
        flat = derivatives.flatten(0, 1)
        if wants_inputs:
            torch.mm(flat, weight, out=d_inputs[part].flatten(0, 1))
        d_input_weight += flat.T @ seen[part].flatten(0, 1)
        compiled.add_recurrent(d_recurrent_weight, derivatives, h0, hidden, part)
    return d_inputs, d_input_weight, d_recurrent_weight, d_peepholes, d_bias, dh, dc


def stepping(layers: Sequence[Weights], width: int, dtype: torch.dtype) -> Step:
    """Return what `recurrence.stepping` does, with products of `dtype`."""
    return _Step(layers, width, dtype)


class _Step:
    def __init__(self, layers: Sequence[Weights], width: int, dtype: torch.dtype) -> None:
        size = layers[0].recurrent_weight.shape[1]
        self.sizes = len(layers), width, size
        self.layers = [Layer.of(weights, (width, size) if at else (width,), dtype) for at, weights in enumerate(layers)]
        self.packed = (Layer * len(layers))(*self.layers)
        self.function = function("step", dtype)
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


def function(name: str, dtype: torch.dtype) -> Callable[..., None]:
    """Return the function of lstm.cpp for products of `dtype`."""
    return native.function(name, PRODUCTS[dtype], SIGNATURES[name])
