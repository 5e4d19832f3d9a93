"""The file of a model's weights: safetensors, in whose metadata the model is described as JSON.

Nothing in such a file can run, so that it is safe to open one from a stranger.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from seqdens.errors import DataError, SeqdensError
from seqdens.files import replacing
from seqdens.registry import one_line

FORMAT = "seqdens-model"
VERSION = 1
ROOM, LEAST_ROOM = 32, 1 << 26  # what builds a model may take: so many times its weights, and bytes more
FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}  # which take a shape first
WANTED = "name a run folder, or best.safetensors or last.safetensors of one"


class TooLarge(SeqdensError):
    """A model is larger than its weights."""


class Limited(TorchFunctionMode):
    """Within it, what makes tensors far larger or more than `weights` raises `TooLarge`, and uses no memory.

    A description of few bytes may ask for any number of cells and layers.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.bytes = ROOM * sum(each.nbytes for each in weights.values()) + LEAST_ROOM
        self.tensors = 100 * len(weights) + 1000

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        shape = args[0] if args and isinstance(args[0], list | tuple) else args
        if function in FACTORIES and all(isinstance(each, int) for each in shape):
            self._take(prod(shape))  # before the system is asked for it
        made = function(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and not any(made is each for each in args):
            self._take(made.nbytes)
        return made

    def _take(self, size: int) -> None:
        self.bytes -= size
        self.tensors -= 1
        if self.bytes < 0 or self.tensors < 0:
            raise TooLarge("it asks for far more numbers than the file holds")


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
