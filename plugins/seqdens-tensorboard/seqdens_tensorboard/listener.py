"""The listener: what a run tells, as event files in RUN/tensorboard.

TensorBoard itself is imported when a run takes its first step, since that takes as long as importing torch.
"""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

import seqdens

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"


class TensorBoard:
    """Losses, throughput, sample pictures and configuration of a run, over its steps, in RUN/tensorboard.

    A run that starts anew replaces the event files that were there, one that goes on adds to them. Nothing is
    written of a training that has no run folder. What cannot be written is an `OSError`, which seqdens reports.
    """

    def __init__(self) -> None:
        self._writer: SummaryWriter | None = None

    @seqdens.hookimpl
    def run_started(self, run: seqdens.Run) -> None:
        if not run.trainer_state.exists():
            for path in (run.path / FOLDER).glob("events.out.tfevents.*"):
                path.unlink()

    @seqdens.hookimpl
    def metrics_logged(self, run: seqdens.Run | None, step: int, metrics: dict[str, float]) -> None:
        if run:
            writer = self._opened(run, step - 1)
            for metric in ("train_nats_per_point", "train_nats_per_record", "points_per_second"):
                writer.add_scalar(f"step/{metric}", metrics[metric], step)

    @seqdens.hookimpl
    def epoch_finished(self, run: seqdens.Run | None, metrics: dict[str, float]) -> None:
        if run:
            step = int(metrics["step"])
            writer = self._opened(run, step)
            for metric, value in metrics.items():
                if metric not in ("epoch", "step"):
                    writer.add_scalar(tag(metric), value, step)
            writer.flush()

    @seqdens.hookimpl
    def samples_drawn(self, run: seqdens.Run, paths: list[Path]) -> None:
        import numpy as np
        from PIL import Image

        step = int(run.read_metrics()[-1]["step"])
        for path in paths:
            if path.suffix == ".png":
                with Image.open(path) as picture:
                    pixels = np.asarray(picture.convert("RGB"))
                self._opened(run, step).add_image(path.stem, pixels, step, dataformats="HWC")

    @seqdens.hookimpl
    def run_finished(self) -> None:
        self._close()

    @seqdens.hookimpl
    def run_failed(self) -> None:
        self._close()

    def _opened(self, run: seqdens.Run, done: int) -> SummaryWriter:
        """The writer; what a run that was killed had written of more than `done` steps is marked as void."""
        if not self._writer:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(run.path / FOLDER, purge_step=done + 1)
            if run.exists:
                self._writer.add_text("config", indent(run.config_file.read_text(encoding="utf-8"), " " * 4), done)
        return self._writer

    def _close(self) -> None:
        if self._writer:
            self._writer.close()
            self._writer = None


def tag(metric: str) -> str:
    """The name of a metric in TensorBoard, which shows those before a slash together.

    >>> tag("valid_nats_per_point"), tag("points_per_second")
    ('nats_per_point/valid', 'speed/points_per_second')
    """
    split = re.fullmatch("(train|valid)_(.+)", metric)
    return f"{split[2]}/{split[1]}" if split else f"speed/{metric}"
