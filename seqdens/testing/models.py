"""A component at work in a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from seqdens.datasets.base import Column
from seqdens.model import SequenceModel
from seqdens.registry import Component

ALPHABET = " abcdef"


def untrained(columns: Sequence[Column], encoder: Component, head: Component) -> SequenceModel:
    """A model of data that need no scaling, and of texts of `ALPHABET`."""
    real = sum(column.kind == "real" for column in columns)
    return SequenceModel(columns, encoder, head, mean=[0.0] * real, std=[1.0] * real, alphabet=ALPHABET)


def check_saved_model(columns: Sequence[Column], encoder: Component, head: Component, folder: Path) -> None:
    """A model that is written and read again has equal weights and draws equal samples."""
    torch.manual_seed(0)
    model = untrained(columns, encoder, head)
    model.save(folder / "model.safetensors")
    again = SequenceModel.load(folder / "model.safetensors")
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), f"a saved model has another {key} when it is read"
    text = "a bed" if model.encoder.takes_text else None
    drawn = [each.sample(2, steps=6, text=text, seed=3) for each in (model, again)]
    for mine, theirs in zip(*drawn, strict=True):
        assert np.array_equal(mine, theirs), f"a saved model of {encoder.name} and {head.name} draws other samples"
