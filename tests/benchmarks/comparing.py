"""What the benchmarks share: their command line, and sides that do equal work, timed in turns, as medians with spread.

`python tests/benchmarks/NAME.py --quick` runs a benchmark at small sizes, on data that it makes up, and asserts no
timing.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import TypeVar

QUICK = "--quick" in sys.argv
Size = TypeVar("Size")


def sized(usual: Size, quick: Size) -> Size:
    """Return `quick` if the command line says `--quick`, else `usual`."""
    return quick if QUICK else usual


def command_line(main: Callable[..., int | None], quick: Callable[[], int | None]) -> None:
    """Exit with what `main` returns for the arguments of the command line, or with what `quick` returns on `--quick`.

    The annotations of `main` convert the arguments. `quick` has a cache of its own, and no plugins.
    """
    parser = ArgumentParser(
        description=sys.modules["__main__"].__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--quick", action="store_true", help="small sizes and made-up data, without other arguments")
    for name, parameter in signature(main, eval_str=True).parameters.items():
        needed = parameter.default is parameter.empty and not QUICK
        parser.add_argument(
            name,
            nargs=None if needed else "?",
            type=parameter.annotation,
            default=parameter.default,
            metavar=name.upper(),
        )
    arguments = vars(parser.parse_args())
    if not arguments.pop("quick"):
        sys.exit(main(**arguments))
    with TemporaryDirectory() as cache:
        os.environ |= {"SEQDENS_CACHE": cache, "SEQDENS_PLUGINS": ""}
        sys.exit(quick())


def compare(sides: Mapping[str, Callable[[], object]], rounds: int = 7, warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds of each round of each side; the sides take turns, so that what disturbs one disturbs all."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(-warm_up, rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if round_ >= 0:
                taken[name].append(time.perf_counter() - start)
    return taken


def ratio(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """How many times as fast we are: the median over the rounds, and its quartiles."""
    each = [other / own for own, other in zip(ours, theirs, strict=True)]
    low, _, high = quantiles(each, n=4)
    return median(each), low, high


def report(taken: Mapping[str, list[float]], work: float, unit: str) -> None:
    """A line for each side: the median time, and `work` of that `unit` a second."""
    for name, seconds in taken.items():
        low, middle, high = quantiles(seconds, n=4)
        print(f"  {name:44} {middle:8.3f} s ({low:.3f} to {high:.3f})   {work / middle:10,.0f} {unit}/s")


def report_ratio(what: str, ours: list[float], theirs: list[float], least: float) -> None:
    """A line: how many times as fast, and what is wanted."""
    middle, low, high = ratio(ours, theirs)
    print(f"  {what:60} {middle:5.2f} x ({low:.2f} to {high:.2f}), wanted {least} x")


def machine() -> str:
    """Return the processor, what is compiled for it, threads and torch, for the head of a table."""
    import torch  # slow, and not every benchmark needs it

    from seqdens import native

    threads = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    return f"{processor()}, {platform.machine()}, {native.describe()}, {threads}"


def processor() -> str:
    """Return the model of the processor as Linux names it, or else what Python knows of it."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or "unknown processor")
