"""Which device to compute on, and in which precision its products are fast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from seqdens import distributed, native
from seqdens.errors import UsageError


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is cuda, else mps, else cpu. Raises `UsageError` where it is not there.

    Processes that `torchrun` started take a GPU each, and have no mps.
    """
    mps = torch.backends.mps.is_available() and not distributed.launched()
    available = {"cuda": torch.cuda.is_available(), "mps": mps, "cpu": True}
    try:
        device = torch.device(next(kind for kind, there in available.items() if there) if name == "auto" else name)
    except RuntimeError:
        device = None
    if device is None or not available.get(device.type) or (device.index or 0) >= _count(device.type):
        there = ", ".join(["auto", *(kind for kind, is_there in available.items() if is_there)])
        raise UsageError(f"device {name!r} is not available; here are: {there}.")
    return _own_gpu(device) if device.type == "cuda" and distributed.launched() else device


def _own_gpu(device: torch.device) -> torch.device:
    gpus, processes = torch.cuda.device_count(), distributed.local_size()
    if processes > gpus:
        raise UsageError(f"{processes} processes have {gpus} GPU(s); use --nproc-per-node {gpus}, or device cpu.")
    if device.index is not None and processes > 1:
        raise UsageError(f"device {str(device)!r} is one GPU, but {processes} processes need one each; say cuda.")
    return torch.device("cuda", distributed.local_rank()) if device.index is None else device


def _count(kind: str) -> int:
    return torch.cuda.device_count() if kind == "cuda" else 1


def bf16_is_fast(device: torch.device) -> bool:
    """Return whether training in bfloat16 is faster than in float32.

    On a CPU that is so if the compiled library has products in bf16 here, or, without the library, if torch has.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    try:
        native.library()
    except native.Unavailable:
        capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # an older torch cannot tell
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return native.has("bf16")


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Products in bf16 if `precision` is "bf16", or "auto" and the hardware is fast at it; else in float32.

    The block can be entered again and again. Encoders are asked for int8 by an argument of their `stepper`.
    """
    enabled = precision == "bf16" or (precision == "auto" and bf16_is_fast(device))
    if not enabled and not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


@contextmanager
def flushing_denormals() -> Iterator[None]:
    """Within the block, numbers below 1e-38 count as zero to this thread, and to those that it starts.

    Trained networks have derivatives that small, with which a CPU's products take several times as long.
    """
    before = (torch.tensor(1e-310, dtype=torch.float64) * 1).item() == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
