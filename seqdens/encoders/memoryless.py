"""No memory at all: every point is predicted as if nothing came before it. A baseline, and the smallest encoder."""

from __future__ import annotations

import torch
from torch import Tensor

from seqdens.encoders.base import Context, Encoded, Encoder, State
from seqdens.errors import UsageError


class Memoryless(Encoder):
    """One feature that is always 1, whatever the input; nothing to learn but the head's one distribution.

    Raises `UsageError` for a text to condition on.
    """

    output_size = 1

    def __init__(self, input_size: int, context_size: int = 0) -> None:
        super().__init__()
        if context_size:
            raise UsageError(
                f"context_size is {context_size}, but memoryless takes no text, so it must be 0; "
                "choose an encoder that does."
            )
        self.register_buffer("one", torch.ones(1, 1), persistent=False)
        self.one: Tensor

    def start(self, batch_size: int, context: Context | None = None) -> State:
        return {"one": self.one.expand(batch_size, 1)}

    def forward(self, inputs: Tensor, lengths: Tensor, state: State, context: Context | None = None) -> Encoded:
        return Encoded(inputs.new_ones(*inputs.shape[:2], 1), state, {})
