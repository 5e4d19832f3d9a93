"""What the implementations in C++ share: packed weights, calls, and room.

T steps, B sequences, F numbers of an input, H cells, K rows of the right operand of a product.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqdens import native
from seqdens.encoders.recurrence.quantised import Weights, quantised

PRODUCTS = {torch.float32: "float32", torch.bfloat16: "bf16", torch.int8: "int8"}
SIZE, POINTER, NUMBER = ctypes.c_long, ctypes.c_void_p, ctypes.c_float

AT_ONCE = 2**25  # numbers of derivatives that are there at the same time

LANES = 16
DEPTH = {torch.float32: 16, torch.bfloat16: 32, torch.int8: 64}  # K is padded to a multiple of it


def obstacle(device: str, weights: torch.dtype, dtype: torch.dtype) -> str:
    """Return why weights of that dtype on that kind of device cannot be used with products of `dtype`, or ""."""
    if device != "cpu" or weights != torch.float32 or dtype not in PRODUCTS:
        return f"weights are {weights} on {device} and products {dtype}, but must be float32 on cpu."
    try:
        native.level(PRODUCTS[dtype])
    except native.Unavailable as error:
        return str(error)
    return ""


def call(function: Callable[..., None], *arguments: Any) -> None:
    """Calls `function` with tuples of sizes and of tensors, None for none, and plain C values."""
    given: list[Any] = []
    for argument in arguments:
        for each in argument if isinstance(argument, tuple) else (argument,):
            given.append(each.data_ptr() if isinstance(each, Tensor) else each)
    function(*given)


def check_shapes(tensors: Mapping[str, Tensor], *shapes: Sequence[int]) -> None:
    """Raises `ValueError` where one of the tensors, by name, has another shape: C would read beyond it."""
    for (name, tensor), shape in zip(tensors.items(), shapes, strict=True):
        if tensor.shape != shape:
            raise ValueError(f"{name} are {tuple(tensor.shape)}, but must be {tuple(shape)}.")


class Layer(ctypes.Structure):
    """The struct of cells.h; `tensors` are what it points to: copies, whatever becomes of the weights."""

    _fields_ = [(name, POINTER) for name in ("panels", "scales", "input_weight", "peepholes", "bias")]
    tensors: tuple[Tensor | None, ...]

    @classmethod
    def of(cls, weights: Weights, widths: Sequence[int], dtype: torch.dtype) -> Layer:
        """Of input weights (4H, sum of `widths`); what those of the first width see is no operand of a product."""
        scales, weights = quantised(weights, widths[0]) if dtype == torch.int8 else (None, weights)
        rows, *others = weights.input_weight.split_with_sizes(list(widths), 1)
        panels = forward_panels([weights.recurrent_weight, *others], dtype)
        alone = (each.detach().clone(memory_format=torch.contiguous_format) for each in (rows.T, *weights[2:]))
        tensors = (panels, scales, *alone)
        layer = cls(*(None if tensor is None else tensor.data_ptr() for tensor in tensors))
        layer.tensors = tensors
        return layer


def projected(inputs: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """Return W x + b (T, B, 4H) of `dtype` for inputs (T, B, F)."""
    gates = torch.addmm(bias.to(dtype), inputs.to(dtype).flatten(0, 1), weight.to(dtype).T)
    return gates.view(*inputs.shape[:2], len(bias))


def before(first: Tensor, states: Tensor, part: slice) -> Tensor:
    """Return the state before those of `part` of the states (T, B, ...), of which `first` is the one before all."""
    return states[part.start - 1] if part.start else first


def add_recurrent(total: Tensor, derivatives: Tensor, first: Tensor, states: Tensor, part: slice) -> None:
    """Add to `total` (N, H) the derivatives (T, B, N) of that part's steps times the states before each step."""
    total += derivatives[0].T @ before(first, states, part).to(derivatives.dtype)
    total += derivatives[1:].flatten(0, 1).T @ states[part.start : part.stop - 1].flatten(0, 1).to(derivatives.dtype)


def of_hidden(derivatives: Tensor | None) -> tuple[Tensor | None, ctypes.Array[ctypes.c_long]]:
    """Return derivatives (T, B, H), each sequence's in one piece, and the strides of steps and sequences."""
    if derivatives is None:
        return None, (SIZE * 2)()
    if derivatives.stride(2) != 1:
        derivatives = derivatives.contiguous()
    return derivatives, (SIZE * 2)(*derivatives.stride()[:2])


def parts(steps: int, most: int) -> list[slice]:
    """The steps, last ones first, in parts of at most so many, or of one."""
    most = max(1, most)
    return [slice(max(0, last - most), last) for last in range(steps, 0, -most)]


_local = threading.local()


def workspace(like: Tensor) -> Tensor:
    """Room for a tensor like `like` until the next call in this thread: a fresh one would cost page faults."""
    spaces = _local.__dict__.setdefault("spaces", {})
    if like.numel() > len(spaces.get(like.dtype, ())):
        spaces[like.dtype] = torch.empty(like.numel(), dtype=like.dtype)
    return spaces[like.dtype][: like.numel()].view_as(like)


def forward_panels(weights: Sequence[Tensor], dtype: torch.dtype, gates: int = 4) -> Tensor:
    """Weights (4H, K) of states as a right operand, one after the other: blocks of cells, of those the four gates."""
    columns = [blocks(padded(weight, DEPTH[dtype], dtype, gates)) for weight in weights]
    return _panels(torch.cat(columns, dim=-1))


def backward_panels(weight: Tensor, dtype: torch.dtype, gates: int = 4) -> Tensor:
    """Weights (4H, H) as a right operand for derivatives of gates: K are blocks of cells, of those the four gates."""
    rows = blocks(padded(weight, LANES, dtype, gates)).flatten(0, 2)
    return _panels(rows.T.unflatten(0, (-1, LANES)))


def padded(weight: Tensor, multiple: int, dtype: torch.dtype, gates: int) -> Tensor:
    """Weights (4H, K) as (4, H, K), H padded to whole vectors and K to a multiple."""
    each = weight.detach().to(dtype).unflatten(0, (gates, -1))
    return pad(each, (0, -each.shape[2] % multiple, 0, -each.shape[1] % LANES))


def blocks(gates: Tensor) -> Tensor:
    """(4, H, K) as (blocks of H, 4, 16, K)."""
    return gates.unflatten(1, (-1, LANES)).transpose(0, 1)


def _panels(columns: Tensor) -> Tensor:
    """Columns (..., 16, K) of a right operand as products want them: of a few K, which stand together, all columns."""
    return columns.unflatten(-1, (-1, 4 // columns.element_size())).transpose(-3, -2).contiguous()
