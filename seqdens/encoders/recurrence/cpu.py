"""The recurrence in C++ (cpu.cpp), compiled when it is first used; products in bfloat16 and int8 where there are tiles.

T steps, B sequences, F numbers of an input, L layers, H cells, K rows of the right operand of a product.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from seqdens import native
from seqdens.encoders.recurrence.quantised import Step, Weights, quantised

SUFFIX = {torch.float32: "float32", torch.bfloat16: "bf16", torch.int8: "int8"}
LANES = 16
DEPTH = {torch.float32: 16, torch.bfloat16: 32, torch.int8: 64}  # K is padded to a multiple of it


AT_ONCE = 2**25  # numbers of derivatives that are there at the same time


def obstacle(weight: Tensor, dtype: torch.dtype) -> str:
    """Why weights like `weight` cannot be used with products of `dtype`, in a sentence; empty where they can.

    Raises `native.CannotCompile` where that alone is why.
    """
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or dtype not in SUFFIX:
        return f"weights are {weight.dtype} on {weight.device} and products {dtype}, but must be float32 on cpu."
    if dtype != torch.float32 and not _has_tiles():
        return f"the processor has no tiles (AMX) for products in {SUFFIX[dtype]}; use precision float32."
    _library()
    return ""


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
    given = inputs, input_weight, recurrent_weight, peepholes, bias, h0, c0
    if torch.is_grad_enabled():
        return _PeepholeLSTM.apply(*given, clip, dtype)
    _, _, hidden, cells = _forward(*given, dtype)
    return hidden[1:], cells[1:]


def stepping(layers: Sequence[Weights], width: int, dtype: torch.dtype) -> Step:
    """As `recurrence.stepping`, with products of `dtype`."""
    return _Step(layers, width, dtype)


class _Step:
    def __init__(self, layers: Sequence[Weights], width: int, dtype: torch.dtype) -> None:
        self.layers = [_Layer.of(weights, width, dtype) for weights in layers]
        self.packed = (_Layer * len(layers))(*self.layers)
        self.function = getattr(_library(), f"step_{SUFFIX[dtype]}")
        self.states = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32

    def __call__(self, inputs: Tensor, hidden: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        inputs, hidden, cells = inputs.float().contiguous(), hidden.to(self.states).contiguous(), cells.contiguous()
        after, cells_after = torch.empty_like(hidden), torch.empty_like(cells)
        (batch, layers, size), width = hidden.shape, inputs.shape[1]
        states = (each.data_ptr() for each in (hidden, cells, after, cells_after))
        self.function(batch, layers, width, size, inputs.data_ptr(), self.packed, *states)
        return after, cells_after


class _Layer(ctypes.Structure):
    """The struct of cpu.cpp; `tensors` are what it points to."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("panels", "scales", "input_weight", "peepholes", "bias")]
    tensors: tuple[Tensor | None, ...]

    @classmethod
    def of(cls, weights: Weights, width: int, dtype: torch.dtype) -> _Layer:
        scales, weights = quantised(weights, width) if dtype == torch.int8 else (None, weights)
        below = weights.input_weight[:, width:]
        panels = _forward_panels([weights.recurrent_weight, *([below] if below.shape[1] else [])], dtype)
        rows = weights.input_weight[:, :width].T.contiguous()
        tensors = (panels, scales, rows, weights.peepholes.contiguous(), weights.bias.contiguous())
        layer = cls(*(None if tensor is None else tensor.data_ptr() for tensor in tensors))
        layer.tensors = tensors
        return layer


