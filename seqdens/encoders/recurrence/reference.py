"""The recurrence of an LSTM with peepholes (Graves 2013, Eqs 7-11), whose derivatives are clipped at every step.

T steps, B sequences, H cells. Step t maps h(t-1), c(t-1) and the projected input z(t) = W x(t) + b to

    i = sigmoid(z_i + U_i h(t-1) + p_i c(t-1))        input gate
    f = sigmoid(z_f + U_f h(t-1) + p_f c(t-1))        forget gate
    g = tanh   (z_g + U_g h(t-1))                     what is written
    c(t) = f c(t-1) + i g                             cell
    o = sigmoid(z_o + U_o h(t-1) + p_o c(t))          output gate
    h(t) = o tanh(c(t))                               hidden

The arguments of sigmoid and tanh are the pre-activations. Gates stand in the order i, f, g, o, as in
`torch.nn.LSTM`; peepholes in the order i, f, o. Every buffer of states has T + 1 entries: entry t is the
state before step t.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from seqdens.encoders.recurrence.quantised import Step, Weights, dequantised, rounded

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input  # derivative * y * (1 - y)
_tanh_backward = torch.ops.aten.tanh_backward.grad_input  # derivative * (1 - y * y)


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
    with torch.autocast(inputs.device.type, enabled=False):
        gates = functional.linear(inputs.to(dtype), input_weight.to(dtype), bias.to(dtype))
    hidden, cells = recurrence(gates, recurrent_weight, peepholes, h0, c0, clip, dtype)
    return hidden.to(dtype), cells


def stepping(layers: Sequence[Weights], width: int, dtype: torch.dtype) -> Step:
    """As `recurrence.stepping`, with products of `dtype`."""
    seen_as: Callable[[Tensor], Tensor] = Tensor.detach
    layers = [Weights(*(each.detach().clone() for each in weights)) for weights in layers]
    if dtype == torch.int8:
        layers, seen_as, dtype = [dequantised(weights, width) for weights in layers], rounded, layers[0].bias.dtype

    @torch.no_grad()
    def step(inputs: Tensor, hidden: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        seen, after = inputs, []
        for weights, h0, c0 in zip(layers, hidden.unbind(1), cells.unbind(1), strict=True):
            h, c = peephole_lstm(seen.unsqueeze(0), *weights, seen_as(h0), c0, 0.0, dtype)
            after.append((h[0], c[0]))
            seen = torch.cat((inputs.to(h.dtype), seen_as(h[0])), 1)
        new_hidden, new_cells = zip(*after, strict=True)
        return torch.stack(new_hidden, 1), torch.stack(new_cells, 1)

    return step


def recurrence(
    gates: Tensor, weight: Tensor, peepholes: Tensor, h0: Tensor, c0: Tensor, clip: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Hidden and cell states (T, B, H) after each step.

    `gates` (T, B, 4H) are the projected inputs with the bias, `weight` (4H, H) is U, `peepholes` are (3, H), `h0` and
    `c0` (B, H) the state before the first step. The derivatives of the loss with respect to the pre-activations are
    clipped to [-clip, clip], and the clipped ones are what travels on: to earlier steps, weights and inputs
    (Graves 2013, section 4). A `clip` of 0 clips nothing.

    States and pointwise operations have the dtype of `weight`, the matrix products `dtype`. Differentiable once.
    """
    return _PeepholeLSTM.apply(gates, weight, peepholes, h0, c0, clip, dtype)


class _PeepholeLSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        gates: Tensor,
        weight: Tensor,
        peepholes: Tensor,
        h0: Tensor,
        c0: Tensor,
        clip: float,
        product_dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        steps, batch, size = len(gates), *h0.shape
        p_if, p_o = peepholes[:2], peepholes[2]
        recurrent = weight.to(product_dtype).T
        # pre-activations, until a step applies its sigmoid or tanh
        activations = gates.to(weight.dtype, copy=True, memory_format=torch.contiguous_format)
        hidden = weight.new_empty(steps + 1, batch, size)
        cells = weight.new_empty(steps + 1, batch, size)
        hidden[0], cells[0] = h0, c0
        for t, z in enumerate(activations.unbind()):
            _add_product(z, hidden[t], recurrent)
            i_f = z.view(batch, 4, size)[:, :2]
            i, f, g, o = z.chunk(4, dim=1)
            c = cells[t + 1]
            i_f.addcmul_(cells[t].unsqueeze(1), p_if).sigmoid_()
            g.tanh_()
            torch.mul(f, cells[t], out=c).addcmul_(i, g)
            o.addcmul_(c, p_o).sigmoid_()
            torch.tanh(c, out=hidden[t + 1]).mul_(o)
        ctx.save_for_backward(weight, peepholes, activations, hidden, cells)
        ctx.limit, ctx.product_dtype = clip or math.inf, product_dtype
        ctx.set_materialize_grads(False)
        return hidden[1:], cells[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, from_hidden: Tensor | None, from_cells: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, peepholes, activations, hidden, cells = ctx.saved_tensors
        limit, (p_i, p_f, p_o) = ctx.limit, peepholes
        batch, size = hidden.shape[1:]
        recurrent = weight.to(ctx.product_dtype)
        clipped = torch.empty_like(activations, dtype=ctx.product_dtype)
        dz = weight.new_empty(batch, 4 * size)
        di_df = dz.view(batch, 4, size)[:, :2]
        di, df, dg, do = dz.chunk(4, dim=1)
        dh, dc, tanh_c = weight.new_zeros(3, batch, size)
        d_peepholes = weight.new_zeros(batch, 3, size)
        for t in reversed(range(len(activations))):
            i_f = activations[t].view(batch, 4, size)[:, :2]
            i, f, g, o = activations[t].chunk(4, dim=1)
            torch.tanh(cells[t + 1], out=tanh_c)
            if from_hidden is not None:
                dh += from_hidden[t]
            if from_cells is not None:
                dc += from_cells[t]

            _sigmoid_backward(torch.mul(dh, tanh_c, out=do), o, grad_input=do).clamp_(-limit, limit)
            dc += _tanh_backward(dh.mul_(o), tanh_c, grad_input=dh)
            dc.addcmul_(do, p_o)
            torch.mul(dc, g, out=di)
            torch.mul(dc, cells[t], out=df)
            torch.mul(dc, i, out=dg)
            _sigmoid_backward(di_df, i_f, grad_input=di_df)
            _tanh_backward(dg, g, grad_input=dg)
            dz[:, : 3 * size].clamp_(-limit, limit)

            clipped[t] = dz
            d_peepholes[:, :2].addcmul_(di_df, cells[t].unsqueeze(1))
            d_peepholes[:, 2].addcmul_(do, cells[t + 1])
            dc.mul_(f).addcmul_(di, p_i).addcmul_(df, p_f)
            _add_product(dh.zero_(), clipped[t], recurrent)
        d_weight = clipped.flatten(0, 1).T @ hidden[:-1].flatten(0, 1).to(ctx.product_dtype)
        return clipped, d_weight.to(weight.dtype), d_peepholes.sum(0), dh, dc, None, None


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Adds a b to `total` in place; the product has the dtype of `b`."""
    if total.dtype == b.dtype:
        total.addmm_(a, b)
    else:
        total.add_(a.to(b.dtype) @ b)
