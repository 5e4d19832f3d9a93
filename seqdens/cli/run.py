"""`seqdens run`: prepare, train, sample and draw, all from one command."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from seqdens import distributed
from seqdens.components import experiment as find_experiment
from seqdens.errors import UsageError
from seqdens.registry import choices

if TYPE_CHECKING:
    from seqdens.cache import Prepared
    from seqdens.configuration import Config
    from seqdens.training.run_folder import Run

RUNS = Path("runs")


@click.command()
@click.argument("experiment")
@click.option("--dataset", metavar="NAME", help="Another data set than the experiment's.")
@click.option("--data", type=click.Path(path_type=Path), metavar="PATH", help="Folder or file of the data set.")
@click.option("--encoder", metavar="NAME", help="Another encoder than the experiment's.")
@click.option("--head", metavar="NAME", help="Another head than the experiment's.")
@click.option("--set", "settings", multiple=True, metavar="PART.OPTION=VALUE", help="An option; may be repeated.")
@click.option("--preset", metavar="NAME", help="A named recipe of the experiment, such as quick or paper.")
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="Options from the config.toml of a run."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The run folder; default: a new one in runs/.",
)
@click.option("--device", metavar="NAME", help="Where to train: auto, cpu, cuda, cuda:1 or mps.")
@click.option("--epochs", type=click.IntRange(1), metavar="N", help="Passes over the training data.")
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Of initial weights, data order and samples.")
@click.option("--cache", type=click.Path(path_type=Path), metavar="DIR", help="Folder for prepared data sets.")
@click.option("--resume", is_flag=True, help="Continue the run in --out; default: the last runs/EXPERIMENT-N.")
@click.option(
    "--restartable",
    is_flag=True,
    help="Continue the run in --out, or begin it where there is none: for jobs that may be started again.",
)
@click.option("--overwrite", is_flag=True, help="Replace the run in --out.")
def run(
    experiment: str,
    data: Path | None,
    settings: tuple[str, ...],
    preset: str | None,
    config: Path | None,
    out: Path | None,
    cache: Path | None,
    resume: bool,
    restartable: bool,
    overwrite: bool,
    **given: Any,
) -> None:
    """Train the model of EXPERIMENT and draw samples from it.

    `seqdens list` names experiments, data sets, encoders and heads; `seqdens show NAME` gives the options of each.
    PART is dataset, encoder, head, training or sampling, as in --set encoder.layers=2.
    """
    if resume + restartable + overwrite > 1:
        raise UsageError("--resume, --restartable and --overwrite exclude each other; give one of them.")
    if overwrite and distributed.restartable():
        raise distributed.by_all(
            UsageError(
                "--overwrite and torchrun --max-restarts exclude each other, since what is started again goes on "
                "with what it finds; delete the folder of the run before, or choose another by --out."
            )
        )
    again = restartable or any(distributed.exchange(distributed.restarted))
    resuming = distributed.from_first(lambda: resume or (again and begun(out)))
    run = distributed.from_first(
        lambda: open_run(experiment, out, resuming, overwrite, config, preset, data, settings, **given)
    )
    carry_out(experiment, run, cache, resuming, overwrite)


def open_run(
    experiment: str,
    out: Path | None,
    resume: bool,
    overwrite: bool,
    config: Path | None,
    preset: str | None,
    data: Path | None,
    settings: tuple[str, ...],
    **given: Any,
) -> Run:
    """The run of the command line's options, nothing written yet, which goes on with that in its folder to `resume`."""
    from seqdens.training.run_folder import Run

    find_experiment(experiment)  # what is misspelt is said before what is missing
    run = Run(out or default_folder(experiment, resume))
    if resume and not run.exists:
        if run.trainer_state.exists():
            raise UsageError(f"{run.path} has no config.toml to go on by; put back that of the run.")
        run.check_free()
        known = [str(each.parent) for each in run.path.parent.glob("*/config.toml")]
        raise UsageError(
            f"there is no run at {run.path} to resume; {choices(str(run.path), known)} Leave out --resume to start."
        )
    if resume and (config or preset):
        click.echo(f"Note: --config and --preset are not used, {run.path} goes on with its own configuration.")
    if not resume:
        run.check_free(overwrite=overwrite)
    source = run.config_file if resume else config
    run.config = configure(experiment, source, None if resume else preset, data, settings, **given)
    if resume and not run.trainer_state.exists():
        run.check_resumable()
        click.echo(f"There is nothing saved at {run.path} to resume; it starts anew.")
    return run


