"""Which device to compute on, and in which precision its products are fast."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch

from seqdens.errors import UsageError


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is cuda, else mps, else cpu. Raises `UsageError` where it is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or not available.get(device.type) or (device.index or 0) >= _count(device.type):
        there = ", ".join(["auto", *(kind for kind, is_there in available.items() if is_there)])
        raise UsageError(f"device {name!r} is not available; here are: {there}.")
    return device


def _count(kind: str) -> int:
    return torch.cuda.device_count() if kind == "cuda" else 1


def bf16_is_fast(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 matrices faster than float32 ones."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # an older torch cannot tell
    return device.type == "cpu" and bool(capabilities.get("amx_bf16", False))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Products in bf16 where `precision` is "bf16", or "auto" and the hardware is fast at it; else float32."""
    enabled = precision == "bf16" or (precision == "auto" and bf16_is_fast(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)
