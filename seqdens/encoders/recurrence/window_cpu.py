"""The layer that reads a text, in C++ (window.cpp), and the steps of whole networks that have it below.

T steps, B sequences, F numbers of an input, L layers, H cells, A characters of the alphabet, U places of a text with
the one after it, K Gaussians. Of each step are kept `moves` (blocks of K, 3, 16): importance, narrowness, advance.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqdens.encoders.recurrence import compiled, cpu
from seqdens.encoders.recurrence.compiled import NUMBER, POINTER, SIZE, SUFFIX, Layer, call, check_shapes
from seqdens.encoders.recurrence.quantised import Weights
from seqdens.encoders.recurrence.window import Read


def obstacle(weight: Tensor, dtype: torch.dtype) -> str:
    """As `cpu.obstacle`."""
    found = cpu.obstacle(weight, dtype)
    if not found:
        _library()
    return found


def window_lstm(
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    peepholes: Tensor,
    bias: Tensor,
    window_weight: Tensor,
    window_bias: Tensor,
    h0: Tensor,
    c0: Tensor,
    w0: Tensor,
    kappa0: Tensor,
    characters: Tensor,
    clip: float,
    window_clip: float,
    dtype: torch.dtype,
) -> Read:
    """As `recurrence.window_lstm`, with products of `dtype`."""
    layer = inputs, input_weight, recurrent_weight, peepholes, bias, window_weight, window_bias
    return Read(*_WindowLSTM.apply(*layer, h0, c0, w0, kappa0, characters, clip, window_clip, dtype))


class Step:
    """As `recurrence.window_stepping`, with products of `dtype`."""

    def __init__(
        self,
        layers: Sequence[Weights],
        window_weight: Tensor,
        window_bias: Tensor,
        characters: Tensor,
        width: int,
        dtype: torch.dtype,
    ) -> None:
        first, *others = layers
        size, alphabet = first.recurrent_weight.shape[1], first.input_weight.shape[1] - width
        self.sizes = len(layers), width, size, alphabet, len(window_bias) // 3
        self.layers = [
            Layer.of(first, (width, alphabet), dtype),
            *(Layer.of(weights, (width, alphabet, size), dtype) for weights in others),
        ]
        self.packed = (Layer * len(layers))(*self.layers)
        self.window = _Window.of(window_weight, window_bias, characters, alphabet)
        self.function = _function("step", dtype)

    def keep(self, records: Tensor) -> None:
        """From now on, there are the texts of those `records` (N,) alone."""
        self.window.read(self.window.text.index_select(0, records))

    def __call__(self, inputs: Tensor, hidden: Tensor, cells: Tensor, kappa: Tensor, window: Tensor) -> Stepped:
        given = (inputs, hidden, cells, kappa, window)
        batch, (layers, width, size, alphabet, components) = len(inputs), self.sizes
        check_shapes(
            {"inputs": inputs, "hidden": hidden, "cells": cells, "kappa": kappa, "window": window},
            (batch, width),
            *[(batch, layers, size)] * 2,
            (batch, components),
            (batch, alphabet),
        )
        check_shapes({"texts": self.window.text}, (batch, self.window.text.shape[1]))
        inputs, hidden, cells, kappa, window = (each.float().contiguous() for each in given)
        after = Stepped(
            torch.empty_like(hidden),
            torch.empty_like(cells),
            torch.empty_like(kappa),
            torch.empty_like(window),
            torch.empty(batch, dtype=torch.bool),
        )
        states = (hidden, cells, after.hidden, after.cells)
        text = (kappa, window, after.kappa, after.window, after.finished)
        call(self.function, (batch, layers, width, size), inputs, self.packed, states, ctypes.byref(self.window), text)
        return after


class Stepped(NamedTuple):
    """The states after a step, and of which records nothing is left to write."""

    hidden: Tensor  # (B, L, H)
    cells: Tensor  # (B, L, H)
    kappa: Tensor  # (B, K)
    window: Tensor  # (B, A)
    finished: Tensor  # (B,) bool


class _Window(ctypes.Structure):
    """The struct of window.cpp; `tensors` and `text` are what it points to."""

    _fields_ = [
        *((name, SIZE) for name in ("alphabet", "places", "components")),
        *((name, POINTER) for name in ("characters", "panels", "backward_panels", "bias")),
    ]
    tensors: tuple[Tensor, ...]
    text: Tensor

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor, characters: Tensor, alphabet: int) -> _Window:
        tensors = (
            compiled.forward_panels([weight], torch.float32, 3),
            compiled.backward_panels(weight, torch.float32, 3),
            compiled.blocks(compiled.padded(bias.unsqueeze(1), 1, torch.float32, 3)).contiguous(),
        )
        window = cls(alphabet, 0, len(bias) // 3, None, *(each.data_ptr() for each in tensors))
        window.tensors = tensors
        if characters.numel() and not 0 <= characters.amin() <= characters.amax() <= alphabet:
            raise IndexError(f"a character is not one of the {alphabet} of the alphabet")
        window.read(characters.int())
        return window

    def read(self, characters: Tensor) -> None:
        """These texts (B, U)."""
        self.text = characters.contiguous()
        self.characters, self.places = self.text.data_ptr(), self.text.shape[1]


class _WindowLSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        input_weight: Tensor,
        recurrent_weight: Tensor,
        peepholes: Tensor,
        bias: Tensor,
        window_weight: Tensor,
        window_bias: Tensor,
        h0: Tensor,
        c0: Tensor,
        w0: Tensor,
        kappa0: Tensor,
        characters: Tensor,
        clip: float,
        window_clip: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, ...]:
        (steps, batch, width), size = inputs.shape, h0.shape[1]
        of_inputs, of_window = input_weight.tensor_split((width,), 1)
        seen, activations = compiled.projected(inputs, of_inputs, bias, dtype)  # turned into the activations in place
        hidden = seen.new_empty(steps + 1, batch, size)
        cells, windows, kappa = (each.new_empty(steps + 1, *each.shape) for each in (c0, w0, kappa0))
        for states, first in ((hidden, h0), (cells, c0), (windows, w0), (kappa, kappa0)):
            states[0] = first
        window = _Window.of(window_weight, window_bias, characters, w0.shape[1])
        moves = kappa.new_empty(steps, batch, window.tensors[2].numel())
        phi = kappa.new_empty(steps, batch, characters.shape[1])
        panels = compiled.forward_panels([recurrent_weight, of_window], dtype)
        call(
            _function("forward", dtype),
            (steps, batch, size),
            (panels, peepholes.contiguous(), activations, hidden, cells),
            ctypes.byref(window),
            (moves, kappa, phi, windows),
        )
        weights = input_weight, recurrent_weight, peepholes, window_weight, window_bias
        ctx.save_for_backward(*weights, characters, seen, activations, hidden, cells, windows, kappa, moves)
        ctx.limits, ctx.dtype = (clip or math.inf, window_clip or math.inf), dtype
        ctx.dtypes = [each.dtype for each in (inputs, *weights[:3], bias, *weights[3:], h0, c0, w0, kappa0)]
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(phi)
        return hidden[1:], cells[1:], windows[1:], kappa[1:], phi

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *derivatives: Tensor | None) -> tuple[Tensor | None, ...]:
        input_weight, recurrent_weight, peepholes, window_weight, window_bias, *kept = ctx.saved_tensors
        characters, seen, activations, hidden, cells, windows, kappa, moves = kept
        (steps, batch, width), size, (limit, window_limit) = seen.shape, hidden.shape[2], ctx.limits
        from_hidden, strides = compiled.of_hidden(derivatives[0])
        from_cells, from_windows, from_kappa = (
            each if each is None else each.contiguous() for each in derivatives[1:4]
        )
        of_inputs, of_window = (each.to(ctx.dtype) for each in input_weight.tensor_split((width,), 1))
        window = _Window.of(window_weight, window_bias, characters, windows.shape[2])
        panels = torch.cat([compiled.backward_panels(each, ctx.dtype) for each in (recurrent_weight, of_window)])
        d_inputs = torch.empty_like(seen) if ctx.needs_input_grad[0] else None
        d_input_weight, d_recurrent_weight = torch.zeros_like(input_weight), torch.zeros_like(recurrent_weight)
        d_of_inputs, d_of_window = d_input_weight.tensor_split((width,), 1)
        d_peepholes, d_bias = cells.new_zeros(3, size), cells.new_zeros(4 * size)
        d_window_weight, d_window_bias = cells.new_zeros(moves.shape[2], size), cells.new_zeros(moves.shape[2], 1)
        dh, dc, dw, dk = (torch.zeros_like(each[0]) for each in (cells, cells, windows, kappa))
        for part in compiled.parts(steps, compiled.AT_ONCE // (batch * 4 * size)):
            dz, d_moves = compiled.workspace(activations[part]), torch.empty_like(moves[part])
            incoming = [
                each if each is None else each[part] for each in (from_hidden, from_cells, from_windows, from_kappa)
            ]
            call(
                _function("backward", ctx.dtype),
                (len(dz), batch, size),
                (activations[part], panels, peepholes.contiguous(), cells[part], incoming[0], strides, incoming[1]),
                limit,
                (dz, d_peepholes, d_bias, dh, dc),
                ctypes.byref(window),
                (moves[part], kappa[part], *incoming[2:]),
                window_limit,
                (d_moves, dw, dk),
            )
            flat, flat_moves = dz.flatten(0, 1), d_moves.flatten(0, 1)
            if d_inputs is not None:
                torch.mm(flat, of_inputs, out=d_inputs[part].flatten(0, 1))
            d_of_inputs += flat.T @ seen[part].flatten(0, 1)
            d_of_window += flat.T @ windows[part].flatten(0, 1).to(ctx.dtype)
            d_recurrent_weight += flat.T @ hidden[part].flatten(0, 1)
            d_window_weight += flat_moves.T @ hidden[1:][part].flatten(0, 1).to(moves.dtype)
            d_window_bias += flat_moves.sum(0).unsqueeze(1)
        components = kappa.shape[2]
        of_moves = _unpacked(d_window_weight, components), _unpacked(d_window_bias, components).squeeze(1)
        gradients = d_inputs, d_input_weight, d_recurrent_weight, d_peepholes, d_bias, *of_moves, dh, dc, dw, dk
        returned = [None if each is None else each.to(dtype) for each, dtype in zip(gradients, ctx.dtypes, strict=True)]
        return *returned, None, None, None, None


def _unpacked(moves: Tensor, components: int) -> Tensor:
    """(blocks of K, 3, 16) x N as (3K, N)."""
    return moves.unflatten(0, (-1, 3, compiled.LANES)).transpose(0, 1).flatten(1, 2)[:, :components].flatten(0, 1)


def _function(name: str, dtype: torch.dtype) -> Callable[..., None]:
    function: Callable[..., None] = getattr(_library(), f"{name}_{SUFFIX[dtype]}")
    return function


@cache
def _library() -> ctypes.CDLL:
    signatures: compiled.Signatures = {
        "forward": [SIZE] * 3 + [POINTER] * 10,
        "backward": [SIZE] * 3 + [POINTER] * 7 + [NUMBER] + [POINTER] * 10 + [NUMBER] + [POINTER] * 3,
        "step": [SIZE] * 4 + [POINTER] * 12,
    }
    return compiled.load(Path(__file__).with_name("window.cpp"), signatures)
