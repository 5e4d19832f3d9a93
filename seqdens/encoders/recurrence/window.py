"""An LSTM layer that reads a text through a soft window (Graves 2013, section 5), derivatives clipped at every step.

T steps, B sequences, H cells, A characters of the alphabet, U of the longest text, K Gaussians of the window. Step t
maps h(t-1), c(t-1), the window w(t-1) and the projected input z(t) = W x(t) + b to h(t) and c(t) by the equations of
`reference`, with z(t) + V w(t-1) for z(t); then, for the characters u = 1 ... U of the text,

    a, b, k = exp(M h(t) + m)                                 importance, narrowness, and advance of each Gaussian
    kappa(t) = kappa(t-1) + k                                 its place along the text, of which character u is at u
    phi(t, u) = sum over K of a exp(-b (kappa(t) - u)^2)      the weight of a character
    w(t) = sum over U of phi(t, u) onehot(u)                  the window, (A,)

phi has one more column, u = U + 1, no character: the text is written once nothing else weighs more.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from seqdens.encoders.recurrence.reference import activate, activate_backward, add_product, projection_backward

SMALLEST = -80.0  # logarithm of a Gaussian's smallest value


class Read(NamedTuple):
    """What a layer leaves of each step."""

    hidden: Tensor  # (T, B, H)
    cells: Tensor  # (T, B, H)
    window: Tensor  # (T, B, A)
    kappa: Tensor  # (T, B, K)
    phi: Tensor  # (T, B, U + 1), no derivatives


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
    """Return the parts of `Read`, the activations i, f, g, o (T, B, 4H), and the moves a, b, k (T, B, 3K).

    The arguments are those of `recurrence.window_lstm`; M and m are `window_weight` (3K, H) and `window_bias` (3K,), in
    the order a, b, k. Matrix products and hidden states have `dtype`. The window's own product has the dtype of the
    weights, as all else, since places add up.
    """
    (steps, batch, width), size = inputs.shape, h0.shape[1]
    of_inputs, of_window = input_weight.tensor_split((width,), 1)
    gates = functional.linear(inputs.to(dtype), of_inputs.to(dtype), bias.to(dtype))
    # pre-activations, until a step applies its sigmoid or tanh
    activations = gates.to(recurrent_weight.dtype, copy=True, memory_format=torch.contiguous_format)
    recurrent = torch.cat((recurrent_weight, of_window), dim=1).to(dtype).T
    text, places = one_hot(characters, w0), _places(characters, w0)
    hidden, cells = activations.new_empty(steps, batch, size, dtype=dtype), activations.new_empty(steps, batch, size)
    windows, kappas = cells.new_empty(steps, *w0.shape), cells.new_empty(steps, *kappa0.shape)
    moves = cells.new_empty(steps, batch, len(window_bias))
    phi = cells.new_empty(steps, batch, characters.shape[1])
    gaussians = cells.new_empty(batch, kappa0.shape[1], characters.shape[1])
    h, c, w, kappa = h0.to(dtype), c0.to(cells.dtype), w0, kappa0
    for t, z in enumerate(activations.unbind()):
        add_product(z, torch.cat((h, w.to(dtype)), dim=1), recurrent)
        exact = activate(z, c, peepholes, cells[t])
        h, c = hidden[t].copy_(exact), cells[t]

        torch.addmm(window_bias, exact, window_weight.T, out=moves[t]).exp_()
        a, b, k = moves[t].chunk(3, dim=1)
        kappa = torch.add(kappa, k, out=kappas[t])
        _gaussians(kappa, b, places, out=gaussians)
        torch.bmm(a.unsqueeze(1), gaussians, out=phi[t].unsqueeze(1))
        w = torch.bmm(phi[t].unsqueeze(1), text, out=windows[t].unsqueeze(1)).squeeze(1)
    return hidden, cells, windows, kappas, phi, activations, moves


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
    window: Tensor,
    kappa: Tensor,
    activations: Tensor,
    moves: Tensor,
    clip: float,
    window_clip: float,
    dtype: torch.dtype,
    wants_inputs: bool,
) -> tuple[Tensor, ...]:
    """Return the derivatives of the first eleven arguments of `forward`, given those of the parts of `Read`.

    The derivatives of the loss with respect to the gates' pre-activations are clipped to [-clip, clip], those of the
    logarithms of a, b and k to [-window_clip, window_clip], and the clipped ones are what travels on; 0 clips nothing.
    Those of the inputs are empty unless wanted.
    """
    limit, window_limit = clip or math.inf, window_clip or math.inf
    (batch, size), width = h0.shape, inputs.shape[2]
    of_inputs, of_window = input_weight.tensor_split((width,), 1)
    recurrent = torch.cat((recurrent_weight, of_window), dim=1).to(dtype)
    text, places = one_hot(characters, w0), _places(characters, w0)
    clipped = torch.empty_like(activations, dtype=dtype)
    d_moves = torch.empty_like(moves)  # of the logarithms of a, b and k, clipped
    d_seen = cells.new_zeros(batch, size + w0.shape[1])
    dh, dw = d_seen[:, :size], d_seen[:, size:]
    dz = torch.empty_like(activations[0])
    dc, dk = cells.new_zeros(batch, size), torch.zeros_like(kappa0)
    d_peepholes = torch.zeros_like(peepholes)
    for t in reversed(range(len(activations))):
        if from_window is not None:
            dw += from_window[t]
        if from_kappa is not None:
            dk += from_kappa[t]
        da, db, d_advance = d_moves[t].chunk(3, dim=1)
        _window_backward(kappa[t], moves[t], places, torch.bmm(text, dw.unsqueeze(2)), da, db, dk)
        d_advance.copy_(dk)
        d_moves[t].mul_(moves[t]).clamp_(-window_limit, window_limit)
        dh.addmm_(d_moves[t], window_weight)

        if from_hidden is not None:
            dh += from_hidden[t]
        if from_cells is not None:
            dc += from_cells[t]
        before = cells[t - 1] if t else c0
        activate_backward(dh, dc, activations[t], cells[t], before, peepholes, limit, dz, d_peepholes)
        clipped[t] = dz
        add_product(d_seen.zero_(), clipped[t], recurrent)
    flat, flat_moves = clipped.flatten(0, 1), d_moves.flatten(0, 1)
    d_recurrent_weight = (flat.T @ torch.cat((h0.to(dtype).unsqueeze(0), hidden[:-1])).flatten(0, 1)).to(dz.dtype)
    d_of_window = flat.T @ torch.cat((w0.unsqueeze(0), window[:-1])).to(dtype).flatten(0, 1)
    d_inputs, d_of_inputs, d_bias = projection_backward(clipped, inputs, of_inputs, wants_inputs)
    d_window_weight = flat_moves.T @ hidden.flatten(0, 1).to(moves.dtype)
    of_weights = torch.cat((d_of_inputs, d_of_window.to(dz.dtype)), 1), d_recurrent_weight, d_peepholes, d_bias
    return d_inputs, *of_weights, d_window_weight, flat_moves.sum(0), dh.clone(), dc, dw.clone(), dk


def one_hot(characters: Tensor, like: Tensor) -> Tensor:
    """Return characters (B, U + 1) as (B, U + 1, A), zeros from the end of a text on; `like` is a window (B, A)."""
    alphabet = like.shape[1]
    return functional.one_hot(characters, alphabet + 1)[..., :alphabet].to(like.dtype)


def _places(characters: Tensor, like: Tensor) -> Tensor:
    """Return u = 1 ... U + 1 as (1, 1, U + 1), of the dtype of `like`."""
    return torch.arange(1, characters.shape[1] + 1, dtype=like.dtype, device=like.device).view(1, 1, -1)


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
