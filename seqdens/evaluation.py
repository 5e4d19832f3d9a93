"""How likely a model finds data: totals over whole records, in stated units."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from seqdens.batches import Batch
from seqdens.model import Loss, SequenceModel
from seqdens.sampling import evaluating


@dataclass
class Likelihood:
    """Sums over records of the negative log-likelihood in nats, normalised units, and what to divide them by."""

    nats: float = 0.0
    points: int = 0
    records: int = 0
    terms: dict[str, float] = field(default_factory=dict)  # nats by named part

    def add(self, loss: Loss, batch: Batch) -> None:
        self.nats += _total(loss.nats)
        self.points += int(batch.lengths.sum())
        self.records += len(batch.lengths)
        for name, term in loss.terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + _total(term)

    def metrics(self, prefix: str) -> dict[str, float]:
        """`prefix_nats_per_point` and `prefix_nats_per_record`."""
        return {
            f"{prefix}_nats_per_point": self.nats / max(1, self.points),
            f"{prefix}_nats_per_record": self.nats / max(1, self.records),
        }


def _total(nats: Tensor) -> float:
    return nats.cpu().sum(dtype=torch.float64).item()  # on the CPU: some devices have no float64


@torch.no_grad()
def evaluate(model: SequenceModel, batches: Iterable[Batch]) -> Likelihood:
    """The likelihood of whole records under `model`, in evaluation mode, on its device."""
    likelihood = Likelihood()
    with evaluating(model):
        for batch in batches:
            batch = batch.to(model.device)
            likelihood.add(model(batch), batch)
    return likelihood
