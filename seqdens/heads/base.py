"""What a head is: it turns features into a distribution over the next point.

B sequences, T steps, F features, D columns of a point.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from seqdens.datasets.base import Column


class Distribution(ABC):
    """One distribution over D columns for each step; every method keeps the leading (B, T) dimensions."""

    @abstractmethod
    def terms(self, targets: Tensor) -> dict[str, Tensor]:
        """Log-densities (B, T) in nats per point by named part, which add up to `log_prob`; targets (B, T, D)."""

    def log_prob(self, targets: Tensor) -> Tensor:
        """Log-density (B, T) of targets (B, T, D), in nats per point, in the units of the targets."""
        terms = list(self.terms(targets).values())
        return sum(terms[1:], terms[0])

    @abstractmethod
    def sample(self, noise: Tensor, bias: float = 0.0) -> Tensor:
        """Draws (B, T, D), a function of uniform noise in (0, 1) (B, T, noise_size) alone.

        `bias` >= 0 makes probable points more probable (Graves 2013, section 5.4).
        """

    @abstractmethod
    def mean(self) -> Tensor:
        """The expected point (B, T, D); probabilities for binary columns."""

    def predictions(self) -> dict[str, Tensor]:
        """Single points (B, T, D) to predict, by name: "mean", and what else a distribution has to offer."""
        return {"mean": self.mean()}

    def sigmas_at(self, targets: Tensor) -> Tensor | None:
        """Standard deviations (B, T, R) of the R real columns, of the part most responsible for targets (B, T, D).

        In the units of the targets; None where a distribution has no such parts.
        """
        return None


class Head(nn.Module, ABC):
    """`__init__(self, input_size, columns, *, option=default, ...)`; raises `UsageError` for columns it cannot model.

    `noise_size` is how many uniform numbers one draw consumes, `sigma_floor` what no standard deviation falls below.
    """

    noise_size: int
    sigma_floor: float = 0.0

    def __init__(self, input_size: int, columns: Sequence[Column]) -> None:
        super().__init__()
        self.input_size = input_size
        self.columns = tuple(columns)

    @abstractmethod
    def forward(self, features: Tensor) -> Distribution:
        """The distributions for features (B, T, F)."""

    def sample(self, features: Tensor, noise: Tensor, bias: float = 0.0) -> Tensor:
        """Draws (B, T, D) of the distributions for features (B, T, F), of uniform noise (B, T, noise_size)."""
        return self(features).sample(noise, bias)

    def drawer(self, bias: float = 0.0) -> Callable[[Tensor, Tensor], Tensor]:
        """Return a function of features (B, F) and noise (B, noise_size) to draws (B, D), as of `sample`.

        It is for many steps: what can be done once for all of them is done here. Later changes of the weights need not
        be seen.
        """
        return lambda features, noise: self.sample(features.unsqueeze(1), noise.unsqueeze(1), bias).squeeze(1)
