"""The run events that a plugin can listen to.

A listener is a module, a class or an object whose functions are marked with `seqdens.hookimpl` and named as
below; each takes, by name, as many of the arguments as it wants. What it returns is ignored. A package names
its listener in its entry point group `seqdens.hooks`. `run` is a `training.run_folder.Run`: its `path`, and its
`config`, the nested tables of `config.toml`; None where `Trainer.fit` was given none. docs/hooks.md has examples.
"""

from pathlib import Path
from typing import Any

from pluggy import HookimplMarker, HookspecMarker

hookspec = HookspecMarker("seqdens")
hookimpl = HookimplMarker("seqdens")


@hookspec
def run_started(run: Any) -> None:
    """The first step of `run` is about to be taken; its folder and its `config.toml` exist."""


@hookspec
def metrics_logged(run: Any, step: int, metrics: dict[str, float]) -> None:
    """Training `metrics` were measured after `step` steps."""


@hookspec
def epoch_finished(run: Any, metrics: dict[str, float]) -> None:
    """A pass through the training records ended; `metrics` are those of training and validation."""


@hookspec
def samples_drawn(run: Any, paths: list[Path]) -> None:
    """Samples of the model were written to the files `paths`."""


@hookspec
def run_finished(run: Any, metrics: dict[str, float]) -> None:
    """Training ended as it should; `metrics` are the last."""


@hookspec
def run_failed(run: Any, error: BaseException) -> None:
    """Training ended with `error`, which is raised once every listener has heard of it."""
