"""`seqdens run`: one command from data to pictures, and a sentence for all that can go wrong."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

import seqdens
from seqdens import components, distributed
from seqdens.cli import cli
from seqdens.cli.run import started_as
from seqdens.datasets.base import Column, Dataset, Record, Source
from seqdens.model import SequenceModel
from seqdens.training import trainer
from seqdens.training.run_folder import FILES, read_config

LITTLE = (
    "dataset.lines=6",
    "dataset.writers=3",
    "encoder.hidden_size=8",
    "head.components=2",
    "training.batch_size=4",
    "sampling.count=2",
    "sampling.steps=10",
)
ANY_FILES = {name for name in FILES if name != "skipped.csv" and "samples" not in name}
INK_FILES = ANY_FILES | {"samples.svg", "samples.png"}


def call(*args: Any) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args], prog_name="seqdens")


def run(*args: Any, settings: tuple[str, ...] = LITTLE) -> Result:
    return call("run", "handwriting", *(f"--set={setting}" for setting in settings), *args)


def assert_refused(result: Result, status: int, *said: str) -> None:
    """One sentence, no traceback."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == status, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error:")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.output
    for each in said:
        assert each in lines[0]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(components, "_registered", [])
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def epochs_of(folder: Path) -> list[int]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [int(float(row["epoch"])) for row in csv.DictReader(file)]


def test_one_command_leaves_a_run_folder(here: Path) -> None:
    done = run("--epochs", 2, "--seed", 5, "--device", "cpu", "--out", "my run")
    assert done.exit_code == 0, done.output
    folder = here / "my run"
    assert {path.name for path in folder.iterdir()} == INK_FILES
    config = read_config(folder / "config.toml")
    assert (config["experiment"], config["preset"]) == ("handwriting", "quick")
    assert config["dataset"]["lines"] == 6
    assert {name: config["training"][name] for name in ("epochs", "seed", "device", "batch_size")} == {
        "epochs": 2,
        "seed": 5,
        "device": "cpu",
        "batch_size": 4,
    }
    assert epochs_of(folder) == [1, 2]
    for weights in ("best", "last"):
        assert SequenceModel.load(folder / f"{weights}.safetensors").origin["dataset"] == "hershey"
    assert done.output.startswith("hershey (synthetic): 6 lines (2 train, 2 valid, 2 test)")
    assert "epoch 2: train " in done.output
    assert "Next: open 'my run/samples.png'" in done.output
    assert "seqdens sample 'my run' -n 4" in done.output


def test_new_runs_get_new_folders_and_resume_takes_the_last(here: Path) -> None:
    for number in (1, 2):
        assert run("--epochs", 1).exit_code == 0
        assert epochs_of(here / "runs" / f"handwriting-{number}") == [1]
    assert run("--resume", "--epochs", 2, settings=()).exit_code == 0
    assert epochs_of(here / "runs" / "handwriting-1") == [1]
    assert epochs_of(here / "runs" / "handwriting-2") == [1, 2]


def test_a_run_s_configuration_repeats_it_exactly(here: Path) -> None:
    run("--epochs", 1, "--seed", 7, "--out", "first")
    again = call("run", "handwriting", "--config", "first/config.toml", "--out", "second")
    assert again.exit_code == 0, again.output
    for name in ("config.toml", "best.safetensors", "samples.svg"):
        assert (here / "first" / name).read_bytes() == (here / "second" / name).read_bytes()


def test_a_folder_with_a_run_is_refused_unless_it_is_meant(here: Path) -> None:
    assert run("--epochs", 1, "--out", "out").exit_code == 0
    before = contents(here / "out")
    assert_refused(run("--out", "out"), 2, "out already holds a run", "--resume", "--overwrite")
    assert contents(here / "out") == before
    assert_refused(run("--out", "out", "--resume", "--overwrite"), 2, "exclude each other")
    assert run("--out", "out", "--overwrite", "--epochs", 1, "--seed", 8).exit_code == 0
    assert read_config(here / "out" / "config.toml")["training"]["seed"] == 8
    assert epochs_of(here / "out") == [1]


