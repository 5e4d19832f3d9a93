"""A layer of an LSTM with peepholes whose derivatives are clipped at every step, by one of several implementations.

`reference` has the equations and runs wherever torch does; the others compute the same, faster, where they can.

T steps, B sequences, F numbers of an input, H cells.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from seqdens.encoders.recurrence import compiled, cpu, operators, reference, window_cpu
from seqdens.encoders.recurrence.compiled import check_shapes
from seqdens.encoders.recurrence.quantised import Step, Weights
from seqdens.encoders.recurrence.window import Read
from seqdens.errors import UsageError
from seqdens.registry import choices

IMPLEMENTATIONS = ("reference", "cpu")


def peephole_lstm(
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    peepholes: Tensor,
    bias: Tensor,
    h0: Tensor,
    c0: Tensor,
    clip: float,
    implementation: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Hidden and cell states (T, B, H) after each step, for inputs (T, B, F).

    `input_weight` is W (4H, F), `recurrent_weight` U (4H, H), `peepholes` (3, H), `bias` b (4H,) of the equations in
    `reference`; `h0` and `c0` (B, H) are the state before the first step. Derivatives of the pre-activations are
    clipped to [-clip, clip], by a `clip` of 0 not at all. Where autocast to bfloat16 is on, products of float32
    weights are bfloat16, and so are the hidden states; cell states and pointwise operations have the dtype of the
    weights. Differentiable once. Raises `UsageError` where the implementation asked for cannot do this here.
    """
    dtype = product_dtype(recurrent_weight)
    _check_layer(Weights(input_weight, recurrent_weight, peepholes, bias), inputs.shape[2])
    check_shapes({"h0": h0, "c0": c0}, *[(inputs.shape[1], recurrent_weight.shape[1])] * 2)
    name = choose(implementation, recurrent_weight.device.type, recurrent_weight.dtype, dtype)
    weights = input_weight, recurrent_weight, peepholes, bias
    hidden, cells, _ = operators.peephole_lstm(inputs, *weights, h0, c0, float(clip), dtype, name)
    return hidden, cells


def stepping(layers: Sequence[Weights], width: int, implementation: str = "auto", *, int8: bool = False) -> Step:
    """A function of inputs (B, F), hidden and cell states (B, L, H) to those states after a step of all L layers.

    Each layer after the first sees the inputs, F = `width`, and after them the hidden states of the one below. Nothing
    is differentiated. Products are in int8 if `int8`, else as in `peephole_lstm`; that is settled here, and so are the
    weights. Raises `UsageError` if the implementation asked for cannot do this here.
    """
    weight = layers[0].recurrent_weight
    dtype = torch.int8 if int8 else product_dtype(weight)
    for at, weights in enumerate(layers):
        _check_layer(weights, width + weight.shape[1] * (at > 0))
    name = choose(implementation, weight.device.type, weight.dtype, dtype)
    return {"reference": reference, "cpu": cpu}[name].stepping(layers, width, dtype)


def _check_layer(weights: Weights, width: int) -> None:
    """Raises `ValueError` for weights that are not all of one dtype, or not those of a layer with inputs of `width`."""
    size = weights.recurrent_weight.shape[1]
    check_shapes(weights._asdict(), (4 * size, width), (4 * size, size), (3, size), (4 * size,))
    if len({each.dtype for each in weights}) > 1:
        raise ValueError(
            f"weights of one layer are {', '.join(str(each.dtype) for each in weights)}, but must be alike."
        )


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
    implementation: str = "auto",
) -> Read:
    """As `peephole_lstm`, for a layer whose input at each step has the window of the step before after `inputs`.

    `input_weight` (4H, F + A) has the window's columns last; the window's own weights, states and limit are those of
    `window.recurrence`. `characters` (B, U + 1) are from 0 to A - 1, and A from the end of a text on, which is
    somewhere. Hidden states are of the products' dtype, all else of the weights'.
    """
    dtype, size, batch = product_dtype(recurrent_weight), recurrent_weight.shape[1], inputs.shape[1]
    _check_layer(Weights(input_weight, recurrent_weight, peepholes, bias), inputs.shape[2] + w0.shape[1])
    check_shapes({"h0": h0, "c0": c0, "window_weight": window_weight}, *[(batch, size)] * 2, (len(window_bias), size))
    check_shapes({"w0": w0, "kappa0": kappa0}, (batch, w0.shape[1]), (batch, len(window_bias) // 3))
    check_shapes({"characters": characters}, (batch, characters.shape[1]))
    name = choose(implementation, recurrent_weight.device.type, recurrent_weight.dtype, dtype)
    weights = input_weight, recurrent_weight, peepholes, bias, window_weight, window_bias
    limits = float(clip), float(window_clip)
    *read, _, _ = operators.window_lstm(inputs, *weights, h0, c0, w0, kappa0, characters, *limits, dtype, name)
    return Read(*read)


def window_stepping(
    layers: Sequence[Weights],
    window_weight: Tensor,
    window_bias: Tensor,
    characters: Tensor,
    width: int,
    implementation: str = "auto",
) -> window_cpu.Step | None:
    """A step of all L layers, the first of which reads the text, as `stepping`; None where that would be no faster.

    The input weights of the first layer are for inputs, F = `width`, and the window of the step before, those of the
    others for inputs, this step's window, and the layer below; all else is as in `window_lstm`.
    """
    weight = layers[0].recurrent_weight
    dtype = product_dtype(weight)
    if choose(implementation, weight.device.type, weight.dtype, dtype) == "reference":
        return None
    return window_cpu.Step(layers, window_weight, window_bias, characters, width, dtype)


def product_dtype(weight: Tensor) -> torch.dtype:
    """bfloat16 where autocast to it is on and the weights are float32, else theirs."""
    device = weight.device.type
    reduced = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16
    return torch.bfloat16 if reduced and weight.dtype == torch.float32 else weight.dtype


@torch.compiler.assume_constant_result
def choose(implementation: str, device: str, weights: torch.dtype, dtype: torch.dtype) -> str:
    """Return the name of the implementation for weights of that dtype and products of `dtype` on a kind of device.

    "auto" is the fastest that is possible, with a warning if a person can make a faster one possible. Raises
    `UsageError` if the one asked for is not possible.
    """
    if implementation == "reference":
        return implementation
    if implementation not in ("auto", *IMPLEMENTATIONS):
        known = choices(implementation, ("auto", *IMPLEMENTATIONS))
        raise UsageError(f"there is no recurrence {implementation!r}; {known}")
    obstacle = compiled.obstacle(device, weights, dtype)
    if obstacle and implementation == "auto" and device == "cpu" and weights == torch.float32:
        _warn(obstacle)
    if obstacle and implementation == "cpu":
        raise UsageError(f"recurrence 'cpu' cannot be used: {obstacle}")
    return "reference" if obstacle else "cpu"


@cache
def _warn(obstacle: str) -> None:
    warnings.warn(f"The LSTM runs as plain torch operations, which is slower: {obstacle}", stacklevel=2)
