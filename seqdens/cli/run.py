"""`seqdens run`: prepare, train, sample and draw, all from one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seqdens.components import experiment as find_experiment
from seqdens.errors import UsageError

if TYPE_CHECKING:
    from seqdens.configuration import Config
    from seqdens.training.run_folder import Run

RUNS = Path("runs")


@click.command()
@click.argument("experiment")
@click.option("--dataset", metavar="NAME", help="Another data set.")
@click.option("--data", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the data set's files.")
@click.option("--encoder", metavar="NAME", help="Another encoder, with its own defaults.")
@click.option("--head", metavar="NAME", help="Another head, with its own defaults.")
@click.option("--set", "settings", multiple=True, metavar="PART.OPTION=VALUE", help="One option; may be repeated.")
@click.option("--preset", metavar="NAME", help="A named recipe of the experiment, such as quick or paper.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Options from a config.toml.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The run folder; default: a new one in runs/.",
)
@click.option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")
@click.option("--epochs", type=click.IntRange(1), metavar="N", help="Passes over the training data.")
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Of initial weights, data order and samples.")
@click.option("--cache", type=click.Path(path_type=Path), metavar="DIR", help="Folder for prepared data sets.")
@click.option("--resume", is_flag=True, help="Continue the run in the folder.")
@click.option("--overwrite", is_flag=True, help="Replace the run in the folder.")
def run(
    experiment: str,
    data: Path | None,
    settings: tuple[str, ...],
    preset: str | None,
    config: Path | None,
    out: Path | None,
    cache: Path | None,
    resume: bool,
    overwrite: bool,
    **given: Any,
) -> None:
    """Train the model of EXPERIMENT and draw samples from it."""
    from seqdens.training.run_folder import Run

    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other; give one of them.")
    run = Run(out or default_folder(experiment, resume))
    resuming = resume and run.exists
    if resume and not resuming:
        click.echo(f"There is no run at {run.path} to resume; a new one starts.")
    if not resuming and not overwrite:
        run.refuse_existing()
    source = run.path / "config.toml" if resuming else config
    run.config = configure(experiment, source, preset, data, settings, **given)
    carry_out(experiment, run, cache, resuming, overwrite)


def default_folder(experiment: str, resume: bool) -> Path:
    """The first free `runs/EXPERIMENT-N`; to resume, the last taken one."""
    number = 1
    while (RUNS / f"{experiment}-{number}").exists():
        number += 1
    return RUNS / f"{experiment}-{max(1, number - 1) if resume else number}"


def configure(
    name: str,
    source: Path | None,
    preset: str | None,
    data: Path | None,
    settings: tuple[str, ...],
    **given: Any,
) -> Config:
    """The resolved configuration of a run, from the command line's options."""
    from seqdens.configuration import parse_setting, resolve
    from seqdens.training.run_folder import read_config

    experiment = find_experiment(name)
    config = read_config(source) if source else None
    if config and config.get("experiment", name) != name:
        raise UsageError(f"{source} is of experiment {config['experiment']!r}, but {name!r} was asked for.")
    chosen = {part: given[part] for part in ("dataset", "encoder", "head") if given[part]}
    flags = [
        ("training", option, given[option]) for option in ("device", "epochs", "seed") if given[option] is not None
    ]
    root = [("dataset", "root", str(data.resolve()))] if data else []
    resolved = resolve(
        experiment,
        preset=preset,
        config=config,
        chosen=chosen,
        settings=[*root, *flags, *map(parse_setting, settings)],
    )
    return {"experiment": name} | resolved  # type: ignore[return-value]


def carry_out(name: str, run: Run, cache: Path | None, resuming: bool, overwrite: bool) -> None:
    """Prepare the data, train, sample, and say where everything is."""
    from seqdens.cli.prepare import prepare_with_display
    from seqdens.runner import component

    part = run.config["dataset"]
    data = prepare_with_display(component("dataset", part), part.get("root"), folder=cache)
    if resuming:
        run.write_config()
    else:
        run.start(overwrite=overwrite)
    train(run, data, resuming)
    click.echo(f"\n{run.path}: config.toml, metrics.csv, best and last weights, samples.svg, samples.png, loss.png")
    click.echo(f"Next: open {run.path / 'samples.png'}")
    click.echo(f"      seqdens sample {run.path} -n 4 --bias 1 --seed 2 --out more.svg")
    click.echo(f"      seqdens run {name} --resume --out {run.path} --epochs {2 * run.config['training']['epochs']}")


def train(run: Run, data: Any, resuming: bool) -> None:
    """Train with a live display; Ctrl-C says how to go on."""
    from rich.console import Console

    from seqdens.cli.display import TrainingDisplay
    from seqdens.plugins import load_events
    from seqdens.runner import train_and_sample

    display = TrainingDisplay(Console())
    training = run.config["training"]
    click.echo(f"Training for {training['epochs']} epochs into {run.path} (Ctrl-C saves; --resume continues)")
    try:
        train_and_sample(run, data, load_events([display]), resume=resuming)
    except KeyboardInterrupt:
        name = run.config["experiment"]
        click.echo(f"\nStopped and saved; continue with: seqdens run {name} --resume --out {run.path}", err=True)
        raise
