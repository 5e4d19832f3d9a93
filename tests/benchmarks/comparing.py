"""What the benchmarks share: sides that do equal work, timed in turns, as medians with their spread."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median, quantiles

import torch


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
    """Return the processor, its architecture, threads and torch, for the head of a table."""
    return f"{processor()}, {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def processor() -> str:
    """Return the model of the processor as Linux names it, or else what Python knows of it."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or "unknown processor")
