"""The data to look at a trained model with: those that it was trained on, or others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seqdens.cli.prepare import Function, parse_options, place_options
from seqdens.errors import UsageError

if TYPE_CHECKING:
    from seqdens.cache import Prepared
    from seqdens.training.run_folder import Run


def data_options(command: Function) -> Function:
    """Adds --dataset, --data, --set OPTION=VALUE and --cache, as `dataset`, `data`, `settings` and `cache`."""
    named = click.option("--dataset", metavar="NAME", help="Another data set than the one the model learnt from.")
    return named(place_options(command))


def data_for(
    model: Path,
    *,
    dataset: str | None = None,
    data: Path | None = None,
    settings: tuple[str, ...] = (),
    cache: Path | None = None,
) -> Prepared:
    """The prepared data of a run folder or weights file, as `dataset_part` finds them; all that is said goes to stderr.

    Raises `UsageError` and `DataError` where there are none.
    """
    return prepare_part(dataset_part(model, dataset=dataset, data=data, settings=settings), cache)


def dataset_part(
    model: Path, *, dataset: str | None = None, data: Path | None = None, settings: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Name, root and options: of the `config.toml` beside the weights, or of `dataset` with its own defaults.

    `data` and `settings` win. Raises `UsageError` where nothing names a data set.
    """
    part = {"name": dataset} if dataset else configured_part(model)
    if "name" not in part:
        raise UsageError(
            f"there is no {run_of(model).config_file} that names the data of {model}; "
            "give --dataset NAME, and --data DIR for one of files."
        )
    return part | parse_options(settings) | ({"root": data} if data else {})


def run_of(model: Path) -> Run:
    """The run whose folder, or weights file in it, is `model`."""
    from seqdens.training.run_folder import Run

    return Run(model if model.is_dir() else model.parent)


def configured_part(model: Path) -> dict[str, Any]:
    """What the `config.toml` beside the weights says of the data that they learnt from; empty without one."""
    from seqdens.training.run_folder import read_config

    run = run_of(model)
    return dict(read_config(run.config_file).get("dataset", {})) if run.exists else {}


def from_elsewhere(model: Path, part: dict[str, Any]) -> bool:
    """Whether the data set `part` has files, which are known to be others than those that `model` learnt from."""
    learnt, root = configured_part(model), part.get("root")
    return bool(learnt and root) and Path(learnt.get("root", "")).resolve() != Path(str(root)).resolve()


def prepare_part(part: dict[str, Any], cache: Path | None) -> Prepared:
    """The prepared data set of that part of a configuration; all that is said goes to stderr."""
    from seqdens.cli.prepare import prepare_with_display
    from seqdens.runner import component

    return prepare_with_display(component("dataset", part), part.get("root"), folder=cache, stderr=True)
