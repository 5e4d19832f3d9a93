"""Which data a trained model is looked at with."""

from pathlib import Path
from typing import Any

import pytest

from seqdens.cli.run_data import data_for, dataset_part, from_elsewhere
from seqdens.errors import DataError, UsageError
from seqdens.training.run_folder import Run

PART = {"name": "hershey", "lines": 6, "writers": 3}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder that holds a configuration and nothing else."""
    run = Run(tmp_path / "run", {"dataset": PART})
    run.start()
    return run.path


def test_the_data_are_those_of_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = data_for(run)
    assert (data.provenance.dataset, len(data)) == ("hershey", 6)
    said = capsys.readouterr()
    assert said.out == ""
    assert "hershey (synthetic): 6 lines" in said.err


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, PART),
        ({"dataset": "hershey"}, {"name": "hershey"}),
        ({"settings": ("lines=7",)}, PART | {"lines": 7}),
        ({"data": Path("there")}, PART | {"root": Path("there")}),
        ({"settings": ("root=here",)}, PART | {"root": Path("here")}),
        ({"settings": ("root=here",), "data": Path("there")}, PART | {"root": Path("there")}),
        ({"dataset": "svc", "data": Path("there")}, {"name": "svc", "root": Path("there")}),
        ({"dataset": "svc", "settings": ("dataset.signatures=genuine",)}, {"name": "svc", "signatures": "genuine"}),
    ],
)
def test_what_is_given_wins(run: Path, given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert dataset_part(run, **given) == dataset_part(run / "last.safetensors", **given) == expected


def test_a_name_is_enough_for_weights_alone(tmp_path: Path) -> None:
    assert dataset_part(tmp_path / "alone.safetensors", dataset="hershey") == {"name": "hershey"}


def test_weights_alone_need_a_name(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no .*config\.toml that names the data of .*alone\.safetensors; give --dataset"
    ):
        data_for(tmp_path / "alone.safetensors")


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"dataset": "hersey"}, UsageError, "did you mean 'hershey'"),
        ({"dataset": "svc"}, UsageError, "--data DIR"),
        ({"settings": ("line=7",)}, UsageError, "has no option 'line'; did you mean 'lines'"),
        ({"settings": ("lines",)}, UsageError, "setting 'lines' must read OPTION=VALUE"),
        ({"settings": ("name=svc",)}, UsageError, "the data set's name is"),
    ],
)
def test_what_cannot_be_is_said(run: Path, given: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        data_for(run, **given)


def test_a_damaged_configuration_is_named(run: Path) -> None:
    (run / "config.toml").write_text("[dataset")
    with pytest.raises(DataError, match=r"config\.toml is no TOML file"):
        data_for(run)


@pytest.mark.parametrize(
    ("learnt", "root", "expected"),
    [
        ({"root": "/here/old.csv"}, Path("/here/old.csv"), False),
        ({"root": "/here/old.csv"}, Path("/here/there/../old.csv"), False),
        ({"root": "/here/old.csv"}, "/here/new.csv", True),
        ({"root": "/here/old.csv"}, None, False),
        ({}, Path("/here/new.csv"), True),
    ],
)
def test_other_files_than_those_learnt_from_are_known(
    tmp_path: Path, learnt: dict[str, Any], root: Any, expected: bool
) -> None:
    run = Run(tmp_path / "run", {"dataset": {"name": "table"} | learnt})
    run.start()
    part = {"name": "table"} | ({"root": root} if root else {})
    assert from_elsewhere(run.path, part) == from_elsewhere(run.best, part) == expected
    assert not from_elsewhere(tmp_path / "alone.safetensors", part)
