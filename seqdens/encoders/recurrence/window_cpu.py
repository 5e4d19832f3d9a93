"""The layer that reads a text, in C++ (native/window.cpp), and the steps of whole networks that have it below.

T steps, B sequences, F numbers of an input, L layers, H cells, A characters of the alphabet, U places of a text with
the one after it, K Gaussians. Of each step are kept `moves` (blocks of K, 3, 16): importance, narrowness, advance.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from seqdens import native
from seqdens.encoders.recurrence import compiled
from seqdens.encoders.recurrence.compiled import LANES, NUMBER, POINTER, PRODUCTS, SIZE, Layer, call, check_shapes
from seqdens.encoders.recurrence.quantised import Weights

SIGNATURES: native.Signatures = {
    "window_forward": [SIZE] * 3 + [POINTER] * 14,
    "window_backward": [SIZE] * 3 + [POINTER] * 8 + [NUMBER] + [POINTER] * 10 + [NUMBER] + [POINTER] * 3,
    "window_step": [SIZE] * 4 + [POINTER] * 12,
}


def forward(
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
    dtype: torch.dtype,
) -> tuple[Tensor, ...]:
    """Return what `window.forward` does; the activations have `dtype`, the moves are (T, B, blocks of K, 3, 16)."""
    (steps, batch, width), size = inputs.shape, h0.shape[1]
    of_inputs, of_window = input_weight.tensor_split((width,), 1)
    activations = compiled.projected(inputs, of_inputs, bias, dtype)  # turned into the activations in place
    hidden = activations.new_empty(steps, batch, size)
    first = [each.float().contiguous() for each in (c0, w0, kappa0)]
    cells, windows, kappa = (each.new_empty(steps, *each.shape) for each in first)
    moves = cells.new_empty(steps, batch, moves_of(kappa0.shape[1]))
    phi = cells.new_empty(steps, batch, characters.shape[1])
    window = _Window.of(window_weight, window_bias, characters, w0.shape[1])
    panels = compiled.forward_panels([recurrent_weight, of_window], dtype)
    call(
        function("window_forward", dtype),
        (steps, batch, size),
        (panels, peepholes.contiguous(), h0.to(dtype).contiguous(), first[0], activations, hidden, cells),
        ctypes.byref(window),
        (*first[1:], moves, kappa, phi, windows),
    )
    return hidden, cells, windows, kappa, phi, activations, moves


def backward(
    from_hidden: Tensor | None,
    from_cells: Tensor | None,
    from_window: Tensor | None,
    from_kappa: Tensor | None,
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    peepholes: Tensor,
    window_weight: Tensor,
    window_bias: Tensor,
    h0: Tensor,
    c0: Tensor,
    w0: Tensor,
    kappa0: Tensor,
    characters: Tensor,
    hidden: Tensor,
    cells: Tensor,
    windows: Tensor,
    kappa: Tensor,
    activations: Tensor,
    moves: Tensor,
    clip: float,
    window_clip: float,
    dtype: torch.dtype,
    wants_inputs: bool,
) -> tuple[Tensor, ...]:
    """Return what `window.backward` does."""
    (steps, batch, width), size = inputs.shape, hidden.shape[2]
    from_hidden, strides = compiled.of_hidden(None if from_hidden is None else from_hidden.to(dtype))
    others = [each if each is None else each.contiguous() for each in (from_cells, from_window, from_kappa)]
    seen, (of_inputs, of_window) = inputs.to(dtype), (each.to(dtype) for each in input_weight.tensor_split((width,), 1))
    window = _Window.of(window_weight, window_bias, characters, windows.shape[2])
    panels = torch.cat([compiled.backward_panels(each, dtype) for each in (recurrent_weight, of_window)])
    d_inputs = torch.empty_like(seen, memory_format=torch.contiguous_format) if wants_inputs else seen.new_empty(0)
    d_input_weight, d_recurrent_weight = torch.zeros_like(input_weight), torch.zeros_like(recurrent_weight)
    d_of_inputs, d_of_window = d_input_weight.tensor_split((width,), 1)
    d_peepholes, d_bias = cells.new_zeros(3, size), cells.new_zeros(4 * size)
    d_window_weight, d_window_bias = cells.new_zeros(moves.shape[2], size), cells.new_zeros(moves.shape[2], 1)
    dh, dc, dw, dk = (torch.zeros_like(each[0]) for each in (cells, cells, windows, kappa))
    first = c0.float().contiguous()
    for part in compiled.parts(steps, compiled.AT_ONCE // (batch * 4 * size)):
        dz, d_moves = compiled.workspace(activations[part]), torch.empty_like(moves[part])
        incoming = [each if each is None else each[part] for each in (from_hidden, *others)]
        call(
            function("window_backward", dtype),
            (len(dz), batch, size),
            (activations[part], panels, peepholes.contiguous(), compiled.before(first, cells, part), cells[part]),
            (incoming[0], strides, incoming[1]),
            clip or math.inf,
            (dz, d_peepholes, d_bias, dh, dc),
            ctypes.byref(window),
            (moves[part], kappa[part], *incoming[2:]),
            window_clip or math.inf,
            (d_moves, dw, dk),
        )
        flat, flat_moves = dz.flatten(0, 1), d_moves.flatten(0, 1)
        if wants_inputs:
            torch.mm(flat, of_inputs, out=d_inputs[part].flatten(0, 1))
        d_of_inputs += flat.T @ seen[part].flatten(0, 1)
        compiled.add_recurrent(d_of_window, dz, w0, windows, part)
        compiled.add_recurrent(d_recurrent_weight, dz, h0, hidden, part)
        d_window_weight += flat_moves.T @ hidden[part].flatten(0, 1).to(moves.dtype)
        d_window_bias += flat_moves.sum(0).unsqueeze(1)
    components = kappa.shape[2]
    of_moves = _unpacked(d_window_weight, components), _unpacked(d_window_bias, components).squeeze(1)
    return d_inputs, d_input_weight, d_recurrent_weight, d_peepholes, d_bias, *of_moves, dh, dc, dw, dk


def moves_of(components: int) -> int:
    """Return how many numbers the moves of a step have."""
    return -(-components // LANES) * 3 * LANES


class Step:
    """What `recurrence.window_stepping` returns, with products of `dtype`."""

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
        self.function = function("window_step", dtype)

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


def _unpacked(moves: Tensor, components: int) -> Tensor:
    """Return (blocks of K, 3, 16) x N as (3K, N)."""
    return moves.unflatten(0, (-1, 3, LANES)).transpose(0, 1).flatten(1, 2)[:, :components].flatten(0, 1)


def function(name: str, dtype: torch.dtype) -> Callable[..., None]:
    """Return the function of window.cpp for products of `dtype`."""
    return native.function(name, PRODUCTS[dtype], SIGNATURES[name])
