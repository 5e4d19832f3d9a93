"""Where the options of an experiment come from."""

from pathlib import Path
from typing import Any, Literal

import pytest
import tomli_w

import seqdens
from seqdens import components
from seqdens.components import experiment
from seqdens.configuration import PARTS, parse_setting, resolve
from seqdens.datasets.base import Dataset
from seqdens.encoders.base import Encoder
from seqdens.errors import UsageError
from seqdens.experiments.base import Experiment
from seqdens.training.run_folder import read_config


class Walks(Dataset):
    def __init__(
        self, root: Path | None = None, *, lists: Path | None = None, channels: tuple[str, ...] = (), lines: int = 1
    ) -> None: ...


class Wide(Encoder):
    def __init__(self, input_size: int, context_size: int = 0, *, width: int = 3, mode: Literal["a"] = "a") -> None: ...


@pytest.fixture(autouse=True)
def _components(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "_registered", [])
    seqdens.register("datasets", "walks", Walks)
    seqdens.register("encoders", "wide", Wide)


TRIAL = Experiment(
    summary="For tests.",
    dataset={"name": "hershey", "lines": 10},
    encoder={"name": "stacked-lstm", "layers": 2},
    head={"name": "gmm-bernoulli"},
    training={"epochs": 5, "seed": 4},
    presets={
        "tiny": {"encoder": {"hidden_size": 8}, "training": {"epochs": 6}},
        "large": {"encoder": {"hidden_size": 80}, "dataset": {"lines": 20}},
        "elsewhere": {"encoder": {"hidden_size": 40}},
    },
    preset="elsewhere",
    own_preset="tiny",
)


def test_every_option_of_every_part_has_a_value() -> None:
    found = resolve(TRIAL, preset="large")
    assert list(found) == ["preset", *PARTS]
    assert found["encoder"] == {
        "name": "stacked-lstm",
        "hidden_size": 80,
        "layers": 2,
        "gate_clip": 10.0,
        "recurrence": "auto",
    }
    assert found["dataset"] == {
        "name": "hershey",
        "lines": 20,
        "writers": 200,
        "characters": 32,
        "shortest": 0,
        "scrambled": 0.0,
        "variation": 1.0,
        "printed": False,
        "seed": 0,
    }
    assert found["training"]["optimiser"] == "graves-rmsprop"
    assert found["sampling"] == {"count": 8, "steps": 700, "bias": 0.0, "text": ""}


def test_later_layers_win() -> None:
    config = {"encoder": {"hidden_size": 11}, "training": {"epochs": 7, "patience": 2}}

    def value(part: str, option: str, **layers: Any) -> Any:
        return resolve(TRIAL, **layers)[part][option]

    assert value("training", "batch_size") == 32  # default
    assert value("training", "seed") == 4  # experiment over default
    assert value("training", "epochs") == 6  # preset over experiment
    assert value("training", "epochs", config=config) == 7  # file over preset
    assert value("training", "epochs", config=config, settings=[("training", "epochs", 8)]) == 8
    assert value("training", "epochs", settings=[("training", "epochs", n) for n in (8, 9)]) == 9
    assert value("training", "patience", config=config, preset="large") == 2
    assert value("encoder", "hidden_size", config=config) == 11
    assert value("encoder", "layers", config=config) == 2


def test_a_chosen_component_has_its_own_defaults_under_settings() -> None:
    config = {"encoder": {"hidden_size": 11}}
    found = resolve(TRIAL, config=config, chosen={"encoder": "wide"})
    assert found["encoder"] == {"name": "wide", "width": 3, "mode": "a"}
    found = resolve(TRIAL, config=config, chosen={"encoder": "wide"}, settings=[("encoder", "width", 9)])
    assert found["encoder"] == {"name": "wide", "width": 9, "mode": "a"}
    found = resolve(TRIAL, config={"encoder": {"name": "wide", "width": 5}}, chosen={"encoder": "stacked-lstm"})
    assert found["encoder"] == {
        "name": "stacked-lstm",
        "hidden_size": 400,
        "layers": 3,
        "gate_clip": 10.0,
        "recurrence": "auto",
    }
    found = resolve(TRIAL, settings=[("encoder", "name", "wide"), ("encoder", "width", 4)])
    assert found["encoder"] == {"name": "wide", "width": 4, "mode": "a"}


@pytest.mark.parametrize(
    ("layers", "preset"),
    [
        ({}, "tiny"),
        ({"chosen": {"dataset": "hershey"}}, "tiny"),
        ({"chosen": {"dataset": "walks"}}, "elsewhere"),
        ({"config": {"dataset": {"name": "walks"}}}, "elsewhere"),
        ({"settings": [("dataset", "name", "walks")]}, "elsewhere"),
        ({"config": {"preset": "large"}, "chosen": {"dataset": "walks"}}, "large"),
        ({"config": {"preset": "large"}, "preset": "tiny"}, "tiny"),
    ],
)
def test_the_preset_follows_the_data_set_unless_it_is_named(layers: dict[str, Any], preset: str) -> None:
    assert resolve(TRIAL, **layers)["preset"] == preset


def test_an_experiment_needs_no_presets() -> None:
    plain = Experiment(
        summary="", dataset={"name": "hershey"}, encoder={"name": "wide"}, head={"name": "gmm-bernoulli"}
    )
    assert list(resolve(plain)) == list(PARTS)


