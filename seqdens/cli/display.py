"""What a person sees of a run: a live line at a terminal, now and then a line in a log, a line for each epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from seqdens import distributed
from seqdens.hookspecs import hookimpl
from seqdens.prepare import Progress as PrepareProgress

SAID_EVERY = 60  # seconds between the lines of a log


def duration(seconds: float) -> str:
    """`42s`, `3m 07s`, `2h 05m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02}m"


def losses(metrics: dict[str, float], name: str, record_name: str) -> str:
    """`-1.234 nats/point (-765 nats/line)`."""
    per_point, per_record = (metrics[f"{name}_nats_per_{unit}"] for unit in ("point", "record"))
    return f"{per_point:.3f} nats/point ({per_record:.0f} nats/{record_name})"


@contextmanager
def counting(console: Console, text: str) -> Iterator[PrepareProgress]:
    """A bar with that text, until the block ends; nothing is shown before anything is done, or of a log."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task: list[TaskID] = []

        def show(done: int, total: int) -> None:
            if not task:
                task.append(bar.add_task(text, total=total))
            bar.update(task[0], completed=done)

        yield show


class TrainingDisplay:
    """Listens to the events of a run on records of that name."""

    def __init__(self, console: Console, record_name: str) -> None:
        self.console, self.record_name = console, record_name
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]:.0f}"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task: TaskID | None = None
        self.said = -math.inf

    @hookimpl
    def run_started(self, run: Any) -> None:
        training, processes = run.config["training"], distributed.size()
        shared = f" with {processes} processes, batches of {processes} x {training['batch_size']}"
        together = f", {training['accumulate']} batches a step"
        where = f"{run.path}{shared * (processes > 1)}{together * (training['accumulate'] > 1)}"
        self.say(f"Training to epoch {training['epochs']} in {where} (Ctrl-C saves, --resume continues)")

    @hookimpl
    def metrics_logged(self, run: Any, step: int, metrics: dict[str, float]) -> None:
        if self.task is None:
            self.task = self.bar.add_task("", epoch=metrics["epoch"])
            self.bar.start()
        left = duration(metrics["seconds_left"])
        text = f"{self._losses(metrics, 'train')} · {metrics['points_per_second']:,.0f} points/s · {left} left"
        self.bar.update(self.task, completed=step, total=metrics["steps"], epoch=metrics["epoch"], description=text)
        if not self.console.is_terminal and time.monotonic() - self.said >= SAID_EVERY:
            self.said = time.monotonic()
            self.say(f"step {step} of {metrics['steps']:.0f}: {text}")

    @hookimpl
    def epoch_finished(self, run: Any, metrics: dict[str, float]) -> None:
        parts = [f"train {self._losses(metrics, 'train')}"]
        if "valid_nats_per_point" in metrics:
            parts.append(f"valid {self._losses(metrics, 'valid')}")
        parts += [f"{metrics['points_per_second']:,.0f} points/s", duration(metrics["seconds"])]
        if metrics["skipped_steps"]:
            parts.append(f"{metrics['skipped_steps']:.0f} steps skipped (loss or gradients not finite)")
        self.say(f"epoch {metrics['epoch']:.0f}: {' · '.join(parts)}")

    @hookimpl
    def samples_drawn(self, run: Any, paths: list[Path]) -> None:
        self.stop()

    @hookimpl
    def run_failed(self, run: Any, error: BaseException) -> None:
        self.stop()

    def _losses(self, metrics: dict[str, float], name: str) -> str:
        return losses(metrics, name, self.record_name)

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        self.bar.stop()
