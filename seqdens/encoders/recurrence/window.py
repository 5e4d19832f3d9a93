"""An LSTM layer that reads a text through a soft window (Graves 2013, section 5), derivatives clipped at every step.

T steps, B sequences, H cells, A characters of the alphabet, U of the longest text, K Gaussians of the window. Step t
maps h(t-1), c(t-1), the window w(t-1) and the projected input z(t) = W x(t) + b to h(t) and c(t) by the equations of
`reference`, with z(t) + V w(t-1) for z(t); then, for the characters u = 1 ... U of the text,

    a, b, k = exp(M h(t) + m)                                 importance, narrowness, and advance of each Gaussian
    kappa(t) = kappa(t-1) + k                                 its place along the text, of which character u is at u
    phi(t, u) = sum over K of a exp(-b (kappa(t) - u)^2)      the weight of a character
    w(t) = sum over U of phi(t, u) onehot(u)                  the window, (A,)

phi has one more column, u = U + 1, no character: the text is written once nothing else weighs more. Every buffer of
states has T + 1 entries: entry t is the state before step t.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from seqdens.encoders.recurrence.reference import _add_product, _sigmoid_backward, _tanh_backward

SMALLEST = -80.0  # logarithm of a Gaussian's smallest value


class Read(NamedTuple):
    """What a layer leaves of each step."""

    hidden: Tensor  # (T, B, H)
    cells: Tensor  # (T, B, H)
    window: Tensor  # (T, B, A)
    kappa: Tensor  # (T, B, K)
    phi: Tensor  # (T, B, U + 1), no derivatives


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
    width, alphabet = inputs.shape[2], w0.shape[1]
    with torch.autocast(inputs.device.type, enabled=False):
        gates = functional.linear(inputs.to(dtype), input_weight[:, :width].to(dtype), bias.to(dtype))
        weights = torch.cat((recurrent_weight, input_weight[:, width:]), dim=1), peepholes, window_weight, window_bias
        one_hot = functional.one_hot(characters, alphabet + 1)[..., :alphabet].to(w0.dtype)
        read = recurrence(gates, *weights, h0, c0, w0, kappa0, one_hot, clip, window_clip, dtype)
    return read._replace(hidden=read.hidden.to(dtype))


def recurrence(
    gates: Tensor,
    weight: Tensor,
    peepholes: Tensor,
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
    """All steps for `gates` (T, B, 4H), the projected inputs with the bias.

    `weight` (4H, H + A) is U beside V, `window_weight` (3K, H) M and `window_bias` (3K,) m, in the order a, b, k;
    `h0`, `c0` (B, H), `w0` (B, A), `kappa0` (B, K) are the state before the first step; `characters` (B, U + 1, A) are
    one-hot, zeros from the end of a text on. The derivatives of the loss with respect to the gates' pre-activations are
    clipped to [-clip, clip], those of the logarithms of a, b and k to [-window_clip, window_clip], and the clipped ones
    are what travels on; 0 clips nothing. States and pointwise operations have the dtype of `weight`, and so has the
    window's own product, since places add up; the other products have `dtype`. Differentiable once.
    """
    given = gates, weight, peepholes, window_weight, window_bias, h0, c0, w0, kappa0
    return Read(*_WindowLSTM.apply(*given, characters, clip, window_clip, dtype))


class _WindowLSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        gates: Tensor,
        weight: Tensor,
        peepholes: Tensor,
        window_weight: Tensor,
        window_bias: Tensor,
        h0: Tensor,
        c0: Tensor,
        w0: Tensor,
        kappa0: Tensor,
        characters: Tensor,
        clip: float,
        window_clip: float,
        product_dtype: torch.dtype,
    ) -> tuple[Tensor, ...]:
        steps, batch, size = len(gates), *h0.shape
        components, places = kappa0.shape[1], _places(characters)
        p_if, p_o = peepholes[:2], peepholes[2]
        recurrent = weight.to(product_dtype).T
        # pre-activations, until a step applies its sigmoid or tanh
        activations = gates.to(weight.dtype, copy=True, memory_format=torch.contiguous_format)
        seen = weight.new_empty(steps + 1, batch, weight.shape[1])  # hidden state and window
        hidden, window = seen[..., :size], seen[..., size:]
        cells = weight.new_empty(steps + 1, batch, size)
        kappa = weight.new_empty(steps + 1, batch, components)
        moves = weight.new_empty(steps, batch, 3 * components)  # a, b and k
        phi = weight.new_empty(steps, batch, 1, places.shape[2])
        gaussians = weight.new_empty(batch, components, places.shape[2])
        hidden[0], window[0], cells[0], kappa[0] = h0, w0, c0, kappa0
        for t, z in enumerate(activations.unbind()):
            _add_product(z, seen[t], recurrent)
            i_f = z.view(batch, 4, size)[:, :2]
            i, f, g, o = z.chunk(4, dim=1)
            c = cells[t + 1]
            i_f.addcmul_(cells[t].unsqueeze(1), p_if).sigmoid_()
            g.tanh_()
            torch.mul(f, cells[t], out=c).addcmul_(i, g)
            o.addcmul_(c, p_o).sigmoid_()
            torch.mul(c.tanh(), o, out=hidden[t + 1])

            torch.addmm(window_bias, hidden[t + 1], window_weight.T, out=moves[t]).exp_()
            a, b, k = moves[t].chunk(3, dim=1)
            torch.add(kappa[t], k, out=kappa[t + 1])
            _gaussians(kappa[t + 1], b, places, out=gaussians)
            torch.bmm(a.unsqueeze(1), gaussians, out=phi[t])
            window[t + 1] = torch.bmm(phi[t], characters).squeeze(1)
        ctx.save_for_backward(weight, peepholes, window_weight, characters, activations, seen, cells, kappa, moves)
        ctx.limits, ctx.product_dtype = (clip or math.inf, window_clip or math.inf), product_dtype
        ctx.set_materialize_grads(False)
        phi = phi.squeeze(2)
        ctx.mark_non_differentiable(phi)
        return hidden[1:], cells[1:], window[1:], kappa[1:], phi

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *derivatives: Tensor | None) -> tuple[Tensor | None, ...]:
        from_hidden, from_cells, from_window, from_kappa, _ = derivatives
        weight, peepholes, window_weight, characters, activations, seen, cells, kappa, moves = ctx.saved_tensors
        (limit, window_limit), (p_i, p_f, p_o), places = ctx.limits, peepholes, _places(characters)
        (steps, batch), size = activations.shape[:2], cells.shape[2]
        recurrent = weight.to(ctx.product_dtype)
        clipped = torch.empty_like(activations, dtype=ctx.product_dtype)
        d_moves = torch.empty_like(moves)  # of the logarithms of a, b and k, clipped
        d_seen = torch.zeros_like(seen[0])
        dh, dw = d_seen[:, :size], d_seen[:, size:]
        dz = weight.new_empty(batch, 4 * size)
        di_df = dz.view(batch, 4, size)[:, :2]
        di, df, dg, do = dz.chunk(4, dim=1)
        dc, tanh_c, dt = weight.new_zeros(3, batch, size)
        dk = torch.zeros_like(kappa[0])
        d_peepholes = weight.new_zeros(batch, 3, size)
        for t in reversed(range(steps)):
            if from_window is not None:
                dw += from_window[t]
            if from_kappa is not None:
                dk += from_kappa[t]
            da, db, d_advance = d_moves[t].chunk(3, dim=1)
            _window_backward(kappa[t + 1], moves[t], places, torch.bmm(characters, dw.unsqueeze(2)), da, db, dk)
            d_advance.copy_(dk)
            d_moves[t].mul_(moves[t]).clamp_(-window_limit, window_limit)
            dh.addmm_(d_moves[t], window_weight)

            i_f = activations[t].view(batch, 4, size)[:, :2]
            i, f, g, o = activations[t].chunk(4, dim=1)
            torch.tanh(cells[t + 1], out=tanh_c)
            if from_hidden is not None:
                dh += from_hidden[t]
            if from_cells is not None:
                dc += from_cells[t]
            _sigmoid_backward(torch.mul(dh, tanh_c, out=do), o, grad_input=do).clamp_(-limit, limit)
            dc += _tanh_backward(torch.mul(dh, o, out=dt), tanh_c, grad_input=dt)
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
            _add_product(d_seen.zero_(), clipped[t], recurrent)
        d_weight = clipped.flatten(0, 1).T @ seen[:-1].flatten(0, 1).to(ctx.product_dtype)
        flat = d_moves.flatten(0, 1)
        d_window_weight = flat.T @ seen[1:, :, :size].flatten(0, 1)
        of_weights = d_weight.to(weight.dtype), d_peepholes.sum(0), d_window_weight, flat.sum(0)
        return clipped, *of_weights, dh, dc, dw, dk, None, None, None, None


def _places(characters: Tensor) -> Tensor:
    """u = 1 ... U + 1, (1, 1, U + 1)."""
    return torch.arange(1, characters.shape[1] + 1, dtype=characters.dtype, device=characters.device).view(1, 1, -1)


def _gaussians(kappa: Tensor, b: Tensor, places: Tensor, out: Tensor) -> Tensor:
    """exp(-b (kappa - u)^2), (B, K, U + 1)."""
    return _exp(torch.sub(kappa.unsqueeze(2), places, out=out).square_().mul_(b.neg().unsqueeze(2)))


def _exp(logarithms: Tensor) -> Tensor:
    """In place; far from the window, where next to nothing is left, exp would take ten times as long."""
    return logarithms.clamp_(min=SMALLEST).exp_()


def _window_backward(
    kappa: Tensor, moves: Tensor, places: Tensor, d_phi: Tensor, da: Tensor, db: Tensor, dk: Tensor
) -> None:
    """Derivatives with respect to a, b and, added to those that there are, kappa, of d_phi (B, U + 1, 1)."""
    a, b, _ = moves.chunk(3, dim=1)
    away = kappa.unsqueeze(2) - places
    gaussians = _exp(away.square().mul_(b.neg().unsqueeze(2)))
    torch.bmm(gaussians, d_phi, out=da.unsqueeze(2))
    gaussians *= d_phi.transpose(1, 2)
    slope = gaussians.mul_(away).sum(2)
    torch.sum(gaussians.mul_(away), 2, out=db)
    db.mul_(a).neg_()
    dk.addcmul_(slope.mul_(a), b, value=-2)
