"""Weights of a layer, and those for products in int8.

F numbers of an input, H cells. Hidden states lie within (-1, 1) and are rounded to 127ths; a row of weights for hidden
states is rounded to 127ths of its largest. Weights of the input, peepholes, biases and cell states stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

LEVELS = 127
Step = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class Weights(NamedTuple):
    """Of a layer: W (4H, F), wider where it sees the layer below or a window, too, U (4H, H), (3, H) and b (4H,)."""

    input_weight: Tensor
    recurrent_weight: Tensor
    peepholes: Tensor
    bias: Tensor


def quantised(weights: Weights, width: int) -> tuple[Tensor, Weights]:
    """What (4H,) to multiply products of whole numbers by, and the weights of hidden states as whole numbers.

    Of the input's weights, the first `width` columns are no hidden state's, and are left alone.
    """
    inputs, below = weights.input_weight.detach().split_with_sizes((width, weights.input_weight.shape[1] - width), 1)
    recurrent = weights.recurrent_weight.detach()
    by_part = [part.abs().amax(1) for part in (recurrent, below) if part.shape[1]]
    largest = torch.stack(by_part).amax(0).clamp(min=torch.finfo(recurrent.dtype).tiny * LEVELS)
    whole = [(part * (LEVELS / largest).unsqueeze(1)).round_() for part in (below, recurrent)]
    return largest / LEVELS**2, weights._replace(
        input_weight=torch.cat((inputs, whole[0]), 1), recurrent_weight=whole[1]
    )


def dequantised(weights: Weights, width: int) -> Weights:
    """The weights as products in int8 see them."""
    scales, whole = quantised(weights, width)
    by_row = scales.unsqueeze(1) * LEVELS
    inputs, below = whole.input_weight.tensor_split((width,), 1)
    return whole._replace(
        input_weight=torch.cat((inputs, below * by_row), 1), recurrent_weight=whole.recurrent_weight * by_row
    )


def rounded(hidden: Tensor) -> Tensor:
    """Hidden states as products in int8 see them."""
    return (hidden * LEVELS).round() / LEVELS
