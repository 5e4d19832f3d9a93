"""Several processes: two ranks train as one does on batches of both, and the first alone writes and prints.

The outcomes are those of `fixtures/two_ranks.py`, which runs once, in two processes.
"""

import importlib.util
import os
import pickle
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from seqdens import distributed
from seqdens.cache import Prepared, Provenance, write
from seqdens.cli import cli
from seqdens.datasets.base import STROKE_END, Record, X, Y
from seqdens.errors import SeqdensError
from seqdens.training.run_folder import Run

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "fixtures" / "two_ranks.py"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SEQDENS_PLUGINS": ""}

spec = importlib.util.spec_from_file_location("two_ranks", SCRIPT)
assert spec
assert spec.loader
two_ranks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(two_ranks)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def write_walks(path: Path, train: int, valid: int, more: int = 0) -> None:
    """Random walks of different lengths, perhaps with more of validation after them."""
    rng = np.random.default_rng(train)
    records = []
    for number in range(train + valid + more):
        points = rng.normal(5, 9, (rng.integers(1, 20), 3))
        points[:, 2] = rng.random(len(points)) < 0.3
        records.append(Record(str(number), points, "train" if number < train else "valid"))
    write(path, Provenance.of("walks", 1, {}, (X, Y, STROKE_END), synthetic=True, sources=""), records)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks have worked: data sets of which the last rank has no share in some batches, or in validation."""
    folder = tmp_path_factory.mktemp("ranks")
    write_walks(folder / "ragged.h5", train=13, valid=3)  # batches of 6, 6 and 1
    write_walks(folder / "single.h5", train=7, valid=1)
    write_walks(folder / "more.h5", train=13, valid=3, more=1)
    torchrun = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, folder],
            env=ENVIRONMENT | torchrun | {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 3], "\n".join(said)  # rank 1 dies in the end
    return folder


@pytest.fixture
def outcomes(folder: Path) -> list[dict[str, Any]]:
    """Of each rank."""
    return [pickle.loads((folder / f"outcomes-{rank}.pickle").read_bytes()) for rank in (0, 1)]


Outcomes = list[dict[str, Any]]


def each(outcomes: Outcomes, name: str) -> list[Any]:
    return [outcome[name] for outcome in outcomes]


def timeless(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if "second" not in name}


def test_a_process_alone_is_rank_0_of_1() -> None:
    distributed.join()
    with distributed.first_alone_prints():
        assert (distributed.rank(), distributed.size(), distributed.launched()) == (0, 1, False)
        assert distributed.exchange(lambda: 3) == [3]
        assert distributed.from_first(lambda: 4) == 4
        calls: list[int] = []
        assert distributed.first_on_each_machine(lambda: calls.append(5)) is None
        assert calls == [5]
        assert not torch.distributed.is_initialized()


def test_ranks_tell_each_other_what_they_have(outcomes: Outcomes) -> None:
    for rank, primitives in enumerate(each(outcomes, "primitives")):
        assert primitives["who"] == (rank, 2, rank)
        assert primitives["exchange"] == [0, 10]
        assert primitives["from_first"] == "rank 0"
        assert primitives["first_on_each_machine"] == (rank, [rank])


def test_what_fails_on_one_rank_fails_on_all(outcomes: Outcomes) -> None:
    first, second = each(outcomes, "primitives")
    assert first["failing"] == ("SeqdensError", "rank 1 of 2: ValueError: no such luck")
    assert second["failing"] == ("ValueError", "no such luck")
    assert first["refused"] == ("UsageError", "all wrong")
    assert second["refused"] == ("SeqdensError", "all wrong")


@pytest.mark.parametrize("name", two_ranks.SETTINGS)
def test_two_ranks_train_as_one_with_twice_the_batch(folder: Path, outcomes: Outcomes, name: str) -> None:
    prepared, listener = Prepared(folder / f"{name}.h5"), two_ranks.Listener()
    optimiser, dtype = two_ranks.SETTINGS[name]
    rtol = 1e-5 if dtype is torch.float32 else 1e-9
    model = two_ranks.untrained(prepared, unused=True).to(dtype)
    before = two_ranks.weights(model)
    history = two_ranks.trainer(batch_size=6, optimiser=optimiser).fit(model, prepared, events=listener)
    for weights, theirs, *_ in each(outcomes, name):
        assert len(theirs) == len(history) == 3
        for mine, row in zip(history, theirs, strict=True):
            assert timeless(row) == pytest.approx(timeless(mine), rel=rtol)
        torch.testing.assert_close(weights, two_ranks.weights(model), rtol=rtol, atol=rtol / 10)
        assert all((weight - start).abs().max() > 1e-3 for weight, start in zip(weights[1:], before[1:], strict=True))
    assert timeless(each(outcomes, name)[0][4]) == pytest.approx(timeless(listener.last), rel=rtol)


@pytest.mark.parametrize("name", two_ranks.SETTINGS)
def test_ranks_have_equal_weights_and_a_parameter_that_none_uses_stays(outcomes: Outcomes, name: str) -> None:
    one, other = (weights for weights, *_ in each(outcomes, name))
    assert all(map(torch.equal, one, other))
    assert one[0].tolist() == [1.0]


@pytest.mark.parametrize(("name", "steps"), [("ragged", 9), ("single", 6)])
def test_the_first_rank_alone_writes_and_is_alone_told(folder: Path, outcomes: Outcomes, name: str, steps: int) -> None:
    assert [told for _, _, *told, _ in each(outcomes, name)] == [[steps, 3], [0, 0]]
    written = {path.name for path in (folder / f"{name}-0").iterdir()}
    assert written == {"best.safetensors", "last.safetensors", "metrics.csv", "trainer.pt"}
    assert not (folder / f"{name}-1").exists()
    assert len(Run(folder / f"{name}-0").read_metrics()) == 3


def test_ranks_send_the_gradients_of_several_batches_once(folder: Path, outcomes: Outcomes) -> None:
    prepared = Prepared(folder / "ragged.h5")
    model = two_ranks.untrained(prepared).double()
    history = two_ranks.trainer(batch_size=6, accumulate=2).fit(model, prepared)
    assert [row["step"] for row in history] == [2, 4, 6]  # of 13 records: 12 and 1
    for weights, theirs, transfers in each(outcomes, "accumulated"):
        torch.testing.assert_close(weights, two_ranks.weights(model), rtol=1e-9, atol=1e-10)
        for mine, row in zip(history, theirs, strict=True):
            assert timeless(row) == pytest.approx(timeless(mine), rel=1e-9)
        assert transfers == 6


def test_an_error_on_one_rank_is_told_with_its_number_and_ends_all(outcomes: Outcomes) -> None:
    assert each(outcomes, "raises") == [
        ("SeqdensError", "rank 1 of 2: ZeroDivisionError: division by zero"),
        ("ZeroDivisionError", "division by zero"),
    ]


def test_a_loss_that_is_not_finite_on_one_rank_is_skipped_by_all(folder: Path, outcomes: Outcomes) -> None:
    (weights, history, failure), other = each(outcomes, "skipped")
    prepared = Prepared(folder / "ragged.h5")
    model = two_ranks.poisoned(two_ranks.untrained(prepared))
    alone = two_ranks.trainer(batch_size=6).fit(model, prepared)
    assert [row["skipped_steps"] for row in history] == [row["skipped_steps"] for row in alone] == [1, 1, 1]
    torch.testing.assert_close(weights, two_ranks.weights(model), rtol=1e-5, atol=1e-6)
    assert all(map(torch.equal, weights, other[0]))
    assert list(map(timeless, history)) == list(map(timeless, other[1]))
    assert failure == other[2]
    assert failure[0] == "DataError"
    assert str(folder / "skipped" / "skipped.csv") in failure[1]
    listed = (folder / "skipped" / "skipped.csv").read_text().split()[1:]
    assert len(listed) in (1, 6)
    assert f"{listed[0].split(',')[0]},{two_ranks.POISONED}" in listed


def test_all_ranks_stop_at_the_same_step_and_resume_bit_for_bit(outcomes: Outcomes) -> None:
    for (stopped, step, weights, history), (straight, metrics, *_) in zip(
        each(outcomes, "interrupted"), each(outcomes, "ragged"), strict=True
    ):
        assert stopped == ("KeyboardInterrupt", "")
        assert 0 < step < 9
        assert all(torch.equal(*pair) for pair in zip(weights, straight[1:], strict=True))  # but for the unused one
        assert list(map(timeless, history)) == list(map(timeless, metrics))


def test_ranks_with_different_data_are_refused(outcomes: Outcomes) -> None:
    different = "number of training records, scaling of the data, number of validation records"
    said = f"the ranks differ in {different}; give all the same options and data."
    assert each(outcomes, "different data") == [("DataError", said)] * 2


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("different learning rate", "learning_rate"),
        ("different epochs", "epochs"),
        ("run of one", "run"),
        ("different validation", "number of validation records"),
    ],
)
def test_ranks_that_would_do_different_things_are_refused(outcomes: Outcomes, name: str, what: str) -> None:
    said = f"the ranks differ in {what}; give all the same options and data."
    assert each(outcomes, name) == [("DataError", said)] * 2


def test_a_record_that_one_rank_cannot_read_ends_all_with_its_message(outcomes: Outcomes) -> None:
    assert each(outcomes, "unreadable") == [("SeqdensError", "rank 1 of 2: torn"), ("DataError", "torn")]


def test_a_rank_that_does_not_see_the_run_says_so_and_overwrites_nothing(outcomes: Outcomes) -> None:
    (_, told), (kind, said) = each(outcomes, "unseen")
    assert (kind, told) == ("DataError", f"rank 1 of 2: {said}")
    assert f"trainer.pt is not to be seen on machine {platform.node()}" in said
    assert "overwrite" not in said


def test_one_command_leaves_one_run_and_speaks_once(folder: Path, outcomes: Outcomes) -> None:
    (status, said, complaints), silent = each(outcomes, "command")
    assert (status, complaints) == (0, "")
    assert said.startswith("hershey (synthetic): 6 lines")
    assert "with 2 processes, batches of 2 x 2 (" in said
    assert "torchrun --nproc-per-node 2 -m seqdens run handwriting --resume --out runs/handwriting-1" in said
    assert silent == (0, "", "")
    assert [path.name for path in (folder / "runs").iterdir()] == ["handwriting-1"]
    assert Run(folder / "runs" / "handwriting-1").read_metrics()[0]["step"] == 1  # of two records, a batch of four


def test_a_rank_whose_machine_does_not_see_the_folder_ends_well(folder: Path, outcomes: Outcomes) -> None:
    assert each(outcomes, "apart")[0][0] == 0
    assert each(outcomes, "apart")[1] == (0, "", "")
    assert [(folder / f"machine {rank}" / "apart").exists() for rank in (0, 1)] == [True, False]


def test_what_one_rank_alone_knows_it_says_itself_and_leaves_no_other_waiting(folder: Path) -> None:
    (status, _, lost), alone = (pickle.loads((folder / f"alone-{rank}.pickle").read_bytes()) for rank in (0, 1))
    said = "Error: rank 0 of 2 has lost the connection to another, which was killed, or says why itself.\n"
    assert (status, lost) == (1, said)
    assert alone == (1, "", "Error: rank 1 of 2: no room here.\n")


@pytest.mark.parametrize(
    ("name", "said"), [("malformed", "'x' is not a valid integer"), ("unknown", "'fast'"), ("unbuildable", "'Ω'")]
)
def test_a_usage_error_is_said_once(outcomes: Outcomes, name: str, said: str) -> None:
    (status, _, err), silent = each(outcomes, name)
    assert (status, err.count("Error:")) == (2, 1)
    assert said in err
    assert silent == (2, "", "")


def test_an_interrupted_torchrun_saves_and_one_process_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    little = ("dataset.lines=6", "dataset.writers=3", "encoder.hidden_size=8", "head.components=2", "sampling.steps=5")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "seqdens"]
    process = subprocess.Popen(
        [*torchrun, "run", "handwriting", "--out", "out", "--epochs", "100000", "--set=training.batch_size=2"]
        + [f"--set={setting}" for setting in little],
        cwd=tmp_path,
        env=ENVIRONMENT | {"SEQDENS_CACHE": os.environ["SEQDENS_CACHE"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "out" / "trainer.pt").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    again = "torchrun --nproc-per-node 2 -m seqdens run handwriting --resume --out out"
    assert errors.count(f"Stopped; what is saved goes on with: {again}") == 1, errors
    assert "seqdens FAILED" not in errors
    assert output.count("hershey") == 1
    done = len(Run(tmp_path / "out").read_metrics())
    assert torch.load(tmp_path / "out" / "trainer.pt", weights_only=True)["progress"]["epoch"] == done
    monkeypatch.chdir(tmp_path)
    alone = ["run", "handwriting", "--resume", "--out", "out", f"--epochs={done + 1}"]
    refused = CliRunner().invoke(cli, alone)
    assert "batch size 4, now 2" in refused.stderr
    resumed = CliRunner().invoke(cli, [*alone, "--set=training.batch_size=4"])
    assert resumed.exit_code == 0, resumed.output
    assert len(Run(tmp_path / "out").read_metrics()) == done + 1


def test_after_a_rank_was_killed_two_torchruns_start_all_again_and_they_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    little = ("dataset.lines=12", "dataset.writers=3", "encoder.hidden_size=8", "head.components=2", "sampling.steps=5")
    command = ["run", "handwriting", "--epochs=3", *(f"--set={setting}" for setting in little)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=1"]
    torchrun += ["--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{free_port()}", "--monitor-interval=0.1"]
    machines = [
        subprocess.Popen(
            [*torchrun, ROOT / "tests/fixtures/dies_once.py", *command, "--out=killed", "--set=training.batch_size=1"],
            cwd=tmp_path,
            env=ENVIRONMENT | {"SEQDENS_CACHE": os.environ["SEQDENS_CACHE"], "DYING": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        said = "".join(machine.communicate(timeout=120)[0] for machine in machines)
    finally:
        for machine in machines:
            machine.kill()
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert said.count("(exitcode: -9) local_rank: 0") == 1
    monkeypatch.chdir(tmp_path)
    straight = CliRunner().invoke(cli, [*command, "--out", "straight", "--set=training.batch_size=2"])
    assert straight.exit_code == 0, straight.output
    killed, whole = (Run(tmp_path / name).read_metrics() for name in ("killed", "straight"))
    for row, wanted in zip(killed, whole, strict=True):
        assert timeless(row) == pytest.approx(timeless(wanted), rel=1e-4)


def names_agreed_on(store: Any, size: int) -> list[str]:
    """What each of so many ranks calls their group."""
    names = [""] * size

    def work(rank: int) -> None:
        names[rank] = distributed._find(store, rank) if rank else distributed._gather(store, size)

    threads = [threading.Thread(target=work, args=[rank], daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return names


def test_ranks_agree_on_a_name_whatever_is_left_of_those_before() -> None:
    store = torch.distributed.HashStore()
    store.set("rank 1", "one that died before it was answered")
    first = names_agreed_on(store, 3)
    again = names_agreed_on(store, 3)
    assert [len({*names}) for names in (first, again)] == [1, 1]
    assert len(first[0]) == 32
    assert first[0] != again[0]


def test_a_rank_that_is_started_again_meanwhile_is_answered_again() -> None:
    store = torch.distributed.HashStore()
    names: list[str] = []
    first = threading.Thread(target=lambda: names.append(distributed._gather(store, 2)), daemon=True)
    first.start()
    store.set("rank 1", "one that died once it was answered")
    store.wait(["answer to one that died once it was answered"], timedelta(seconds=30))
    names.append(distributed._find(store, 1))
    first.join(30)
    assert len(names) == 2
    assert len({*names}) == 1


def test_a_rank_that_never_comes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "TIMEOUT", timedelta(seconds=0.1))
    store = torch.distributed.HashStore()
    with pytest.raises(SeqdensError, match=r"rank 1 was not heard of for 0:00:00[.]1"):
        distributed._gather(store, 3)
    with pytest.raises(SeqdensError, match=r"rank 0 was not heard of for 0:00:00[.]1"):
        distributed._find(store, 1)


def test_what_torchrun_starts_again_must_be_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    refused = CliRunner().invoke(cli, ["run", "handwriting"])
    assert (refused.exit_code, "name its folder with --out" in refused.stderr) == (2, True)


@pytest.mark.parametrize("attempt", ["0", "1"])
def test_what_torchrun_may_start_again_overwrites_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, attempt: str
) -> None:
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", attempt)
    (tmp_path / "config.toml").touch()
    refused = CliRunner().invoke(cli, ["run", "handwriting", "--overwrite", "--out", str(tmp_path)])
    assert refused.exit_code == 2
    assert "--overwrite and torchrun --max-restarts exclude each other" in refused.stderr
    assert [*tmp_path.iterdir()] == [tmp_path / "config.toml"]


@pytest.mark.parametrize(
    ("words", "joins"),
    [
        (["list"], False),
        (["--debug", "show", "run"], False),
        (["--version"], False),
        (["run", "handwriting", "--preset=fast"], True),
        (["--debug", "run", "--help"], True),
    ],
)
def test_only_the_command_that_trains_waits_for_others(
    monkeypatch: pytest.MonkeyPatch, words: list[str], joins: bool
) -> None:
    joined: list[bool] = []
    monkeypatch.setattr("seqdens.cli.join", lambda: joined.append(True))
    CliRunner().invoke(cli, words)
    assert joined == [True] * joins
