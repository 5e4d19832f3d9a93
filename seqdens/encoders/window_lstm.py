"""Graves' synthesis network without its input and output: peephole LSTM layers that read a text through a soft window.

B sequences, T steps, F numbers of a step, L layers, H cells a layer, A characters of the alphabet, U of the longest
text, K Gaussians of the window. Inside, tensors are time-major.
"""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from torch import Tensor, nn

from seqdens.encoders.base import Context, Encoded, Encoder, State, Stepper
from seqdens.encoders.recurrence import Read, window_lstm, window_stepping
from seqdens.encoders.recurrence.window_cpu import Step
from seqdens.encoders.stacked_lstm import PeepholeLSTM, is_plain, last_states
from seqdens.errors import UsageError

ADVANCE = 1 / 25  # characters a step at first: pens are sampled at some 20 to 30 points a character

NEEDS_TEXT = "window-lstm needs the text that is to be written."


class WindowLSTM(Encoder):
    """`layers` LSTM layers of `hidden_size` cells; from the first one's states, a window moves along the text.

    The first layer sees the input and the window of the step before, every other one the input, the layer below and
    the window of this step. The features (B, T, L*H) are the hidden states of all layers. The state is `hidden` and
    `cell`, each (B, L, H), `kappa` (B, K), the window's places, of which character u of the text is at u = 1 ... U, and
    `window` (B, A). A record is finished when the place U + 1, after its text, weighs more than every character. The
    extra `window` (B, T, U) is the weight of each character at each step, zero in a
    text's padding, and `kappa` (B, T, K) the places. Raises `UsageError` for a size below 1, a negative limit, and
    where the text to condition on is missing. Source: Graves 2013, section 5.

    Options:
        hidden_size: cells of a layer
        layers: how many, one above the other
        window_components: Gaussians of the window
        gate_clip: limit of the derivatives of gate pre-activations at every step, 0 for none
        window_clip: limit of those of the logarithms of the window's parameters, 0 for none
        recurrence: auto (the fastest that is possible), reference (plain torch), cpu (compiled C++)
    """

    takes_text = True

    def __init__(
        self,
        input_size: int,
        context_size: int = 0,
        *,
        hidden_size: int = 400,
        layers: int = 3,
        window_components: int = 10,
        gate_clip: float = 10.0,
        window_clip: float = 10.0,
        recurrence: Literal["auto", "reference", "cpu"] = "auto",
    ) -> None:
        super().__init__()
        if context_size < 1:
            raise UsageError(
                f"context_size is {context_size}, but window-lstm writes texts, so it must be the number of "
                "characters that these may hold, at least 1; choose stacked-lstm for data without texts."
            )
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "layers": layers}
        for name, size in (sizes | {"window_components": window_components}).items():
            if size < 1:
                raise UsageError(f"{name} of window-lstm is {size}, but must be at least 1.")
        for name, limit in {"gate_clip": gate_clip, "window_clip": window_clip}.items():
            if not limit >= 0:
                raise UsageError(f"{name} of window-lstm is {limit}, but must be positive, or 0 for no clipping.")
        self.output_size, self.alphabet_size = layers * hidden_size, context_size
        self.window_clip, self.recurrence = window_clip, recurrence
        self.layers = nn.ModuleList(
            PeepholeLSTM(input_size + context_size + (hidden_size if below else 0), hidden_size, gate_clip, recurrence)
            for below in range(layers)
        )
        self.window = window_parameters(hidden_size, window_components)

    def start(self, batch_size: int, context: Context | None = None) -> State:
        weight = self.window.weight
        shape = (batch_size, len(self.layers), weight.shape[1])
        return {
            "hidden": weight.new_zeros(shape),
            "cell": weight.new_zeros(shape),
            "kappa": weight.new_zeros(batch_size, len(weight) // 3),
            "window": weight.new_zeros(batch_size, self.alphabet_size),
        }

    def forward(self, inputs: Tensor, lengths: Tensor, state: State, context: Context | None = None) -> Encoded:
        if context is None:
            raise UsageError(NEEDS_TEXT)
        steps = inputs.transpose(0, 1)
        read = self._read(steps, state, context)
        below, outputs = read.hidden, [read.hidden]
        window = read.window.to(below.dtype)
        hiddens = [last_states(below, lengths, state["hidden"][:, 0])]
        cells = [last_states(read.cells, lengths, state["cell"][:, 0])]
        for number, layer in enumerate(self.layers[1:], start=1):
            seen = torch.cat((steps.to(below.dtype), window, below), dim=2)
            h0, c0 = state["hidden"][:, number], state["cell"][:, number]
            below, cell = layer(seen, h0, c0)
            outputs.append(below)
            hiddens.append(last_states(below, lengths, h0))
            cells.append(last_states(cell, lengths, c0))
        after = {
            "hidden": torch.stack(hiddens, dim=1),
            "cell": torch.stack(cells, dim=1),
            "kappa": last_states(read.kappa, lengths, state["kappa"]),
            "window": last_states(read.window, lengths, state["window"]),
        }
        characters = read.phi.transpose(0, 1)[..., :-1] * valid_characters(context).unsqueeze(1)
        extras = {"window": characters, "kappa": read.kappa.transpose(0, 1)}
        return Encoded(torch.cat(outputs, dim=2).transpose(0, 1), after, extras)

    def stepper(self, state: State, context: Context | None = None, *, int8: bool = False) -> Stepper:
        if context is None:
            raise UsageError(NEEDS_TEXT)
        plain = type(self) is WindowLSTM and type(self.window) is nn.Linear and is_plain(self, *self.layers)
        if int8 or not plain:
            return super().stepper(state, context, int8=int8)
        layers = [layer.weights for layer in self._layers]
        width = layers[0].input_weight.shape[1] - self.alphabet_size
        text, window = characters_of(context, self.alphabet_size), (self.window.weight, self.window.bias)
        step = window_stepping(layers, *window, text, width, self.recurrence)
        return super().stepper(state, context) if step is None else _Stepper(self, state, context, step)

    def finished(self, state: State, context: Context | None) -> Tensor:
        if context is None:
            raise UsageError(NEEDS_TEXT)
        kappa, places = state["kappa"], torch.arange(1, context.text.shape[1] + 2, device=context.text.device)
        a, b, _ = self.window(state["hidden"][:, 0].to(kappa.dtype)).to(kappa.dtype).chunk(3, dim=1)
        # logarithms: far behind a text all weights are next to nothing, and still not alike
        phi = (a.unsqueeze(2) - b.exp().unsqueeze(2) * (kappa.unsqueeze(2) - places).square()).logsumexp(dim=1)
        in_text = phi[:, :-1].masked_fill(~valid_characters(context), -math.inf).amax(dim=1)
        return phi.gather(1, context.lengths.unsqueeze(1)).squeeze(1) > in_text

    @property
    def _layers(self) -> list[PeepholeLSTM]:
        return [cast(PeepholeLSTM, layer) for layer in self.layers]

    def _read(self, steps: Tensor, state: State, context: Context) -> Read:
        layer = self._layers[0]
        weights = *layer.weights, self.window.weight, self.window.bias
        before = state["hidden"][:, 0], state["cell"][:, 0], state["window"], state["kappa"]
        text, limits = characters_of(context, self.alphabet_size), (layer.gate_clip, self.window_clip)
        return window_lstm(steps, *weights, *before, text, *limits, self.recurrence)


class _Stepper(Stepper):
    def __init__(self, encoder: WindowLSTM, state: State, context: Context, step: Step) -> None:
        super().__init__(encoder, state, context)
        self._step, self._finished = step, encoder.finished(state, context)

    def __call__(self, inputs: Tensor) -> Tensor:
        hidden, cell, kappa, window, self._finished = self._step(
            inputs, self.state["hidden"], self.state["cell"], self.state["kappa"], self.state["window"]
        )
        self.state = {"hidden": hidden, "cell": cell, "kappa": kappa, "window": window}
        return hidden.flatten(1)

    def keep(self, records: Tensor) -> None:
        super().keep(records)
        self._step.keep(records)
        self._finished = self._finished.index_select(0, records)

    def finished(self) -> Tensor:
        return self._finished


def window_parameters(hidden_size: int, components: int) -> nn.Linear:
    """The window's linear part, 3K outputs: the logarithms of importance, narrowness and advance of each Gaussian.

    At first the Gaussians share a weight of one, are as wide as a character, and advance as a pen does: a window that
    starts where the text does, and is never far from what is being written, is one whose gradients say something.
    """
    linear = nn.Linear(hidden_size, 3 * components)
    nn.init.uniform_(linear.weight, -0.1, 0.1)
    with torch.no_grad():
        linear.bias.copy_(torch.tensor([1 / components, 1.0, ADVANCE]).log().repeat_interleave(components))
    return linear


def characters_of(context: Context, size: int) -> Tensor:
    """Ids (B, U + 1) of characters, of an alphabet of that `size`; `size` itself where a text is over."""
    characters = context.text.masked_fill(~valid_characters(context), size)
    return nn.functional.pad(characters, (0, 1), value=size)


def valid_characters(context: Context) -> Tensor:
    """(B, U) bool: no padding."""
    places = torch.arange(context.text.shape[1], device=context.text.device)
    return places < context.lengths.unsqueeze(1)
