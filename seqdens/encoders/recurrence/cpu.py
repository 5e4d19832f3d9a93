"""The recurrence in C++ (cpu.cpp), compiled when it is first used: float32, or bfloat16 products where there are tiles.

T steps, B sequences, F numbers of an input, H cells.
"""

from __future__ import annotations

import ctypes
import math
import threading
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakTensorKeyDictionary

from seqdens import native

FEW = 4  # steps for which inputs are projected within the recurrence; for more, one large product is faster
SUFFIX = {torch.float32: "float32", torch.bfloat16: "bf16"}


def obstacle(weight: Tensor, dtype: torch.dtype) -> str:
    """Why weights like `weight` cannot be used with products of `dtype`, in a sentence; empty where they can.

    Raises `native.CannotCompile` where that alone is why.
    """
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or dtype not in SUFFIX:
        return f"weights are {weight.dtype} on {weight.device} and products {dtype}, but must be float32 on cpu."
    if dtype == torch.bfloat16 and not _has_bf16():
        return "the processor has no tiles (AMX) for products in bf16; use precision float32."
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
    (steps, batch, width), size = inputs.shape, h0.shape[1]
    seen = inputs.to(dtype).contiguous()
    within = steps <= FEW
    if within:
        activations = seen.new_empty(steps, batch, 4 * size)
    else:
        with torch.autocast("cpu", enabled=False):
            projected = torch.addmm(bias.to(dtype), seen.flatten(0, 1), input_weight.to(dtype).T)
        activations = projected.view(steps, batch, 4 * size)  # turned into the activations in place
    hidden, cells = seen.new_empty(steps + 1, batch, size), c0.new_empty(steps + 1, batch, size)
    hidden[0], cells[0] = h0, c0
    panels = _panels(input_weight if within else None, recurrent_weight, dtype)
    _call(
        "forward",
        dtype,
        (steps, batch, width if within else 0, size),
        (seen, panels, peepholes.contiguous(), bias.contiguous() if within else None, activations, hidden, cells),
    )
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
        derivatives = _workspace(activations)  # of the pre-activations, clipped
        d_peepholes, d_bias = cells.new_zeros(3, size), cells.new_zeros(4 * size)
        dc, dh = cells.new_zeros(batch, size), cells.new_empty(batch, size)
        if from_hidden is not None and from_hidden.stride(2) != 1:
            from_hidden = from_hidden.contiguous()
        strides = (0, 0) if from_hidden is None else from_hidden.stride()[:2]
        _call(
            "backward",
            ctx.dtype,
            (steps, batch, size),
            (activations, recurrent_weight.contiguous(), peepholes.contiguous(), cells),
            (from_hidden, (ctypes.c_long * 2)(*strides), None if from_cells is None else from_cells.contiguous()),
            ctx.limit,
            (derivatives, d_peepholes, d_bias, dh, dc),
        )
        flat = derivatives.flatten(0, 1)
        d_inputs = (flat @ input_weight.to(ctx.dtype)).view_as(seen) if ctx.needs_input_grad[0] else None
        d_input_weight, d_recurrent_weight = flat.T @ seen.flatten(0, 1), flat.T @ hidden[:-1].flatten(0, 1)
        gradients = (d_inputs, d_input_weight, d_recurrent_weight, d_peepholes, d_bias, dh, dc)
        returned = [None if each is None else each.to(dtype) for each, dtype in zip(gradients, ctx.dtypes, strict=True)]
        return *returned, None, None


_local = threading.local()


def _workspace(like: Tensor) -> Tensor:
    """Room for a tensor like `like` until the next call in this thread: a fresh one would cost page faults."""
    spaces = _local.__dict__.setdefault("spaces", {})
    if like.numel() > len(spaces.get(like.dtype, ())):
        spaces[like.dtype] = torch.empty(like.numel(), dtype=like.dtype)
    return spaces[like.dtype][: like.numel()].view_as(like)


_packed: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _panels(input_weight: Tensor | None, recurrent_weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weights as the forward products want them, made anew only where they have changed."""
    weights = [weight for weight in (input_weight, recurrent_weight) if weight is not None]
    if any(weight.is_inference() for weight in weights):  # nobody counts their changes
        return _pack(input_weight, recurrent_weight, dtype)
    state = [(weight.data_ptr(), weight._version) for weight in weights]
    kept = _packed.setdefault(recurrent_weight, {})
    found = kept.get((dtype, len(weights)))
    if found is None or found[0] != state:
        found = kept[dtype, len(weights)] = state, _pack(input_weight, recurrent_weight, dtype)
    return found[1]


def _pack(input_weight: Tensor | None, recurrent_weight: Tensor, dtype: torch.dtype) -> Tensor:
    size, width = recurrent_weight.shape[1], 0 if input_weight is None else input_weight.shape[1]
    depth = getattr(_library(), f"depth_{SUFFIX[dtype]}")(width, size)
    panels = torch.empty(-(-size // 16) * 4 * depth * 16, dtype=dtype)
    given = [None if weight is None else weight.detach().contiguous() for weight in (input_weight, recurrent_weight)]
    _call("pack", dtype, (width, size), (*given, panels))
    return panels


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
    for suffix in SUFFIX.values() if library.has_bf16() else ["float32"]:
        for name, arguments in {
            "depth": [size] * 2,
            "pack": [size] * 2 + [pointer] * 3,
            "forward": [size] * 4 + [pointer] * 7,
            "backward": [size] * 3 + [pointer] * 7 + [ctypes.c_float] + [pointer] * 5,
        }.items():
            function = getattr(library, f"{name}_{suffix}")
            function.argtypes, function.restype = arguments, size if name == "depth" else None
    return library


def _has_bf16() -> bool:
    return bool(_library().has_bf16())
