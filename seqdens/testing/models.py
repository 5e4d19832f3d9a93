"""A component at work in a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from seqdens.datasets.base import Column
from seqdens.model import SequenceModel
from seqdens.registry import Component


def untrained(columns: Sequence[Column], encoder: Component, head: Component) -> SequenceModel:
    """A model of data that need no scaling."""
    real = sum(column.kind == "real" for column in columns)
    return SequenceModel(columns, encoder, head, mean=[0.0] * real, std=[1.0] * real)


def check_saved_model(columns: Sequence[Column], encoder: Component, head: Component, folder: Path) -> None:
    """A model that is written and read again has equal weights and draws equal samples."""
    torch.manual_seed(0)
    model = untrained(columns, encoder, head)
    model.save(folder / "model.safetensors")
    again = SequenceModel.load(folder / "model.safetensors")
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    drawn = [each.sample(2, steps=6, seed=3) for each in (model, again)]
    for mine, theirs in zip(*drawn, strict=True):
        np.testing.assert_array_equal(mine, theirs)