def _forward(
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    peepholes: Tensor,
    bias: Tensor,
    h0: Tensor,
    c0: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs as they were read, activations (T, B, 4H), hidden and cell states (T + 1, B, H), the first before all."""
    (steps, batch, _), size = inputs.shape, h0.shape[1]
    seen = inputs.to(dtype).contiguous()
    with torch.autocast("cpu", enabled=False):
        projected = torch.addmm(bias.to(dtype), seen.flatten(0, 1), input_weight.to(dtype).T)
    activations = projected.view(steps, batch, 4 * size)  # turned into the activations in place
    hidden, cells = seen.new_empty(steps + 1, batch, size), c0.new_empty(steps + 1, batch, size)
    hidden[0], cells[0] = h0, c0
    panels = _forward_panels([recurrent_weight], dtype)
    _call("forward", dtype, (steps, batch, size), (panels, peepholes.contiguous(), activations, hidden, cells))
    return seen, activations, hidden, cells


class _PeepholeLSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
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
        given = inputs, input_weight, recurrent_weight, peepholes, bias, h0, c0
        seen, activations, hidden, cells = _forward(*given, dtype)
        ctx.save_for_backward(seen, input_weight, recurrent_weight, peepholes, activations, hidden, cells)
        ctx.limit, ctx.dtype, ctx.dtypes = clip or math.inf, dtype, [each.dtype for each in given]
        ctx.set_materialize_grads(False)
        return hidden[1:], cells[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, from_hidden: Tensor | None, from_cells: Tensor | None) -> tuple[Tensor | None, ...]:
        seen, input_weight, recurrent_weight, peepholes, activations, hidden, cells = ctx.saved_tensors
        (steps, batch), size = activations.shape[:2], hidden.shape[2]
        d_inputs = torch.empty_like(seen) if ctx.needs_input_grad[0] else None
        d_input_weight, d_recurrent_weight = torch.zeros_like(input_weight), torch.zeros_like(recurrent_weight)
        d_peepholes, d_bias = cells.new_zeros(3, size), cells.new_zeros(4 * size)
        dh, dc = cells.new_zeros(2, batch, size)
        if from_hidden is not None and from_hidden.stride(2) != 1:
            from_hidden = from_hidden.contiguous()
        strides = (ctypes.c_long * 2)(*((0, 0) if from_hidden is None else from_hidden.stride()[:2]))
        from_cells = None if from_cells is None else from_cells.contiguous()
        panels, weight = _backward_panels(recurrent_weight, ctx.dtype), input_weight.to(ctx.dtype)
        for part in _parts(steps, AT_ONCE // (batch * 4 * size)):
            derivatives = _workspace(activations[part])  # of the pre-activations, clipped
            incoming = [None if each is None else each[part] for each in (from_hidden, from_cells)]
            _call(
                "backward",
                ctx.dtype,
                (len(derivatives), batch, size),
                (activations[part], panels, peepholes.contiguous(), cells[part], incoming[0], strides, incoming[1]),
                ctx.limit,
                (derivatives, d_peepholes, d_bias, dh, dc),
            )
            flat = derivatives.flatten(0, 1)
            if d_inputs is not None:
                torch.mm(flat, weight, out=d_inputs[part].flatten(0, 1))
            d_input_weight += flat.T @ seen[part].flatten(0, 1)
            d_recurrent_weight += flat.T @ hidden[part].flatten(0, 1)
        gradients = (d_inputs, d_input_weight, d_recurrent_weight, d_peepholes, d_bias, dh, dc)
        returned = [None if each is None else each.to(dtype) for each, dtype in zip(gradients, ctx.dtypes, strict=True)]
        return *returned, None, None


def _parts(steps: int, most: int) -> list[slice]:
    """The steps, last ones first, in parts of at most so many, or of one."""
    most = max(1, most)
    return [slice(max(0, last - most), last) for last in range(steps, 0, -most)]


_local = threading.local()


def _workspace(like: Tensor) -> Tensor:
    """Room for a tensor like `like` until the next call in this thread: a fresh one would cost page faults."""
    spaces = _local.__dict__.setdefault("spaces", {})
    if like.numel() > len(spaces.get(like.dtype, ())):
        spaces[like.dtype] = torch.empty(like.numel(), dtype=like.dtype)
    return spaces[like.dtype][: like.numel()].view_as(like)


def _forward_panels(weights: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Weights (4H, K) of states as a right operand, one after the other: blocks of cells, of those the four gates."""
    columns = [_padded(weight, DEPTH[dtype], dtype).unflatten(1, (-1, LANES)).transpose(0, 1) for weight in weights]
    return _panels(torch.cat(columns, dim=-1))


def _backward_panels(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights (4H, H) as a right operand for derivatives of gates: K are blocks of cells, of those the four gates."""
    rows = _padded(weight, LANES, dtype).unflatten(1, (-1, LANES)).transpose(0, 1).flatten(0, 2)
    return _panels(rows.T.unflatten(0, (-1, LANES)))


def _padded(weight: Tensor, multiple: int, dtype: torch.dtype) -> Tensor:
    """Weights (4H, K) as (4, H, K), H padded to whole vectors and K to a multiple."""
    gates = weight.detach().to(dtype).unflatten(0, (4, -1))
    return pad(gates, (0, -gates.shape[2] % multiple, 0, -gates.shape[1] % LANES))


def _panels(columns: Tensor) -> Tensor:
    """Columns (..., 16, K) of a right operand as products want them: of a few K, which stand together, all columns."""
    return columns.unflatten(-1, (-1, 4 // columns.element_size())).transpose(-3, -2).contiguous()


def _call(function: str, dtype: torch.dtype, *arguments: Any) -> None:
    """Calls `function` with tuples of sizes and of tensors, None for none, and plain C values."""
    given: list[Any] = []
    for argument in arguments:
        for each in argument if isinstance(argument, tuple) else (argument,):
            given.append(each.data_ptr() if isinstance(each, Tensor) else each)
    getattr(_library(), f"{function}_{SUFFIX[dtype]}")(*given)


@cache
def _library() -> ctypes.CDLL:
    library = native.load(Path(__file__).with_suffix(".cpp"))
    size, pointer = ctypes.c_long, ctypes.c_void_p
    signatures = {
        "forward": [size] * 3 + [pointer] * 5,
        "backward": [size] * 3 + [pointer] * 7 + [ctypes.c_float] + [pointer] * 5,
        "step": [size] * 4 + [pointer] * 6,
    }
    for suffix in SUFFIX.values() if library.has_tiles() else ["float32"]:
        for name, arguments in signatures.items():
            if name == "step" or suffix != "int8":
                function = getattr(library, f"{name}_{suffix}")
                function.argtypes, function.restype = arguments, None
    return library


def _has_tiles() -> bool:
    return bool(_library().has_tiles())
