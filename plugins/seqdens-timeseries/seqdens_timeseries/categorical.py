"""Columns of states, the whole numbers from 0: a softmax over the values of each binary and category column.

B sequences, T steps, F features, D columns of a point, S values of a column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn, stack

from seqdens import Column, Distribution, Head, UsageError


@dataclass(frozen=True, eq=False)
class Softmaxes(Distribution):
    """The columns are independent of each other, given what came before."""

    columns: tuple[Column, ...]
    logits: tuple[Tensor, ...]  # (B, T, S) of each column

    def terms(self, targets: Tensor) -> dict[str, Tensor]:
        """Log-probabilities (B, T) in nats per point of targets (B, T, D), by the name of the column."""
        return {
            column.name: logits.log_softmax(-1).take_along_dim(states.long().unsqueeze(-1), -1).squeeze(-1)
            for column, logits, states in zip(self.columns, self.logits, targets.unbind(-1), strict=True)
        }

    def sample(self, noise: Tensor, bias: float = 0.0) -> Tensor:
        """Draws (B, T, D) from uniform noise (B, T, D).

        `bias` multiplies the logits of categories by 1 + bias; binaries are never biased. Raises `UsageError` for a
        negative bias.
        """
        check_bias(bias)
        return stack(self.draws(noise, bias), -1)

    def mean(self) -> Tensor:
        """Probabilities of binary columns, of a category its most probable value (B, T, D)."""
        return stack(self.means(), -1)

    def draws(self, noise: Tensor, bias: float) -> list[Tensor]:
        """What `sample` draws, column by column."""
        return [
            pick(logits * (1 + bias if column.kind == "category" else 1), uniform).to(noise.dtype)
            for column, logits, uniform in zip(self.columns, self.logits, noise.unbind(-1), strict=True)
        ]

    def means(self) -> list[Tensor]:
        """What `mean` says, column by column."""
        return [
            logits.softmax(-1)[..., 1] if column.kind == "binary" else logits.argmax(-1).to(logits.dtype)
            for column, logits in zip(self.columns, self.logits, strict=True)
        ]


def pick(logits: Tensor, uniform: Tensor) -> Tensor:
    """Values (...) drawn with softmax probabilities, logits (..., S), from uniform noise (...)."""
    cumulative = logits.softmax(-1).cumsum(-1)
    return (cumulative < uniform.unsqueeze(-1) * cumulative[..., -1:]).sum(-1)


class Categorical(Head):
    """A softmax for each binary and category column: text, symbols, events.

    Raises `UsageError` for real columns, for none, and for two of one name.
    """

    def __init__(self, input_size: int, columns: Sequence[Column]) -> None:
        super().__init__(input_size, columns)
        check_names("categorical", self.columns)
        if real := [column.name for column in self.columns if column.kind == "real"]:
            raise UsageError(
                f"column {real[0]!r} is 'real', but categorical models 'binary' and 'category': use a head for real "
                "columns, such as gmm, which models these as well."
            )
        self.noise_size = len(self.columns)
        self.sizes = sizes_of(self.columns)
        self.output = nn.Linear(input_size, sum(self.sizes))

    def forward(self, features: Tensor) -> Softmaxes:
        """The distributions for features (B, T, F), in float32 or float64 whatever the projection ran in."""
        return Softmaxes(self.columns, at_least_float32(self.output(features)).split(self.sizes, -1))


def sizes_of(columns: Sequence[Column]) -> list[int]:
    """How many values each column has that is not real."""
    return [column.states for column in columns if column.states is not None]


def at_least_float32(outputs: Tensor) -> Tensor:
    """`outputs`, of which half precision is not enough for a likelihood."""
    return outputs.float() if outputs.element_size() < 4 else outputs


def check_bias(bias: float) -> None:
    if not bias >= 0:
        raise UsageError(f"bias is {bias!r}, but must be 0 (unbiased) or more.")


def check_names(head: str, columns: Sequence[Column]) -> None:
    """Raises `UsageError` where there is no column, or two of one name."""
    names = [column.name for column in columns]
    if not names:
        raise UsageError(f"{head} needs a column to model, but there is none.")
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"{head} got two columns named {twice.pop()!r}: rename one of them.")
