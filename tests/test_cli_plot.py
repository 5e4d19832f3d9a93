"""`seqdens plot`: figures of a run's predictions and losses, and what is said when there can be none."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import seqdens
from seqdens import density, writing
from seqdens.cli import cli
from seqdens.cli.plot import find_record, title
from seqdens.datasets.base import Column
from seqdens.errors import UsageError
from seqdens.training.run_folder import Run

DATA = {"name": "hershey", "lines": 40, "writers": 20, "characters": 20}
METRICS = "epoch,train_nats_per_point,valid_nats_per_point\n1,2.5,2.25\n2,1.5,nan\n"
SIGNATURES = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}


def plot(*args: Any) -> Result:
    return CliRunner().invoke(cli, ["plot", *map(str, args)], prog_name="seqdens")


def lines() -> seqdens.Prepared:
    return seqdens.load("hershey", lines=40, writers=20, characters=20)


@pytest.fixture
def run(small: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the weights, configuration and metrics of an untrained model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(density, "_CELLS", 5_000)
    monkeypatch.setattr(density, "_WATCHED", 1)
    run = Run(Path("run"), {"dataset": DATA})
    run.start()
    small(lines()).save(run.best)
    run.metrics.write_text(METRICS)
    return run.path


@pytest.mark.parametrize("kind", ["density", "mixture"])
def test_the_first_valid_record_is_plotted(run: Path, kind: str) -> None:
    data = lines()
    index = data.split("valid")[0]
    done = plot(kind, run)
    points = data.lengths_of(index)
    assert (done.exit_code, done.stdout) == (0, f"{kind}.png: line {data.ids[index]}, points {points}\n"), done.output
    assert Path(f"{kind}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("suffix", SIGNATURES)
@pytest.mark.parametrize("kind", ["density", "mixture", "loss"])
def test_every_format_is_written(run: Path, kind: str, suffix: str) -> None:
    out, steps = Path(f"new/figure{suffix}"), [] if kind == "loss" else ["--steps", 9]
    done = plot(kind, run, "--out", out, *steps)
    assert done.exit_code == 0, done.output
    assert out.read_bytes().startswith(SIGNATURES[suffix])


def test_a_record_a_split_and_a_part_can_be_chosen(run: Path) -> None:
    data = lines()
    valid, train = data.ids[data.split("valid")[0]], data.ids[data.split("train")[1]]
    for options, said in (
        (["--split", "train"], data.ids[data.split("train")[0]]),
        (["--record", train], train),
        (["--record", train, "--split", "test"], train),
        (["--record", valid], valid),
    ):
        done = plot("mixture", run, "--steps", 7, *options)
        assert done.stdout == f"mixture.png: line {said}, points 7\n", done.output


def test_weights_alone_need_a_data_set(run: Path) -> None:
    (run / "best.safetensors").rename("alone.safetensors")
    settings = ["--set", "lines=40", "--set", "writers=20", "--set", "characters=20"]
    assert plot("mixture", "alone.safetensors", "--dataset", "hershey", *settings, "--steps", 5).exit_code == 0
    refused = plot("mixture", "alone.safetensors")
    assert (refused.exit_code, "give --dataset NAME" in refused.stderr) == (2, True)


def test_a_device_that_is_not_there_is_named(run: Path) -> None:
    refused = plot("density", run, "--device", "cuda:99")
    assert (refused.exit_code, "device 'cuda:99' is not available" in refused.stderr) == (2, True)


def test_losses_are_redrawn_in_the_run_s_folder(run: Path) -> None:
    (run / "loss.png").write_bytes(b"old")
    assert plot("loss", run).output == "run/loss.png: losses of run\n"
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("text", ["", "epoch\n", METRICS.replace("2.25", "two"), METRICS + "3\n", "a,b\n1,2\n", "\0"])
def test_metrics_that_are_none_are_one_sentence(run: Path, text: str) -> None:
    (run / "metrics.csv").write_text(text)
    refused = plot("loss", run)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert re.fullmatch(r"Error: run/metrics.csv holds no losses.*\n", refused.stderr), refused.stderr
    assert not (run / "loss.png").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["density", "nowhere"], 1, "there are no weights at nowhere"),
        (["loss", "nowhere"], 1, "there is no nowhere/metrics.csv"),
        (["loss", "run/metrics.csv"], 1, "there is no run/metrics.csv/metrics.csv"),
        (["density", "run", "--record", "w1-100000"], 2, "hershey has no line 'w1-100000'; the nearest of 40: w"),
        (["density", "run", "--split", "none"], 2, "'none' is not one of 'train', 'valid', 'test'"),
        (["density", "run", "--steps", "0"], 2, "0 is not in the range x>=1"),
        (["density", "run", "--out", "figure.gif"], 2, "its suffix is '.gif', but must be one of .png, .svg, .pdf"),
        (["mixture", "run", "--out", "figure"], 2, "its suffix is ''"),
        (["loss", "run", "--out", "loss.txt"], 2, "its suffix is '.txt'"),
        (["mixture", "run", "--out", "run/metrics.csv/figure.png"], 1, "figure.png"),
        (["density", "run", "--dataset", "nonsense"], 2, "nonsense"),
        (["density", "run", "--set", "lines=0"], 2, "lines"),
        (["density"], 2, "Missing argument 'MODEL'"),
        (["histogram", "run"], 2, "No such command 'histogram'"),
    ],
)
def test_a_silly_argument_is_one_sentence(run: Path, arguments: list[str], status: int, said: str) -> None:
    before = sorted(Path().rglob("*"))
    refused = plot(*arguments)
    assert isinstance(refused.exception, SystemExit), refused.exception
    assert refused.exit_code == status, refused.output
    assert said in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.output
    assert sorted(Path().rglob("*")) == before


def test_a_model_of_other_columns_is_refused(run: Path, make: Callable[..., Any], small: Callable[..., Any]) -> None:
    small(make((Column("price", "real"),))).save(run / "best.safetensors")
    refused = plot("density", run)
    assert (refused.exit_code, "but the model's are price" in refused.stderr) == (2, True)


def test_an_empty_split_is_said(make: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="made has no record in its split 'test'"):
        find_record(make(train=3), None, "test")


def test_a_title_says_what_is_synthetic_and_how_much_is_shown(
    make: Callable[..., Any], small: Callable[..., Any]
) -> None:
    data = make(train=1)
    model, steps = small(data), int(data.lengths_of(data.split("train"))[0])
    model.origin = {"dataset": "real"}
    assert title(model, data, 0, steps) == "Record train-0 of made (synthetic), “a b”; model learnt from real"
    model.origin = {"dataset": "made", "synthetic": True}
    said = title(model, data, 0, steps - 1)
    assert f"“a b”, first {steps - 1} of {steps} points; " in said
    assert said.endswith("model learnt from made (synthetic)")


@pytest.mark.parametrize("suffix", SIGNATURES)
def test_a_window_is_plotted_over_what_it_wrote(
    writer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    writer.save("writer.safetensors")
    done = plot("window", "writer.safetensors", "--text", " bad  cab", "--seed", 1, "--out", f"window{suffix}")
    assert done.exit_code == 0, done.output
    assert re.match(rf"window\{suffix}: points \d+, seed 1", done.stdout)
    assert Path(f"window{suffix}").read_bytes().startswith(SIGNATURES[suffix])
    monkeypatch.setattr(writing, "SHIPPED", Path("writer.safetensors"))
    assert plot("window", "--text", " bad  cab", "--seed", 1).stdout == done.stdout.replace(suffix, ".png")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["writer.safetensors"], "Missing option '--text'"),
        (["writer.safetensors", "--text", ""], "there is no text to write"),
        (["writer.safetensors", "--text", "x"], "character 'x' cannot be written"),
        (["writer.safetensors", "--text", "a" * 201], "--text has 201 characters, but a line has 200 at most"),
        (["writer.safetensors", "--text", "a", "--out", "a.gif"], "its suffix is '.gif'"),
        (["run", "--text", "a"], "stacked-lstm takes no text"),
    ],
)
def test_a_window_over_nothing_is_refused(writer: Any, run: Path, arguments: list[str], said: str) -> None:
    writer.save("writer.safetensors")
    refused = plot("window", *arguments)
    assert (refused.exit_code, said in " ".join(refused.stderr.split())) == (2, True), refused.output
