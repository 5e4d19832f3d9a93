"""The contract of an experiment: its declaration holds together, and a small form of it runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from click.testing import CliRunner

from seqdens.cli import cli
from seqdens.components import experiment
from seqdens.configuration import Config, Sampling, resolve
from seqdens.experiments.base import Experiment
from seqdens.model import SequenceModel
from seqdens.runner import component
from seqdens.testing.models import untrained
from seqdens.training.run_folder import Run, read_config
from seqdens.training.trainer import Trainer


class ExperimentContract:
    """An experiment: every preset can be built, and a run of the smallest form of it learns and draws samples.

    >>> class TestHandwriting(ExperimentContract):
    ...     experiment = "handwriting"
    ...     settings = ("dataset.lines=6", "dataset.writers=3", "encoder.hidden_size=8", "sampling.steps=10")
    >>> TestHandwriting().test_it_says_what_it_is()

    `settings` are those of `--set`, and make a run of two epochs take a second or two. An experiment on a data set
    that reads files overrides `make_files`, as in `DatasetContract`.
    """

    kind: ClassVar[str] = "experiments"
    experiment: str
    settings: Sequence[str] = ()

    def make_files(self, root: Path) -> None:
        """Write sound files into the empty folder `root`."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path | None:
        """The folder of the data set's files; None for a generator."""
        if type(self).make_files is ExperimentContract.make_files:
            return None
        (tmp_path / "data").mkdir()
        self.make_files(tmp_path / "data")
        return tmp_path / "data"

    @property
    def name(self) -> str:
        return self.experiment

    @property
    def declared(self) -> Experiment:
        found: Experiment = experiment(self.name)
        return found

    def configurations(self) -> Iterator[Config]:
        """Every option of the experiment, as it is without a choice and with each preset."""
        yield from (resolve(self.declared, preset=preset) for preset in (None, *self.declared.presets))

    def test_it_says_what_it_is(self) -> None:
        summary = self.declared.summary
        assert summary.endswith("."), f"{self.name}: its summary is a sentence, not {summary!r}"
        assert "\n" not in summary, f"{self.name}: its summary is one line, not {summary!r}"
        for preset in (self.declared.preset, self.declared.own_preset):
            assert preset in ("", *self.declared.presets), f"{self.name}: there is no preset {preset!r} among its own"

    def test_every_preset_can_be_built(self, root: Path | None) -> None:
        for config in self.configurations():
            columns = component("dataset", config["dataset"]).build(root).columns
            model = untrained(columns, component("encoder", config["encoder"]), component("head", config["head"]))
            assert any(True for _ in model.parameters()), f"{self.name}: its model has nothing to learn"
            Trainer(**config["training"])
            Sampling(**config["sampling"])

    def test_a_configuration_says_all_of_it(self, tmp_path: Path) -> None:
        """What a run writes down is what it was."""
        for config in self.configurations():
            run = Run(tmp_path, config)
            run.write_config()
            again = resolve(self.declared, config=read_config(run.config_file))
            assert again == config, f"{self.name}: what a run writes down is not what it was"

    def test_a_small_run_learns_and_draws(self, root: Path | None, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        options = [f"--set={setting}" for setting in self.settings] + ([f"--data={root}"] if root else [])
        places = ["--out", str(folder), "--cache", str(tmp_path / "cache"), "--device", "cpu"]
        done = CliRunner().invoke(cli, ["run", self.name, "--epochs", "2", *options, *places])
        assert done.exit_code == 0, done.output
        first, last = (epoch["train_nats_per_point"] for epoch in Run(folder).read_metrics())
        assert math.isfinite(last), f"{self.name}: its loss is {last} after two epochs"
        assert last < first, f"{self.name}: it does not learn: {first} nats per point, then {last}"
        model = SequenceModel.load(folder)
        text = model.alphabet[:5] if model.encoder.takes_text else None
        assert model.sample(2, steps=5, text=text, seed=1)[0].shape[1] == len(model.columns), (
            f"{self.name}: samples lack columns"
        )
        assert any((folder / name).exists() for name in ("samples.png", "samples.csv")), (
            f"{self.name}: its run leaves no samples"
        )
