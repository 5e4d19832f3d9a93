"""A run's folder: configuration, metrics, and what may stand in its way."""

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqdens.errors import DataError, UsageError
from seqdens.files import LOCK, PARTIAL
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
    way = "--resume to continue it, or --overwrite" if name == "config.toml" else "--overwrite, or another folder"
    with pytest.raises(UsageError, match=rf"already holds a run \({name}\); use {way}\.$"):
        Run(tmp_path).start()
    assert (tmp_path / name).read_text() == "precious"


def test_weights_without_a_state_are_not_trained_anew(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.check_resumable()
    run.best.write_text("precious")
    with pytest.raises(
        DataError, match=r"holds best\.safetensors, which can be used, but no trainer\.pt to go on from; .*--overwrite"
    ):
        run.check_resumable()
    with pytest.raises(DataError, match="no trainer"), run.opened(resume=True):
        pass
    assert run.best.read_text() == "precious"
    run.trainer_state.touch()
    run.check_resumable()


def test_an_opened_folder_is_begun_or_goes_on(tmp_path: Path) -> None:
    run = Run(tmp_path / "new" / "run", CONFIG)
    with run.opened():
        assert run.exists
    run.metrics.write_text("precious")
    with run.opened(resume=True):
        assert run.metrics.read_text() == "precious"
    with pytest.raises(UsageError, match="already holds a run"), run.opened():
        pass
    with run.opened(overwrite=True):
        assert not run.metrics.exists()
    assert [path.name for path in run.path.iterdir()] == ["config.toml"]


def test_a_run_killed_in_its_first_epoch_begins_again_by_the_options_that_are_given_now(tmp_path: Path) -> None:
    with Run(tmp_path, CONFIG).opened():
        pass
    with Run(tmp_path, CONFIG | {"experiment": "other"}).opened(resume=True):
        assert read_config(tmp_path / "config.toml")["experiment"] == "other"
    (tmp_path / "trainer.pt").touch()
    with Run(tmp_path, CONFIG).opened(resume=True):  # what is trained may not fit these
        assert read_config(tmp_path / "config.toml")["experiment"] == "other"


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_is_opened_once_at_a_time(tmp_path: Path, how: dict[str, bool]) -> None:
    first, second = Run(tmp_path / "run", CONFIG), Run(tmp_path / "run", {"experiment": "other"})
    with first.opened():
        first.metrics.write_text("precious")
        with pytest.raises(UsageError, match=r"run: another run is using it; wait .*--out"), second.opened(**how):
            pass
        assert first.metrics.read_text() == "precious"
        assert read_config(first.config_file)["experiment"] == CONFIG["experiment"]
    with second.opened(overwrite=True):
        assert read_config(first.config_file)["experiment"] == "other"


def test_a_failure_sets_the_folder_free(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", CONFIG)
    with pytest.raises(KeyboardInterrupt), run.opened():
        raise KeyboardInterrupt
    with run.opened(resume=True):
        pass
    assert not (run.path / LOCK).exists()


def test_what_a_killed_run_left_is_deleted(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    (tmp_path / f".best.safetensors.x{PARTIAL}").mkdir()
    with Run(tmp_path).opened(resume=True):
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def vanish(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def be_replaced(folder: Path) -> None:
    vanish(folder)
    folder.mkdir()
    (folder / LOCK).touch()


@pytest.mark.parametrize("happen", [vanish, be_replaced])
def test_a_folder_that_is_no_longer_the_run_s_is_told_and_left_alone(
    tmp_path: Path, happen: Callable[[Path], None]
) -> None:
    run = Run(tmp_path / "run", CONFIG)
    with run.opened():
        run.check_held()
        happen(run.path)
        with pytest.raises(DataError, match=r"run was deleted, moved or replaced while .*--resume, or start again"):
            run.check_held()
    assert run.path.exists() == (run.path / LOCK).exists() == (happen is be_replaced)
    run.check_held()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has its own locks")
def test_a_file_system_without_locks_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with Run(tmp_path).opened(), Run(tmp_path).opened(resume=True):
        pass


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