def test_resuming_where_there_is_no_folder_is_refused(here: Path) -> None:
    assert_refused(
        run("--resume"), 2, "there is no run at runs/handwriting-1 to resume; known: none. Leave out --resume"
    )
    assert run("--epochs", 1, "--out", "apple").exit_code == 0
    assert_refused(run("--resume", "--out", "aple"), 2, "no run at aple to resume; did you mean 'apple'? known: apple.")
    assert [path.name for path in here.iterdir() if path.name != "cache"] == ["apple"]


def test_a_restartable_run_begins_and_goes_on_by_the_same_command(here: Path) -> None:
    command = ("--out", "out", "--restartable", "--epochs", 2)
    done = run(*command)
    assert (done.exit_code, epochs_of(here / "out")) == (0, [1, 2])
    again = run(*command)
    assert (again.exit_code, "is trained for all its 2 epochs" in again.output) == (0, True)
    assert run("--out", "out", "--restartable", "--epochs", 3).exit_code == 0
    assert epochs_of(here / "out") == [1, 2, 3]
    assert_refused(run("--restartable"), 2, "name its folder with --out")
    assert_refused(run("--out", "out", "--restartable", "--overwrite"), 2, "exclude each other")


def test_what_else_is_in_the_folder_is_told(here: Path) -> None:
    (here / "out" / "events").mkdir(parents=True)
    (here / "out" / "notes.txt").write_text("mine")
    done = run("--epochs", 1, "--out", "out")
    assert "loss.png, events/, notes.txt\n" in done.output


def test_without_training_records_there_is_no_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seqdens.register("datasets", "no-training", type("Held", (Prices,), {"read": held_out}))
    refused = run("--dataset", "no-training", "--out", "out", settings=LITTLE[2:])
    assert_refused(refused, 1, "no-training has no training records among 6.")
    assert not (here / "out").exists()


def held_out(self: Any, source: Source) -> Any:
    for record in Prices.read(self, source):
        yield replace(record, split="test")


def test_an_empty_folder_is_no_run_to_resume(here: Path) -> None:
    (here / "out").mkdir()  # such as that of a disk that is not there
    refused = run("--out", "out", "--resume", "--epochs", 1)
    assert_refused(refused, 2, "there is no run at out to resume", "Leave out --resume to start.")
    assert not contents(here / "out")
    assert run("--out", "out", "--restartable", "--epochs", 1).exit_code == 0
    assert {path.name for path in (here / "out").iterdir()} == INK_FILES


def test_a_run_of_which_a_part_is_missing(here: Path) -> None:
    run("--out", "out", "--epochs", 1)
    (here / "out" / "config.toml").rename(here / "config.toml")
    for how in ("--resume", "--restartable"):
        refused = call("run", "handwriting", "--out", "out", how)
        assert_refused(refused, 2, "out has no config.toml to go on by; put back that of the run.")
    (here / "out" / "config.toml").touch()
    refused = call("run", "handwriting", "--out", "out", "--resume")
    assert_refused(refused, 2, "out/config.toml is empty; put back what it held.")
    (here / "config.toml").rename(here / "out" / "config.toml")
    (here / "out" / "trainer.pt").unlink()
    before = contents(here / "out")
    refused = call("run", "handwriting", "--out", "out", "--resume")
    assert_refused(
        refused,
        1,
        "out holds best.safetensors and last.safetensors, which can be used, but no trainer.pt",
        "--overwrite",
    )
    assert contents(here / "out") == before
    for name in ("best", "last"):
        (here / "out" / f"{name}.safetensors").unlink()
    again = call("run", "handwriting", "--out", "out", "--resume")
    assert "There is nothing saved at out to resume; it starts anew." in again.output
    assert again.exit_code == 0