def begun(out: Path | None) -> bool:
    """Whether there is a run in `out`, which must be known for a job that is started again to find it."""
    from seqdens.training.run_folder import Run

    if out is None:
        raise UsageError("a run that may be started again must be found again: name its folder with --out.")
    run = Run(out)
    return run.exists or run.trainer_state.exists()


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
    if source and preset:
        raise UsageError(f"--preset {preset} and --config {source} exclude each other; give one of them, and --set.")
    config = read_config(source) if source else None
    if config == {}:  # as after a full disk, and no choice of all defaults
        raise UsageError(f"{source} is empty; put back what it held.")
    if config and config.get("experiment", name) != name:
        raise UsageError(f"{source} is of experiment {config['experiment']!r}, but {name!r} was asked for.")
    chosen = {part: given[part] for part in ("dataset", "encoder", "head") if given[part]}
    flags = [
        ("training", option, given[option]) for option in ("device", "epochs", "seed") if given[option] is not None
    ]
    root = [("dataset", "root", data)] if data else []
    resolved = resolve(
        experiment,
        preset=preset,
        config=config,
        chosen=chosen,
        settings=[*root, *flags, *map(parse_setting, settings)],
    )
    return {"experiment": name} | resolved


def carry_out(name: str, run: Run, cache: Path | None, resuming: bool, overwrite: bool) -> None:
    """Prepare the data, train, sample, and say where everything is."""
    from seqdens.training.run_folder import FILES

    data = distributed.first_on_each_machine(lambda: prepare(run, cache))
    epochs = run.config["training"]["epochs"]
    if resuming and distributed.from_first(lambda: len(run.read_metrics())) == epochs:
        click.echo(f"Note: {run.path} is trained for all its {epochs} epochs; only its samples are drawn again.")
    again = going_on(name, run, cache)
    train(run, data, resuming, overwrite, again)
    if distributed.rank() > 0:  # whose machine may not see the folder
        return
    files = [name for name in FILES if (run.path / name).exists()]
    pictures = "samples.png" in files
    others = (path.name + "/" * path.is_dir() for path in run.path.iterdir() if path.name not in FILES)
    files += sorted(name for name in others if not name.startswith("."))
    folder = quote(str(run.path))
    click.echo(f"\n{run.path}: {', '.join(files)}")
    click.echo(f"Next: open {quote(str(run.path / ('samples.png' if pictures else 'samples.csv')))}")
    text = " --text 'Hello there'" if written(run) else ""
    click.echo(f"      seqdens sample {folder} -n 4{text} --bias 1 --seed 2 --out more{'.svg' if pictures else '.csv'}")
    click.echo(f"      {again} --epochs {2 * epochs}")


def prepare(run: Run, cache: Path | None) -> Prepared:
    """The data of a run, once its training options are seen to be possible."""
    from seqdens.cli.prepare import prepare_with_display
    from seqdens.runner import component
    from seqdens.training.trainer import Trainer

    Trainer(**run.config["training"])
    part = run.config["dataset"]
    data = prepare_with_display(component("dataset", part), part.get("root"), folder=cache)
    data.check_trainable()
    return data


def written(run: Run) -> bool:
    """Whether the run's model is one that writes texts."""
    from seqdens.model import takes_text
    from seqdens.runner import component

    return takes_text(component("encoder", run.config["encoder"]))


def started_as() -> str:
    """The command that this process is, for a person to repeat."""
    if distributed.size() == 1:
        return "seqdens"
    machine = distributed.size() == distributed.local_size()
    return f"torchrun {f'--nproc-per-node {distributed.size()}' if machine else '...'} -m seqdens"


def going_on(name: str, run: Run, cache: Path | None) -> str:
    """The command that goes on with a run."""
    prepared = f" --cache {quote(str(cache))}" if cache else ""
    return f"{started_as()} run {name} --resume --out {quote(str(run.path))}{prepared}"


def train(run: Run, data: Any, resuming: bool, overwrite: bool, again: str) -> None:
    """Train with a live display; Ctrl-C says that the command `again` goes on."""
    from rich.console import Console

    from seqdens.cli.display import TrainingDisplay
    from seqdens.plugins import Events, load_events
    from seqdens.runner import train_and_sample

    display = TrainingDisplay(Console(), data.provenance.record_name)
    events = load_events([display]) if distributed.rank() == 0 else Events([], [])
    try:
        train_and_sample(run, data, events, resume=resuming, overwrite=overwrite)
    except KeyboardInterrupt:
        if run.trainer_state.exists():
            click.echo(f"\nStopped; what is saved goes on with: {again}", err=True)
        raise
