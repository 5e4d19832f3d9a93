"""The compiled library: which instructions it uses on this processor, and its functions.

A *level* is a set of instructions that the sources were compiled for. The library of a platform holds all levels side
by side, and this module alone chooses among them. *Products* are the type of the numbers that matrices are multiplied
in: float32, bf16 or int8.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from seqdens.errors import SeqdensError

PRODUCTS = {  # the levels that have them, the fastest first
    "float32": ("avx512", "avx2", "neon", "generic"),
    "bf16": ("amx", "avx512_bf16"),
    "int8": ("amx", "avx512_vnni", "avx_vnni", "neon_dot"),
}
LEVELS = ("generic", "neon", "neon_dot", "avx2", "avx_vnni", "avx512", "avx512_vnni", "avx512_bf16", "amx")
Signatures = dict[str, Sequence[type[Any]]]
VARIABLE = "SEQDENS_LEVEL"  # of the environment: no level after this one of LEVELS is used


class Unavailable(SeqdensError):
    """There is no compiled library here, or it has no level for these products that this processor can run."""


def function(name: str, products: str, arguments: Sequence[type[Any]]) -> Callable[..., None]:
    """Return the function of that name for those products, of the fastest level here, which takes `arguments`.

    Raises `Unavailable` if there is none.
    """
    return _function(name, products, tuple(arguments), _limit())


@cache
def _function(name: str, products: str, arguments: tuple[type[Any], ...], limit: str) -> Callable[..., None]:
    of_products = name if name in ("mixture", "draw") else f"{name}_{products}"
    found = getattr(library(), f"{of_products}_{_levels(products, limit)[0]}")
    found.argtypes, found.restype = arguments, None
    return found


def level(products: str) -> str:
    """Return the fastest level for those products that is compiled, can run here and is allowed by SEQDENS_LEVEL.

    Raises `Unavailable` with the reason if there is none.
    """
    return levels(products)[0]


def levels(products: str) -> Sequence[str]:
    """Return all such levels, the fastest first; raises `Unavailable` if there is none."""
    return _levels(products, _limit())


@cache  # to ask the processor takes a virtual machine up to 0.1 ms
def _levels(products: str, limit: str) -> Sequence[str]:
    allowed, can_run = LEVELS[: LEVELS.index(limit) + 1], library().can_run
    found = [name for name in PRODUCTS[products] if name in allowed and can_run(name.encode())]
    if not found:
        held = "" if limit == LEVELS[-1] else f", and {VARIABLE} is {limit!r}"
        raise Unavailable(
            f"this processor has none of {', '.join(PRODUCTS[products])} for products in {products}{held}; "
            "use precision float32."
        )
    return found


def has(products: str) -> bool:
    """Return whether there is a level for those products here."""
    try:
        return bool(levels(products))
    except Unavailable:
        return False


def describe() -> str:
    """Return a line on what is used on this machine, and why."""
    try:
        library()
    except Unavailable as error:
        return f"plain torch: {error}"
    used = ", ".join(f"{products} {level(products) if has(products) else 'none'}" for products in PRODUCTS)
    held = "" if _limit() == LEVELS[-1] else f" (held to {VARIABLE}={_limit()})"
    return f"compiled: {used}{held}"


@cache
def _limit() -> str:
    limit = os.environ.get(VARIABLE) or LEVELS[-1]
    if limit not in LEVELS:
        raise SeqdensError(
            f"{VARIABLE} is {limit!r}, but must be one of {', '.join(LEVELS)}, or empty for the fastest."
        )
    return limit


def library() -> ctypes.CDLL:
    """Return the library; raises `Unavailable` with the reason, which is found out once a process."""
    found = _attempt()
    if isinstance(found, str):
        raise Unavailable(found)
    return found


@cache
def _attempt() -> ctypes.CDLL | str:
    path = next((path for folder in __path__ if (path := Path(folder) / "libseqdens.so").exists()), None)
    if path is None:
        return (
            "seqdens was installed without its compiled part; install a C++ compiler (g++), then seqdens again, with "
            "pip install --force-reinstall --no-deps --no-cache-dir."
        )
    try:
        _load_openmp()
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        return f"{path.name} cannot be loaded ({str(error).rstrip('.')}); install seqdens again."
    loaded.can_run.argtypes, loaded.can_run.restype = [ctypes.c_char_p], ctypes.c_bool
    return loaded


def forget() -> None:
    """Find everything out anew when it is next asked for, as tests that change SEQDENS_LEVEL want."""
    for found_once in (_limit, _attempt, _levels, _function):
        found_once.cache_clear()


def _load_openmp() -> None:
    """Make the symbols of torch's OpenMP runtime known: with a second one, two pools of threads would compete.

    Raises `OSError` if there is no runtime.
    """
    torch = find_spec("torch")
    package = Path(torch.origin).parent if torch and torch.origin else Path()
    folders = package / "lib", package.parent / "torch.libs"
    names = "libgomp*", "libiomp5*", "libomp*"
    own = [str(path) for folder in folders for name in names for path in folder.glob(name)]
    for candidate in (*own, "libgomp.so.1", "libomp.so", "libomp.dylib"):
        try:
            ctypes.CDLL(candidate, ctypes.RTLD_GLOBAL)
            return
        except OSError:
            continue
    raise OSError("there is no OpenMP runtime beside torch or on this system")