def test_best_weights_that_are_broken_may_be_deleted(here: Path) -> None:
    run("--out", "out", "--epochs", 1)
    (here / "out" / "best.safetensors").write_bytes(b"broken")
    refused = call("run", "handwriting", "--out", "out", "--resume", "--epochs", 2)
    assert_refused(refused, 1, "best.safetensors is no seqdens model", "delete it, and the run goes on")
    (here / "out" / "best.safetensors").unlink()
    assert call("run", "handwriting", "--out", "out", "--resume", "--epochs", 2).exit_code == 0


def test_resuming_keeps_the_run_s_own_configuration(here: Path) -> None:
    run("--epochs", 1, "--out", "out")
    resumed = call("run", "handwriting", "--resume", "--out", "out", "--epochs", 3, "--preset", "paper")
    assert resumed.exit_code == 0, resumed.output
    assert "Note: --config and --preset are not used" in resumed.output
    assert "nothing saved" not in resumed.output
    config = read_config(here / "out" / "config.toml")
    assert (config["preset"], config["training"]["epochs"], config["encoder"]["hidden_size"]) == ("quick", 3, 8)
    assert epochs_of(here / "out") == [1, 2, 3]


def test_resuming_a_finished_run_says_so(here: Path) -> None:
    run("--epochs", 1, "--out", "out")
    (here / "out" / "samples.svg").unlink()
    resumed = run("--epochs", 1, "--out", "out", "--resume")
    assert "Note: out is trained for all its 1 epochs; only its samples are drawn again." in resumed.output
    assert (here / "out" / "samples.svg").exists()


def test_a_preset_beside_a_configuration_file_is_refused(here: Path) -> None:
    run("--epochs", 1, "--out", "out")
    refused = call("run", "handwriting", "--config", "out/config.toml", "--preset", "paper")
    assert_refused(refused, 2, "--preset paper and --config out/config.toml exclude each other")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("--set", "encoder.hidden_size=9"), "another setting (encoder"),
        (("--set", "training.optimiser=sgd"), "another setting (optimiser"),
        (("--set", "dataset.lines=9"), "number of training records"),
        (("--set", "dataset.seed=9"), "scaling of the data ["),
        (("--seed", "9"), "another setting (seed"),
    ],
)
def test_a_run_that_does_not_fit_is_not_resumed_and_stays_as_it_was(
    here: Path, change: tuple[str, ...], said: str
) -> None:
    run("--epochs", 1, "--out", "out")
    before = contents(here / "out")
    refused = call("run", "handwriting", "--resume", "--out", "out", "--epochs", 2, *change)
    assert_refused(refused, 2, said, "--overwrite")
    assert "Training to epoch" not in refused.output
    assert contents(here / "out") == before


@pytest.mark.usefixtures("_heed_interrupts")
def test_ctrl_c_says_how_to_go_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = trainer._Fit._step

    def interrupted(self: Any, batch: Any) -> None:
        step(self, batch)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(trainer._Fit, "_step", interrupted)
    stopped = run("--epochs", 2, "--out", "out")
    assert stopped.exit_code == 130
    assert "goes on with: seqdens run handwriting --resume --out out" in stopped.stderr
    assert "Traceback" not in stopped.output
    monkeypatch.setattr(trainer._Fit, "_step", step)
    assert call("run", "handwriting", "--resume", "--out", "out").exit_code == 0
    assert run("--epochs", 2, "--out", "straight").exit_code == 0
    for name in ("best.safetensors", "last.safetensors", "config.toml", "samples.svg"):
        assert (here / "out" / name).read_bytes() == (here / "straight" / name).read_bytes()