def test_a_written_configuration_is_the_same_one(tmp_path: Path) -> None:
    first = resolve(
        TRIAL,
        chosen={"dataset": "walks", "encoder": "wide"},
        settings=[
            ("dataset", "root", tmp_path),
            ("dataset", "lists", str(tmp_path / "lists")),
            ("dataset", "channels", ["a", "b"]),
            ("training", "learning_rate", 1),
        ],
    )
    (tmp_path / "config.toml").write_text(tomli_w.dumps({"experiment": "trial"} | first))
    again = resolve(TRIAL, config=read_config(tmp_path / "config.toml"))
    assert tomli_w.dumps(again) == tomli_w.dumps(first)
    assert again["dataset"]["root"] == str(tmp_path)
    assert again["dataset"]["lists"] == str(tmp_path / "lists")
    assert again["training"]["learning_rate"] == 1.0


def test_the_root_is_found_again_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = resolve(TRIAL, chosen={"dataset": "walks"}, settings=[("dataset", "root", "data")])
    assert found["dataset"] == {
        "name": "walks",
        "root": str(tmp_path / "data"),
        "lists": None,
        "channels": (),
        "lines": 1,
    }


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"preset": "huge"}, "no preset is named 'huge'; known: elsewhere, large, tiny"),
        ({"config": {"preset": 3}}, "no preset is named '3'"),
        ({"config": {"trainin": {"epochs": 1}}}, "no part is named 'trainin'; did you mean 'training'"),
        ({"config": {"epochs": 1}}, "no part is named 'epochs'; known: dataset, encoder, head, sampling, training"),
        ({"config": {"training": 3}}, "part 'training' is 3, but must be a table of options"),
        ({"config": {"training": {"epoch": 1}}}, "part 'training' has no option 'epoch'; did you mean 'epochs'"),
        ({"config": {"training": {"epochs": "many"}}}, "option 'epochs' of part 'training' is 'many'.*int >= 1"),
        ({"config": {"training": {"epochs": 0}}}, "option 'epochs' of part 'training' is 0"),
        ({"config": {"encoder": {"width": 1}}}, "'stacked-lstm' has no option 'width'; known: gate_clip"),
        ({"config": {"encoder": {"name": "wide", "mode": "b"}}}, "option 'mode' of 'wide' is 'b', but must be \"a\""),
        ({"config": {"encoder": {"root": "x"}}}, "'stacked-lstm' has no option 'root'"),
        ({"config": {"encoder": {"name": 3}}}, "there is no '3' among the encoders"),
        ({"config": {"encoder": {"name": ["wide"]}}}, "among the encoders"),
        ({"chosen": {"dataset": "hershy"}}, "there is no 'hershy' among the datasets; did you mean 'hershey'"),
        ({"settings": [("model", "epochs", 1)]}, "no part is named 'model'"),
        ({"settings": [("sampling", "count", 0)]}, "option 'count' of part 'sampling' is 0"),
        ({"settings": [("sampling", "bias", float("inf"))]}, "option 'bias' of part 'sampling' is inf"),
        ({"settings": [("sampling", "bias", float("nan"))]}, "option 'bias' of part 'sampling' is nan"),
        ({"settings": [("training", "seed", 2**63)]}, "option 'seed' of part 'training'"),
    ],
)
def test_what_is_unknown_is_refused_with_what_is_known(layers: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(TRIAL, **layers)


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("training.epochs=3", ("training", "epochs", 3)),
        ("training.decay = 0.5", ("training", "decay", 0.5)),
        ("training.optimiser=adam", ("training", "optimiser", "adam")),
        ('training.optimiser="a=b"', ("training", "optimiser", "a=b")),
        ("dataset.root=/a=b.c", ("dataset", "root", "/a=b.c")),
        ("dataset.channels=['a', 'b']", ("dataset", "channels", ["a", "b"])),
        ("dataset.flag=true", ("dataset", "flag", True)),
        ("dataset.lists=", ("dataset", "lists", "")),
    ],
)
def test_a_setting_is_a_part_an_option_and_a_value(text: str, setting: tuple[str, str, Any]) -> None:
    assert parse_setting(text) == setting


@pytest.mark.parametrize("text", ["", "training.epochs", "epochs=3", "training.=3", "=3"])
def test_a_setting_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"must read part\.option=value, with a part of dataset, encoder, head"):
        parse_setting(text)


def test_handwriting_is_quick_on_its_own_data_and_the_paper_s_elsewhere(tmp_path: Path) -> None:
    handwriting = experiment("handwriting")
    assert resolve(handwriting)["preset"] == "quick"
    paper = resolve(handwriting, chosen={"dataset": "iamondb"}, settings=[("dataset", "root", tmp_path)])
    assert paper["preset"] == "paper"
    assert paper["encoder"] == {
        "name": "stacked-lstm",
        "hidden_size": 400,
        "layers": 3,
        "gate_clip": 10.0,
        "recurrence": "auto",
    }
    assert paper["head"] == {"name": "gmm-bernoulli", "components": 20, "output_clip": 100.0, "sigma_floor": 0.0}
    assert (paper["training"]["optimiser"], paper["training"]["learning_rate"]) == ("graves-rmsprop", 1e-4)
    assert paper["sampling"]["steps"] == 700
    for preset in handwriting.presets:
        assert resolve(handwriting, preset=preset)["preset"] == preset
