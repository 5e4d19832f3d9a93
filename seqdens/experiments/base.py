"""What an experiment is: a data set, a model and a training recipe under one name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Layer = Mapping[str, Mapping[str, Any]]  # part -> option -> value


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A declaration.

    Each part holds options; dataset, encoder and head also the `name` of a component. `presets` are layers by
    name; without another choice `own_preset` is taken on the experiment's own data set, else `preset`.
    """

    summary: str
    dataset: Mapping[str, Any]
    encoder: Mapping[str, Any]
    head: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    presets: Mapping[str, Layer] = field(default_factory=dict)
    preset: str = ""
    own_preset: str = ""

    def describe(self) -> dict[str, Any]:
        """The declaration as plain data."""
        return asdict(self)

    def preset_for(self, dataset: str) -> str:
        """The preset taken on a data set of that name where none is asked for; "" for none."""
        return self.own_preset if dataset == self.dataset["name"] else self.preset
