"""An experiment carried out: what is drawn, what is told, what is left."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqdens import components
from seqdens.datasets.base import SEQUENCE_END, STROKE_END, Column, X, Y
from seqdens.errors import DataError, UsageError
from seqdens.export import load_ink
from seqdens.hookspecs import hookimpl
from seqdens.model import SequenceModel
from seqdens.plugins import Events
from seqdens.runner import caption, component, draw_samples, plot_history, texts_to_draw, train_and_sample
from seqdens.training.run_folder import Run


def config(**training: Any) -> dict[str, Any]:
    return {
        "encoder": {"name": "stacked-lstm", "hidden_size": 8, "layers": 1},
        "head": {"name": "gmm-bernoulli", "components": 2},
        "training": {"epochs": 2, "batch_size": 4, "device": "cpu", "seed": 3} | training,
        "sampling": {"count": 2, "steps": 6, "bias": 0.0},
    }


class Listener:
    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    @hookimpl
    def run_started(self, run: Any) -> None:
        self.told.append(("started", run.exists))

    @hookimpl
    def epoch_finished(self, run: Any, metrics: dict[str, float]) -> None:
        self.told.append(("epoch", metrics["epoch"]))

    @hookimpl
    def samples_drawn(self, run: Any, paths: list[Path]) -> None:
        self.told.append(("samples", [path.name for path in paths]))

    @hookimpl
    def run_finished(self, run: Any, metrics: dict[str, float]) -> None:
        self.told.append(("finished", metrics["epoch"]))

    @hookimpl
    def run_failed(self, run: Any, error: BaseException) -> None:
        self.told.append(("failed", str(error)))


def carry_out(run: Run, data: Any, **settings: Any) -> list[tuple[str, Any]]:
    listener = Listener()
    try:
        train_and_sample(run, data, Events([listener], []), **settings)
    except DataError:
        listener.told.append(("raised", None))
    return listener.told


def test_a_run_of_ink_leaves_everything_and_tells_of_it(make: Callable[..., Any], tmp_path: Path) -> None:
    run = Run(tmp_path / "run", config())
    told = carry_out(run, make())
    assert told == [
        ("started", True),
        ("epoch", 1),
        ("epoch", 2),
        ("samples", ["samples.svg", "samples.png"]),
        ("finished", 2),
    ]
    assert {path.name for path in run.path.iterdir()} == {
        "config.toml",
        "metrics.csv",
        "best.safetensors",
        "last.safetensors",
        "trainer.pt",
        "samples.svg",
        "samples.png",
        "loss.png",
    }
    assert "made (synthetic)" in (run.path / "samples.svg").read_text()


def test_equal_runs_are_equal(make: Callable[..., Any], tmp_path: Path) -> None:
    data = make()
    runs = [Run(tmp_path / name, config(seed=seed)) for name, seed in (("a", 3), ("b", 3), ("c", 4))]
    for run in runs:
        carry_out(run, data)
    for name in ("best.safetensors", "samples.svg"):
        one, same, other = ((run.path / name).read_bytes() for run in runs)
        assert one == same
        assert one != other


def test_samples_that_are_no_ink_are_saved_as_numbers(make: Callable[..., Any], tmp_path: Path) -> None:
    columns = (Column("price", "real"), Column("sold", "binary"))
    run = Run(tmp_path / "run", config())
    assert ("samples", ["samples.csv"]) in carry_out(run, make(columns))
    ink = load_ink(run.path / "samples.csv")
    assert (ink.columns, [record.shape for record in ink.records]) == (columns, [(6, 2)] * 2)


def test_records_that_end_are_drawn(make: Callable[..., Any], tmp_path: Path) -> None:
    run = Run(tmp_path / "run", config())
    assert carry_out(run, make((X, Y, STROKE_END, SEQUENCE_END)))[-1] == ("finished", 2)


def test_a_failure_is_told_before_it_is_raised(make: Callable[..., Any], tmp_path: Path) -> None:
    run = Run(tmp_path / "run", config(optimiser="sgd", learning_rate=1e30))
    told = carry_out(run, make())
    assert [name for name, _ in told] == ["started", "failed", "raised"]
    assert "lower training.learning_rate" in told[1][1]


def test_of_a_run_that_is_refused_nothing_is_told(make: Callable[..., Any], tmp_path: Path) -> None:
    data, listener = make(), Listener()
    carry_out(Run(tmp_path / "run", config()), data)
    with pytest.raises(UsageError, match="another setting"):
        train_and_sample(Run(tmp_path / "run", config(seed=4)), data, Events([listener], []), resume=True)
    assert listener.told == []


@pytest.mark.parametrize(
    ("part", "option", "value"),
    [("encoder", "hidden_size", 0), ("head", "components", 0), ("training", "optimiser", "addam")],
)
def test_what_cannot_be_built_leaves_no_folder(
    make: Callable[..., Any], tmp_path: Path, part: str, option: str, value: Any
) -> None:
    run = Run(tmp_path / "run", config())
    run.config[part][option] = value
    listener = Listener()
    with pytest.raises(UsageError, match=str(value)):
        train_and_sample(run, make(), Events([listener], []))
    assert (run.path.exists(), listener.told) == (False, [])


def test_a_folder_with_a_run_is_kept_unless_asked(make: Callable[..., Any], tmp_path: Path) -> None:
    data, run = make(), Run(tmp_path / "run", config(epochs=1))
    carry_out(run, data)
    before = run.trainer_state.read_bytes()
    with pytest.raises(UsageError, match="already holds a run"):
        train_and_sample(run, data, Events([], []))
    assert run.trainer_state.read_bytes() == before
    assert carry_out(run, data, resume=True)[1:] == [("samples", ["samples.svg", "samples.png"]), ("finished", 1)]
    assert ("epoch", 1) in carry_out(run, data, overwrite=True)


def test_samples_are_those_of_the_best_weights(make: Callable[..., Any], tmp_path: Path) -> None:
    run = Run(tmp_path / "run", config())
    carry_out(run, make())
    drawn = (run.path / "samples.svg").read_bytes()
    draw_samples(run, SequenceModel.load(run.best), run.config)
    assert (run.path / "samples.svg").read_bytes() == drawn


def test_a_run_that_writes_draws_texts_of_validation(
    make: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run", config())
    run.config["encoder"] = {"name": "window-lstm", "hidden_size": 8, "layers": 1}
    run.config["sampling"]["count"] = 5
    asked: list[Any] = []
    sample = SequenceModel.sample

    def listened(model: SequenceModel, *given: Any, **named: Any) -> Any:
        asked.append(named["text"])
        return sample(model, *given, **named)

    monkeypatch.setattr(SequenceModel, "sample", listened)
    data = make(texts=("a b", "bad cab", "d"))
    assert ("samples", ["samples.svg", "samples.png"]) in carry_out(run, data)
    assert asked == [["a b", "bad cab", "d", "a b", "a b"]]
    assert "bad cab" in (run.path / "samples.svg").read_text()
    run.config["sampling"]["text"] = "dab"
    carry_out(run, data, resume=True)
    assert asked[1:] == [["dab"] * 5]
    assert texts_to_draw(SequenceModel.load(run.path), make(texts=["b"], train=3), config()) == ["b", "b"]


@pytest.mark.parametrize(
    ("encoder", "text", "named"),
    [("window-lstm", "zab", "character 'z' cannot be written"), ("stacked-lstm", "ab", "stacked-lstm takes no text")],
)
def test_a_text_that_cannot_be_drawn_is_told_before_the_training(
    make: Callable[..., Any], tmp_path: Path, encoder: str, text: str, named: str
) -> None:
    run = Run(tmp_path / "run", config())
    run.config["encoder"]["name"] = encoder
    run.config["sampling"]["text"] = text
    with pytest.raises(UsageError, match=named):
        train_and_sample(run, make(), Events([], []))
    assert not run.path.exists()


def test_a_caption_says_where_samples_come_from(make: Callable[..., Any], small: Callable[..., Any]) -> None:
    model = small(make())
    assert caption(model, 0.5) == "seqdens samples, learnt from made (synthetic), bias 0.5"
    assert caption(model, 0.5, "hi").endswith("bias 0.5: “hi”")
    model.origin = {}
    assert caption(model, 0.0) == "seqdens samples, learnt from unknown data, bias 0"


def test_a_part_of_a_configuration_is_a_component() -> None:
    found = component("dataset", {"name": "hershey", "root": "somewhere", "lines": 7})
    assert (found.name, found.options) == ("hershey", {"lines": 7})
    assert found == components.dataset("hershey", lines=7)


def test_losses_are_plotted(tmp_path: Path) -> None:
    rows = [{"epoch": n, "train_nats_per_point": 1 / n, "valid_nats_per_point": np.nan} for n in (1.0, 2.0)]
    plot_history(tmp_path / "loss.png", rows)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    plot_history(tmp_path / "none.png", [])
    assert not (tmp_path / "none.png").exists()
