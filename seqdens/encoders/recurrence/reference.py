"""The recurrence of an LSTM with peepholes (Graves 2013, Eqs 7-11), whose derivatives are clipped at every step.

T steps, B sequences, H cells. Step t maps h(t-1), c(t-1) and the projected input z(t) = W x(t) + b to

    i = sigmoid(z_i + U_i h(t-1) + p_i c(t-1))        input gate
    f = sigmoid(z_f + U_f h(t-1) + p_f c(t-1))        forget gate
    g = tanh   (z_g + U_g h(t-1))                     what is written
    c(t) = f c(t-1) + i g                             cell
    o = sigmoid(z_o + U_o h(t-1) + p_o c(t))          output gate
    h(t) = o tanh(c(t))                               hidden

The arguments of sigmoid and tanh are the pre-activations. Gates stand in the order i, f, g, o, as in
`torch.nn.LSTM`; peepholes in the order i, f, o.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from seqdens.encoders.recurrence.compiled import check_shapes
from seqdens.encoders.recurrence.quantised import Step, Weights, dequantised, rounded

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input  # derivative * y * (1 - y)
_tanh_backward = torch.ops.aten.tanh_backward.grad_input  # derivative * (1 - y * y)


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
    """Return hidden and cell states (T, B, H) after each step, and the activations i, f, g, o (T, B, 4H).

    The arguments are those of `recurrence.peephole_lstm`; matrix products and hidden states have `dtype`, all else has
    the dtype of the weights.
    """
    gates = functional.linear(inputs.to(dtype), input_weight.to(dtype), bias.to(dtype))
    # pre-activations, until a step applies its sigmoid or tanh
    activations = gates.to(recurrent_weight.dtype, copy=True, memory_format=torch.contiguous_format)
    (steps, batch), size = inputs.shape[:2], h0.shape[1]
    recurrent = recurrent_weight.to(dtype).T
    hidden, cells = activations.new_empty(steps, batch, size, dtype=dtype), activations.new_empty(steps, batch, size)
    h, c = h0, c0.to(cells.dtype)
    for t, z in enumerate(activations.unbind()):
        add_product(z, h, recurrent)
        h = hidden[t].copy_(activate(z, c, peepholes, cells[t]))
        c = cells[t]
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
    """Return the derivatives of the first seven arguments of `forward`, given those of hidden and cell states.

    The derivatives of the loss with respect to the pre-activations are clipped to [-clip, clip], and the clipped ones
    are what travels on: to earlier steps, weights and inputs (Graves 2013, section 4). A `clip` of 0 clips nothing.
    Those of the inputs are empty unless wanted.
    """
    recurrent = recurrent_weight.to(dtype)
    clipped = torch.empty_like(activations, dtype=dtype)
    dz = torch.empty_like(activations[0])
    dh, dc = cells.new_zeros(h0.shape), cells.new_zeros(h0.shape)
    d_peepholes = torch.zeros_like(peepholes)
    for t in reversed(range(len(activations))):
        if from_hidden is not None:
            dh += from_hidden[t]
        if from_cells is not None:
            dc += from_cells[t]
        before = cells[t - 1] if t else c0
        activate_backward(dh, dc, activations[t], cells[t], before, peepholes, clip or math.inf, dz, d_peepholes)
        clipped[t] = dz
        add_product(dh.zero_(), clipped[t], recurrent)
    states_before = torch.cat((h0.to(dtype).unsqueeze(0), hidden[:-1]))
    d_recurrent_weight = (clipped.flatten(0, 1).T @ states_before.flatten(0, 1)).to(recurrent_weight.dtype)
    of_inputs = projection_backward(clipped, inputs, input_weight, wants_inputs)
    return of_inputs[0], of_inputs[1], d_recurrent_weight, d_peepholes, of_inputs[2], dh, dc


def activate(z: Tensor, before: Tensor, peepholes: Tensor, cell: Tensor) -> Tensor:
    """Return the hidden states (B, H) of a step.

    `z` (B, 4H) are the pre-activations without peepholes, and become i, f, g and o. The cell states c(t) (B, H) are
    written to `cell`; `before` are c(t-1).
    """
    i, f, g, o = z.chunk(4, dim=1)
    z.view(len(z), 4, -1)[:, :2].addcmul_(before.unsqueeze(1), peepholes[:2]).sigmoid_()
    g.tanh_()
    torch.mul(f, before, out=cell).addcmul_(i, g)
    o.addcmul_(cell, peepholes[2]).sigmoid_()
    return cell.tanh().mul_(o)


def activate_backward(
    dh: Tensor,
    dc: Tensor,
    activations: Tensor,
    cell: Tensor,
    before: Tensor,
    peepholes: Tensor,
    limit: float,
    dz: Tensor,
    d_peepholes: Tensor,
) -> None:
    """Write the derivatives of the pre-activations of a step, clipped to [-limit, limit], to `dz` (B, 4H).

    `dh` and `dc` (B, H) are those of hidden and cell states. `dc` becomes that of the cell states before, `dh` is used
    up, and that of the peepholes is added to `d_peepholes` (3, H).
    """
    i, f, g, o = activations.chunk(4, dim=1)
    di, df, dg, do = dz.chunk(4, dim=1)
    i_f, di_df = (each.view(len(each), 4, -1)[:, :2] for each in (activations, dz))
    tanh_c = cell.tanh()
    _sigmoid_backward(torch.mul(dh, tanh_c, out=do), o, grad_input=do).clamp_(-limit, limit)
    dc += _tanh_backward(dh.mul_(o), tanh_c, grad_input=dh)
    dc.addcmul_(do, peepholes[2])
    torch.mul(dc, g, out=di)
    torch.mul(dc, before, out=df)
    torch.mul(dc, i, out=dg)
    _sigmoid_backward(di_df, i_f, grad_input=di_df)
    _tanh_backward(dg, g, grad_input=dg)
    dz[:, : 3 * dh.shape[1]].clamp_(-limit, limit)
    d_peepholes[:2] += (di_df * before.unsqueeze(1)).sum(0)
    d_peepholes[2] += (do * cell).sum(0)
    dc.mul_(f).addcmul_(di, peepholes[0]).addcmul_(df, peepholes[1])


def projection_backward(
    gates: Tensor, inputs: Tensor, weight: Tensor, wants_inputs: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives of inputs (T, B, F), W (4H, F) and b of W x + b, given those of the `gates` (T, B, 4H)."""
    flat = gates.flatten(0, 1)
    d_inputs = gates @ weight.to(gates.dtype) if wants_inputs else gates.new_empty(0)
    d_weight = flat.T @ inputs.to(gates.dtype).flatten(0, 1)
    return d_inputs, d_weight.to(weight.dtype), flat.sum(0, dtype=weight.dtype)