def test_a_process_that_is_interrupted_saves_and_resumes(here: Path) -> None:
    start = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from seqdens.cli import main\n"
        "main()\n"
    )
    arguments = ["run", "handwriting", "--out", "out", "--epochs", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-c", start, *arguments, *(f"--set={setting}" for setting in LITTLE)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    try:
        deadline = time.monotonic() + 120
        while not (here / "out" / "trainer.pt").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, (output, errors)
    assert "Stopped; what is saved goes on with: seqdens run handwriting --resume --out out" in errors
    assert "Traceback" not in errors
    done = len(epochs_of(here / "out"))
    assert torch.load(here / "out" / "trainer.pt", weights_only=True)["progress"]["epoch"] == done
    resumed = call("run", "handwriting", "--resume", "--out", "out", "--epochs", done + 1)
    assert resumed.exit_code == 0, resumed.output
    assert epochs_of(here / "out") == list(range(1, done + 2))


@pytest.mark.parametrize(
    ("ranks", "here", "command"),
    [
        (1, 1, "seqdens"),
        (2, 2, "torchrun --nproc-per-node 2 -m seqdens"),
        (4, 2, "torchrun ... -m seqdens"),
    ],
)
def test_how_to_go_on_names_the_command_that_it_was(
    monkeypatch: pytest.MonkeyPatch, ranks: int, here: int, command: str
) -> None:
    monkeypatch.setattr(distributed, "size", lambda: ranks)
    monkeypatch.setattr(distributed, "local_size", lambda: here)
    assert started_as() == command


class Prices(Dataset):
    """A data set without ink."""

    columns = (Column("price", "real"), Column("sold", "binary"))

    def __init__(self, root: Path | None = None, *, days: int = 5) -> None:
        self.days = days

    def sources(self) -> list[Source]:
        return [Source("all")]

    def read(self, source: Source) -> Any:
        import numpy as np

        rng = np.random.default_rng(0)
        for number in range(6):
            points = np.stack([rng.normal(size=self.days), rng.random(self.days) < 0.5], axis=1)
            yield Record(f"p{number}", points, "train" if number else "valid")


def test_data_without_ink_are_sampled_as_numbers(here: Path) -> None:
    seqdens.register("datasets", "prices", Prices)
    done = run("--dataset", "prices", "--epochs", 1, "--preset", "quick", "--out", "out", settings=LITTLE[2:])
    assert done.exit_code == 0, done.output
    assert {path.name for path in (here / "out").iterdir()} == ANY_FILES | {"samples.csv"}
    assert "Next: open out/samples.csv" in done.output
    assert "--out more.csv" in done.output


def test_an_experiment_that_is_none_is_named(here: Path) -> None:
    seqdens.register("experiments", "broken", 3)
    assert_refused(
        call("run", "broken"),
        1,
        "'broken' of experiments (registered in code by builtins) is 3, but must be an Experiment",
    )


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["run", "handwritng"], 2, ["'handwritng'", "did you mean 'handwriting'"]),
        (["run", "handwritng", "--resume"], 2, ["'handwritng'"]),
        (["run", "handwriting", "--dataset", "mnist"], 2, ["'mnist'", "hershey, iamondb, svc"]),
        (["run", "handwriting", "--encoder", "gru"], 2, ["'gru'", "stacked-lstm"]),
        (["run", "handwriting", "--head", "softmax"], 2, ["'softmax'", "gmm-bernoulli"]),
        (["run", "handwriting", "--preset", "fast"], 2, ["'fast'", "paper, quick"]),
        (["run", "handwriting", "--set", "training.epoch=3"], 2, ["'epoch'", "did you mean 'epochs'"]),
        (["run", "handwriting", "--set", "epochs=3"], 2, ["'epochs=3'", "part.option=value"]),
        (["run", "handwriting", "--set", "training.epochs=soon"], 2, ["'epochs'", "'soon'", "int >= 1"]),
        (["run", "handwriting", "--set", "training.optimiser=addam"], 2, ["'addam'", "'adam'"]),
        (["run", "handwriting", "--set", "encoder.hidden_size=0"], 2, ["hidden_size", "at least 1"]),
        (["run", "handwriting", "--device", "tpu"], 2, ["'tpu'", "auto, "]),
        (["run", "handwriting", "--epochs", "0"], 2, ["--epochs", "0 is not in the range x>=1"]),
        (["run", "handwriting", "--epochs", "x"], 2, ["--epochs", "'x' is not a valid integer"]),
        (["run", "handwriting", "--seed", "-1"], 2, ["--seed"]),
        (["run", "handwriting", "--seed", str(2**64)], 2, ["'seed'"]),
        (["run", "handwriting", "--nonsense"], 2, ["--nonsense"]),
        (["run"], 2, ["EXPERIMENT"]),
        (["run", "handwriting", "--config", "none.toml"], 1, ["there is no configuration file none.toml"]),
        (["run", "handwriting", "--config", "broken.toml"], 1, ["broken.toml is no TOML file"]),
        (["run", "handwriting", "--config", "."], 1, ["is no TOML file"]),
        (["run", "handwriting", "--config", "other.toml"], 2, ["of experiment 'other', but 'handwriting'"]),
        (["run", "handwriting", "--config", "unknown.toml"], 2, ["no part is named 'optimizer'"]),
        (["run", "handwriting", "--dataset", "iamondb"], 2, ["--data DIR"]),
        (["run", "handwriting", "--dataset", "iamondb", "--data", "nowhere"], 1, ["nowhere"]),
        (["run", "handwriting", "--dataset", "svc", "--data", "empty"], 1, ["empty"]),
        (["run", "handwriting", "--data", "empty"], 2, ["empty", "takes no data folder"]),
        (["run", "handwriting", "--out", "file"], 2, ["file is a file; name a folder"]),
        (["run", "handwriting", "--out", "file", "--overwrite"], 2, ["file is a file; name a folder"]),
    ],
)
def test_a_silly_argument_is_one_sentence_and_leaves_nothing(
    here: Path, arguments: list[str], status: int, said: list[str]
) -> None:
    (here / "broken.toml").write_text("a = = b")
    (here / "other.toml").write_text('experiment = "other"')
    (here / "unknown.toml").write_text("[optimizer]\nname = 1")
    (here / "empty").mkdir()
    (here / "file").write_text("content")
    before = sorted(here.rglob("*"))
    little = [f"--set={LITTLE[0]}", f"--set={LITTLE[1]}"] if "--dataset" not in arguments else []
    assert_refused(call(*arguments[:2], *(little if len(arguments) > 1 else []), *arguments[2:]), status, *said)
    assert sorted(here.rglob("*")) == before
    assert (here / "file").read_text() == "content"


