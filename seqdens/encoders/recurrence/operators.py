"""The recurrence as operators that PyTorch knows: autograd, `torch.compile` and `torch.export` see each as one step.

`implementation` is "reference" or "cpu"; both are given the same arguments and return tensors of the same shapes, but
for what backward alone reads. Notation as in `reference` and `window`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqdens.encoders.recurrence import cpu, reference, window, window_cpu

_LSTM = {"reference": reference, "cpu": cpu}
_WINDOW = {"reference": window, "cpu": window_cpu}
_WEIGHTS = "Tensor inputs, Tensor input_weight, Tensor recurrent_weight, Tensor peepholes"


@torch.library.custom_op(
    "seqdens::peephole_lstm",
    mutates_args=(),
    schema=f"({_WEIGHTS}, Tensor bias, Tensor h0, Tensor c0, float clip, ScalarType dtype, str implementation)"
    " -> (Tensor, Tensor, Tensor)",
)
def peephole_lstm(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return hidden and cell states (T, B, H), and the activations, of the arguments of `recurrence.peephole_lstm`."""
    *tensors, _, dtype, implementation = given
    with _full_precision(tensors[0]):
        return _LSTM[implementation].forward(*tensors, dtype)


@peephole_lstm.register_fake
def _(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _states(given[0], given[5], given[2].dtype, *given[-2:])


@torch.library.custom_op(
    "seqdens::peephole_lstm_backward",
    mutates_args=(),
    schema=f"(Tensor? from_hidden, Tensor? from_cells, {_WEIGHTS}, Tensor h0, Tensor c0, Tensor hidden, Tensor cells,"
    " Tensor activations, float clip, ScalarType dtype, str implementation, bool wants_inputs)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def peephole_lstm_backward(*given: Any) -> tuple[Tensor, ...]:
    """Return the derivatives of the tensors that `peephole_lstm` is given; those of the inputs empty unless wanted."""
    *tensors, clip, dtype, implementation, wants_inputs = given
    with _full_precision(tensors[2]):
        return _LSTM[implementation].backward(*tensors, clip, dtype, wants_inputs)


@peephole_lstm_backward.register_fake
def _(*given: Any) -> tuple[Tensor, ...]:
    inputs, input_weight, recurrent_weight, peepholes, h0 = given[2:7]
    states = recurrent_weight.new_empty(h0.shape)
    bias = recurrent_weight.new_empty(len(input_weight))
    weights = (torch.empty_like(each) for each in (input_weight, recurrent_weight, peepholes))
    return _of_inputs(inputs, *given[-3:]), *weights, bias, states, torch.empty_like(states)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.clip, ctx.dtype, ctx.implementation = inputs
    layer, first = tensors[:4], tensors[5:]
    ctx.save_for_backward(*layer, *first, *output)
    ctx.dtypes = [each.dtype for each in tensors]
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, from_hidden: Tensor | None, from_cells: Tensor | None, _: None) -> tuple[Any, ...]:
    options = ctx.clip, ctx.dtype, ctx.implementation, ctx.needs_input_grad[0]
    found = peephole_lstm_backward(from_hidden, from_cells, *ctx.saved_tensors, *options)
    return *_converted(found, ctx), None, None, None


peephole_lstm.register_autograd(_differentiate, setup_context=_keep)


@torch.library.custom_op(
    "seqdens::window_lstm",
    mutates_args=(),
    schema=f"({_WEIGHTS}, Tensor bias, Tensor window_weight, Tensor window_bias, Tensor h0, Tensor c0, Tensor w0,"
    " Tensor kappa0, Tensor characters, float clip, float window_clip, ScalarType dtype, str implementation)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def window_lstm(*given: Any) -> tuple[Tensor, ...]:
    """Return the parts of `window.Read`, the activations and the moves, of what `recurrence.window_lstm` is given."""
    *tensors, _, _, dtype, implementation = given
    with _full_precision(tensors[0]):
        return _WINDOW[implementation].forward(*tensors, dtype)


@window_lstm.register_fake
def _(*given: Any) -> tuple[Tensor, ...]:
    inputs, weight, h0, w0, kappa0, characters = given[0], given[2], given[7], *given[9:12]
    dtype, implementation = given[-2:]
    hidden, cells, activations = _states(inputs, h0, weight.dtype, dtype, implementation)
    steps, batch, components = inputs.shape[0], h0.shape[0], kappa0.shape[1]
    moves = (3 * components,) if implementation == "reference" else (window_cpu.moves_of(components),)
    sizes = w0.shape[1:], kappa0.shape[1:], characters.shape[1:]
    return (
        hidden,
        cells,
        *(cells.new_empty(steps, batch, *size) for size in sizes),
        activations,
        cells.new_empty(steps, batch, *moves),
    )


@torch.library.custom_op(
    "seqdens::window_lstm_backward",
    mutates_args=(),
    schema=f"(Tensor? from_hidden, Tensor? from_cells, Tensor? from_window, Tensor? from_kappa, {_WEIGHTS},"
    " Tensor window_weight, Tensor window_bias, Tensor h0, Tensor c0, Tensor w0, Tensor kappa0, Tensor characters,"
    " Tensor hidden, Tensor cells, Tensor window, Tensor kappa, Tensor activations, Tensor moves,"
    " float clip, float window_clip, ScalarType dtype, str implementation, bool wants_inputs)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def window_lstm_backward(*given: Any) -> tuple[Tensor, ...]:
    """Return the derivatives of the tensors that `window_lstm` is given; those of the inputs empty unless wanted."""
    *tensors, dtype, implementation, wants_inputs = given  # the limits are the last of them
    with _full_precision(given[4]):
        return _WINDOW[implementation].backward(*tensors, dtype, wants_inputs)


@window_lstm_backward.register_fake
def _(*given: Any) -> tuple[Tensor, ...]:
    inputs, *weights = given[4:10]
    bias = weights[0].new_empty(len(weights[0]))
    like = [*weights[:3], bias, *weights[3:]]
    states = [weights[0].new_empty(each.shape) for each in given[10:14]]
    return _of_inputs(inputs, *given[-3:]), *(torch.empty_like(each) for each in like), *states


def _keep_window(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, characters, ctx.clip, ctx.window_clip, ctx.dtype, ctx.implementation = inputs
    hidden, cells, read, kappa, phi, activations, moves = output
    layer, others = tensors[:4], tensors[5:]
    ctx.save_for_backward(*layer, *others, characters, hidden, cells, read, kappa, activations, moves)
    ctx.dtypes = [each.dtype for each in tensors]
    ctx.mark_non_differentiable(phi, activations, moves)
    ctx.set_materialize_grads(False)


def _differentiate_window(ctx: Any, *derivatives: Tensor | None) -> tuple[Any, ...]:
    options = ctx.clip, ctx.window_clip, ctx.dtype, ctx.implementation, ctx.needs_input_grad[0]
    found = window_lstm_backward(*derivatives[:4], *ctx.saved_tensors, *options)
    return *_converted(found, ctx), None, None, None, None, None


window_lstm.register_autograd(_differentiate_window, setup_context=_keep_window)


def _full_precision(like: Tensor) -> torch.autocast:
    """Return a block in which products have the dtype of what is multiplied, also within autocast."""
    return torch.autocast(like.device.type, enabled=False)


def _states(
    inputs: Tensor, h0: Tensor, weights: torch.dtype, dtype: torch.dtype, implementation: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return hidden and cell states and activations without numbers."""
    (steps, batch), size = inputs.shape[:2], h0.shape[1]
    hidden = h0.new_empty(steps, batch, size, dtype=dtype)
    of_activations = weights if implementation == "reference" else dtype
    activations = h0.new_empty(steps, batch, 4 * size, dtype=of_activations)
    return hidden, h0.new_empty(steps, batch, size, dtype=weights), activations


def _of_inputs(inputs: Tensor, dtype: torch.dtype, implementation: str, wanted: bool) -> Tensor:
    return inputs.new_empty(inputs.shape if wanted else (0,), dtype=dtype)


def _converted(found: tuple[Tensor, ...], ctx: Any) -> list[Tensor | None]:
    """Return the derivatives in the dtypes of what was given, None where none is wanted."""
    wanted = zip(found, ctx.dtypes, ctx.needs_input_grad, strict=False)
    return [each.to(dtype) if needed else None for each, dtype, needed in wanted]