def stepping(layers: Sequence[Weights], width: int, dtype: torch.dtype) -> Step:
    """As `recurrence.stepping`, with products of `dtype`."""
    seen_as: Callable[[Tensor], Tensor] = Tensor.detach
    layers = [Weights(*(each.detach().clone() for each in weights)) for weights in layers]
    if dtype == torch.int8:
        layers, seen_as, dtype = [dequantised(weights, width) for weights in layers], rounded, layers[0].bias.dtype

    @torch.no_grad()
    def step(inputs: Tensor, hidden: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        seen, after, states = inputs, [], (inputs.shape[0], len(layers), layers[0].peepholes.shape[1])
        check_shapes({"hidden": hidden, "cells": cells}, states, states)
        for weights, h0, c0 in zip(layers, hidden.unbind(1), cells.unbind(1), strict=True):
            with torch.autocast(inputs.device.type, enabled=False):  # products have `dtype`
                h, c, _ = forward(seen.unsqueeze(0), *weights, seen_as(h0), c0, dtype)
            after.append((h[0], c[0]))
            seen = torch.cat((inputs.to(h.dtype), seen_as(h[0])), 1)
        new_hidden, new_cells = zip(*after, strict=True)
        return torch.stack(new_hidden, 1), torch.stack(new_cells, 1)

    return step


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a b to `total` in place; the product has the dtype of `b`."""
    if total.dtype == a.dtype == b.dtype:
        total.addmm_(a, b)
    else:
        total.add_(a.to(b.dtype) @ b)