def test_a_folder_below_a_file_is_one_sentence(here: Path) -> None:
    (here / "file").write_text("content")
    refused = run("--out", "file/out", "--epochs", 1)
    assert refused.exit_code in (1, 2)
    assert_refused(refused, refused.exit_code, "file")


def failing_with(error: OSError) -> Callable[..., Any]:
    def fail(*arguments: Any, **settings: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "out/config.toml"), "Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("something about a disk"), "something about a disk"),
    ],
)
@pytest.mark.parametrize("place", ["mkdir", "write_text", "write_bytes"])
def test_a_place_that_cannot_be_written_is_one_sentence(
    here: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: OSError, said: str
) -> None:
    run("--epochs", 1, "--out", "first")  # the data are prepared
    monkeypatch.setattr(Path, place, failing_with(error))
    refused = run("--epochs", 1, "--out", "out")
    assert refused.exit_code in (1, 2)
    assert_refused(refused, refused.exit_code, said)


def test_an_error_of_the_system_shows_its_traceback_when_asked(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("--epochs", 1, "--out", "first")
    monkeypatch.setattr(Path, "mkdir", failing_with(PermissionError(13, "Permission denied", "out")))
    shown = call("--debug", "run", "handwriting", "--out", "out", *(f"--set={setting}" for setting in LITTLE))
    assert "Traceback" in shown.stderr
    assert "Permission denied" in shown.stderr.splitlines()[-1]
    assert "Traceback" not in run("--out", "out").stderr
