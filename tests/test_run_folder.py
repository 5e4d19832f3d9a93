"""A run's folder: configuration, metrics, and what may stand in its way."""

from pathlib import Path

import pytest

from seqdens.errors import DataError, UsageError
from seqdens.training.run_folder import FILES, Run, read_config, without_none

CONFIG = {
    "experiment": "hän\ndwriting",
    "dataset": {"name": "a", "root": "/ü ö", "channels": ["x", "y"], "lists": None},
    "training": {"rate": 1e-4, "epochs": 3},
}


def test_a_configuration_reads_back_without_what_is_none(tmp_path: Path) -> None:
    run = Run(tmp_path / "some" / "where", CONFIG)
    assert not run.exists
    run.start()
    assert run.exists
    assert read_config(run.config_file) == without_none(CONFIG)
    assert "lists" not in read_config(run.config_file)["dataset"]


def test_metrics_read_back_exactly(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.read_metrics() == []
    rows = [{"epoch": 1.0, "loss": 1 / 3}, {"epoch": 2.0, "loss": -1e-17}]
    run.write_metrics(rows)
    assert run.read_metrics() == rows
    assert run.metrics.read_text().splitlines()[0] == "epoch,loss"


@pytest.mark.parametrize("name", FILES)
def test_a_folder_with_any_part_of_a_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(UsageError, match=rf"already holds a run \({name}\); use --resume .* or --overwrite"):
        Run(tmp_path).start()
    assert (tmp_path / name).read_text() == "precious"


def test_overwriting_leaves_nothing_of_the_run_before_and_all_else(tmp_path: Path) -> None:
    for name in (*FILES, "notes.txt"):
        (tmp_path / name).write_text("old")
    Run(tmp_path, CONFIG).start(overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"config.toml", "notes.txt"}
    assert read_config(tmp_path / "config.toml")["experiment"] == CONFIG["experiment"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_the_way_is_refused(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError, match="out is a file; name a folder for the run"):
        Run(tmp_path / "out").start(overwrite=overwrite)
    assert (tmp_path / "out").read_text() == "a file"


def test_other_files_are_in_nobody_s_way(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    Run(tmp_path, CONFIG).start()
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("content", [b"no = = toml", b"\xff\xfe\x00"])
def test_a_configuration_that_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"config\.toml is no TOML file"):
        read_config(path)


def test_a_missing_configuration_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no configuration file"):
        read_config(tmp_path / "config.toml")
    with pytest.raises(DataError, match="is no TOML file"):
        read_config(tmp_path)
