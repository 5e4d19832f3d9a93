"""What an encoder is: it turns the past of a sequence into features.

B sequences, T steps, F numbers of a step, U characters of a text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from seqdens.errors import UsageError

State = dict[str, Tensor]  # batch first, so that selecting records and saving are generic


class Context(NamedTuple):
    """What a sequence is conditioned on."""

    text: Tensor  # (B, U) character ids
    lengths: Tensor  # (B,)


class Encoded(NamedTuple):
    """`features` (B, T, F), the `state` after each record's last step, and `extras` worth looking at."""

    features: Tensor
    state: State
    extras: dict[str, Tensor]


class Stepper:
    """An encoder on its way: whatever can be done once for all steps is done when it is made.

    `state` is the one after the last step. Later changes of the encoder's weights need not be seen.
    """

    def __init__(self, encoder: Encoder, state: State, context: Context | None = None) -> None:
        self.encoder, self.state, self.context = encoder, state, context

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        """Features (B, F) of the next step, whose inputs are (B, F_in)."""
        lengths = torch.ones(inputs.shape[0], dtype=torch.long, device=inputs.device)
        features, self.state, _ = self.encoder(inputs.unsqueeze(1), lengths, self.state, self.context)
        return features.squeeze(1)

    def keep(self, records: Tensor) -> None:
        """From now on, go on with those `records` (N,) alone."""
        self.state = {name: value.index_select(0, records) for name, value in self.state.items()}
        if self.context is not None:
            self.context = Context(*(each.index_select(0, records) for each in self.context))

    def finished(self) -> Tensor:
        """(B,) bool: nothing is left to write."""
        return self.encoder.finished(self.state, self.context)


class Encoder(nn.Module, ABC):
    """`__init__(self, input_size, context_size=0, *, option=default, ...)`; sets `output_size`.

    One that `takes_text` is built with the number of characters that texts may hold as `context_size`, and is always
    given a `context`; every other one with 0, and never. `precisions` are those in which it can be stepped through:
    "float32", "bf16" by autocast, "int8" by an argument of `stepper`, which no other encoder is ever given.
    """

    takes_text: ClassVar[bool] = False
    output_size: int
    precisions: tuple[str, ...] = ("float32", "bf16")

    @abstractmethod
    def start(self, batch_size: int, context: Context | None = None) -> State:
        """The state before the first step, on the parameters' device and of their dtype."""

    @abstractmethod
    def forward(self, inputs: Tensor, lengths: Tensor, state: State, context: Context | None = None) -> Encoded:
        """Features (B, T, F) of inputs (B, T, F_in), of which `lengths` (B,) steps count.

        Features at step t depend on inputs up to t alone. Stepping through with T = 1 and the returned state
        gives the same numbers. What stands in the padding changes nothing before it.
        """

    def stepper(self, state: State, context: Context | None = None, *, int8: bool = False) -> Stepper:
        """Return what goes on from `state`, one step at a time and many times, without gradients.

        An encoder that has "int8" in its `precisions` computes products in int8 if `int8` is true.
        """
        if int8:
            raise UsageError(f"{type(self).__name__} has no products in int8: use bf16 or float32.")
        return Stepper(self, state, context)

    def finished(self, state: State, context: Context | None) -> Tensor:
        """(B,) bool: nothing is left to write. By default never."""
        first = next(iter(state.values()))
        return torch.zeros(first.shape[0], dtype=torch.bool, device=first.device)


def apply_encoder(
    encoder: Encoder,
    inputs: Tensor,
    lengths: Tensor,
    state: State,
    context: Context | None = None,
    *,
    int8: bool = False,
) -> Encoded:
    """Return what the encoder makes of inputs (B, T, F_in), as its `forward` does; if `int8`, by steps in int8.

    Raises `UsageError` if gradients are enabled for products in int8.
    """
    if not int8:
        return encoder(inputs, lengths, state, context)
    if torch.is_grad_enabled():
        raise UsageError("products in int8 have no derivatives: use them within torch.no_grad().")
    stepper, features = encoder.stepper(state, context, int8=True), []
    for t, seen in enumerate(inputs.unbind(1)):
        features.append(stepper(seen))
        state = {name: _chosen(lengths > t, after, state[name]) for name, after in stepper.state.items()}
    return Encoded(torch.stack(features, dim=1), state, {})


def _chosen(records: Tensor, these: Tensor, others: Tensor) -> Tensor:
    """`these` (B, ...) for the `records` (B,) that are true, and `others` for the rest."""
    return torch.where(records.view(-1, *[1] * (these.dim() - 1)), these, others)
