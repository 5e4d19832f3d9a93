"""The file of a model's weights: safetensors, in whose metadata the model is described as JSON.

Nothing in such a file can run, so that it is safe to open one from a stranger.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from seqdens.errors import DataError
from seqdens.files import replacing
from seqdens.registry import one_line

FORMAT = "seqdens-model"
VERSION = 1
WANTED = "name a run folder, or best.safetensors or last.safetensors of one"


def write_weights(path: Path, described: Mapping[str, Any], weights: dict[str, Tensor]) -> None:
    """Write `weights` and what describes them; what stood at `path` is replaced only by a complete file."""
    metadata = json.dumps({"format": FORMAT, "version": VERSION, **described})
    with replacing(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(weights, {"seqdens": metadata}))


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the weights of a file; raises `DataError` where it is no such file."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            described = json.loads((file.metadata() or {})["seqdens"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError:
        raise DataError(
            f"there are no weights at {path}; a run writes best.safetensors and last.safetensors into its folder."
        ) from None
    except Exception as error:  # of a file from anywhere, anything may be wrong
        raise DataError(f"{path} is no seqdens model ({one_line(error)}); {WANTED}.") from None
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise DataError(f"{path} is no seqdens model: its description has no format {FORMAT!r}; {WANTED}.")
    if described.get("version") != VERSION:
        raise DataError(f"{path} has model format {described.get('version')}, this seqdens reads {VERSION}.")
    return described, weights
