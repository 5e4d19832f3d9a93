"""Graves' prediction network without its input and output: peephole LSTM layers with skip connections.

B sequences, T steps, F numbers of a step, L layers, H cells a layer. Inside, tensors are time-major.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from seqdens.encoders.base import Context, Encoded, Encoder, State, Stepper
from seqdens.encoders.recurrence import Weights, peephole_lstm, stepping
from seqdens.errors import UsageError


class StackedLSTM(Encoder):
    """`layers` LSTM layers of `hidden_size` cells, each of which sees the input and the layer below.

    The features (B, T, L*H) are the hidden states of all layers, the state `hidden` and `cell`, each (B, L, H).
    Raises `UsageError` for a size below 1, a negative `gate_clip`, and for a text to condition on.
    Source: Graves 2013, sections 2 and 4.

    Options:
        hidden_size: cells of a layer
        layers: how many, one above the other
        gate_clip: limit of the derivatives of gate pre-activations at every step, 0 for none
        recurrence: auto (the fastest that is possible), reference (plain torch), cpu (compiled C++)
    """

    precisions = ("float32", "bf16", "int8")

    def __init__(
        self,
        input_size: int,
        context_size: int = 0,
        *,
        hidden_size: int = 400,
        layers: int = 3,
        gate_clip: float = 10.0,
        recurrence: Literal["auto", "reference", "cpu"] = "auto",
    ) -> None:
        super().__init__()
        if context_size:
            raise UsageError(
                f"context_size is {context_size}, but stacked-lstm takes no text, so it must be 0; "
                "choose an encoder that does."
            )
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("layers", layers)):
            if size < 1:
                raise UsageError(f"{name} of stacked-lstm is {size}, but must be at least 1.")
        if not gate_clip >= 0:
            raise UsageError(f"gate_clip of stacked-lstm is {gate_clip}, but must be positive, or 0 for no clipping.")
        self.input_size, self.output_size, self.recurrence = input_size, layers * hidden_size, recurrence
        self.layers = nn.ModuleList(
            PeepholeLSTM(input_size + (hidden_size if below else 0), hidden_size, gate_clip, recurrence)
            for below in range(layers)
        )

    def start(self, batch_size: int, context: Context | None = None) -> State:
        weight = next(self.parameters())
        shape = (batch_size, len(self.layers), self.output_size // len(self.layers))
        return {"hidden": weight.new_zeros(shape), "cell": weight.new_zeros(shape)}

    def forward(self, inputs: Tensor, lengths: Tensor, state: State, context: Context | None = None) -> Encoded:
        steps = below = inputs.transpose(0, 1)
        outputs, hiddens, cells = [], [], []
        for number, layer in enumerate(self.layers):
            seen = torch.cat((steps.to(below.dtype), below), dim=2) if number else steps
            h0, c0 = state["hidden"][:, number], state["cell"][:, number]
            below, cell = layer(seen, h0, c0)
            outputs.append(below.transpose(0, 1))
            hiddens.append(last_states(below, lengths, h0))
            cells.append(last_states(cell, lengths, c0))
        after = {"hidden": torch.stack(hiddens, dim=1), "cell": torch.stack(cells, dim=1)}
        return Encoded(torch.cat(outputs, dim=2), after, {})

    def stepper(self, state: State, context: Context | None = None, *, int8: bool = False) -> Stepper:
        if type(self) is StackedLSTM and is_plain(self, *self.layers):
            return _Stepper(self, state, int8)
        if int8:
            raise UsageError("products in int8 pass by what was added to the encoder: use bf16 or float32.")
        return super().stepper(state, context)


def is_plain(*modules: nn.Module) -> bool:
    """Whether nothing was put between or in place of the layers, which a step of all of them would pass by."""
    layers = (module for module in modules if not isinstance(module, Encoder))
    hooks = any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    return all(type(layer) is PeepholeLSTM for layer in layers) and not hooks


class _Stepper(Stepper):
    def __init__(self, encoder: StackedLSTM, state: State, int8: bool) -> None:
        super().__init__(encoder, state)
        weights = [layer.weights for layer in encoder.layers if isinstance(layer, PeepholeLSTM)]
        self._step = stepping(weights, encoder.input_size, encoder.recurrence, int8=int8)

    def __call__(self, inputs: Tensor) -> Tensor:
        hidden, cell = self._step(inputs, self.state["hidden"], self.state["cell"])
        self.state = {"hidden": hidden, "cell": cell}
        return hidden.flatten(1)


class PeepholeLSTM(nn.Module):
    """One layer: inputs (T, B, F) and the state before, h0 and c0 (B, H), to hidden and cell states (T, B, H).

    Gates stand in the order of `torch.nn.LSTM` (i, f, g, o), with one bias each; peepholes in the order i, f, o.
    Everything is drawn uniformly from +-0.1 as in the descendants of Graves' code (the paper does not say), from
    +-1/sqrt(H) as in `torch.nn.LSTM` where that is wider, for layers of fewer than 100 cells.
    """

    def __init__(self, input_size: int, hidden_size: int, gate_clip: float, recurrence: str = "auto") -> None:
        super().__init__()
        self.gate_clip, self.recurrence = gate_clip, recurrence
        self.input_weight = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.recurrent_weight = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.peepholes = nn.Parameter(torch.empty(3, hidden_size))
        self.bias = nn.Parameter(torch.empty(4 * hidden_size))
        bound = max(0.1, hidden_size**-0.5)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    @property
    def weights(self) -> Weights:
        return Weights(self.input_weight, self.recurrent_weight, self.peepholes, self.bias)

    def forward(self, inputs: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor]:
        return peephole_lstm(inputs, *self.weights, h0, c0, self.gate_clip, self.recurrence)


def last_states(states: Tensor, lengths: Tensor, initial: Tensor) -> Tensor:
    """The states (T, B, H) after `lengths` (B,) steps; the initial one (B, H) after none."""
    if states.shape[0] == 1:
        last = states[0]
    else:
        last = states[(lengths - 1).clamp(min=0), torch.arange(lengths.shape[0], device=lengths.device)]
    return torch.where((lengths > 0).unsqueeze(1), last, initial)
