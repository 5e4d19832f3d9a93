"""`seqdens evaluate`: the table, the JSON, and one sentence for what cannot be measured."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

import seqdens
from seqdens.cli import cli
from seqdens.cli import evaluate as evaluate_module
from seqdens.datasets.base import STROKE_END, X
from seqdens.model import SequenceModel
from seqdens.static import static_gaussian
from seqdens.training.run_folder import Run

DATA = {"name": "hershey", "lines": 40, "writers": 20, "characters": 20}


def evaluate(*args: Any) -> Result:
    return CliRunner().invoke(cli, ["evaluate", *map(str, args)], prog_name="seqdens", env={"COLUMNS": "100"})


def loaded() -> seqdens.Prepared:
    return seqdens.load("hershey", lines=40, writers=20, characters=20)


@pytest.fixture
def runs(small: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two run folders with the weights of untrained models and the configuration of their data."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("one", 1), ("two", 2)):
        run = Run(Path(name), {"dataset": DATA})
        run.start()
        small(loaded(), seed=seed).save(run.best)
    return [Path("one"), Path("two")]


def cells(table: str) -> dict[str, list[str]]:
    """The rows of a table by their labels; cells of more than one word are not told apart."""
    found = [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()]
    return {label: values for label, *values in found if values}


def test_table_and_json_hold_what_the_library_measures(runs: list[Path]) -> None:
    table, dumped = evaluate(*runs, "--static"), evaluate(*runs, "--static", "--json")
    assert (table.exit_code, dumped.exit_code) == (0, 0), (table.stderr, dumped.stderr)
    data = loaded()
    models = [*map(SequenceModel.load, runs), static_gaussian(data)]
    expected = [seqdens.measure(model, data) for model in models]
    found = json.loads(dumped.stdout)
    assert [one["model"] for one in found] == ["one", "two", "static Gaussian"]
    shown = cells(table.stdout)
    for number, (measures, one) in enumerate(zip(expected, found, strict=True)):
        assert one["learnt_from"] == "hershey"
        assert {name: one[name] for name in asdict(measures)} == json.loads(json.dumps(asdict(measures)))
        written = {
            "lines": f"{one['records']:,}",
            "points": f"{one['points']:,}",
            "points per line": f"{one['points_per_record']:.1f}",
            "mean, raw units": ", ".join(f"{value:.4g}" for value in one["mean"]),
            "nats per line": f"{one['nats_per_record']:+.2f}",
            "stroke_end per line": f"{one['terms_nats_per_record']['stroke_end']:+.2f}",
            "nats per point": f"{one['nats_per_point']:+.3f}",
            "real per point": f"{one['terms_nats_per_point']['real']:+.3f}",
            "nats per point, raw units": f"{one['raw_nats_per_point']:+.3f}",
            "bits per point, at most": f"{one['bits_per_point']:.3f}",
            "SSE per point, mean": f"{one['sse_per_point']['mean']:.3f}",
            "SSE per point, heaviest": f"{one['sse_per_point']['heaviest']:.3f}",
            "points at the sigma floor": f"{one['share_at_floor']:.2%}",
        }
        for label, value in written.items():
            assert shown[label][number] == value, label
    assert found[2]["nats_per_record"] < found[0]["nats_per_record"]


def test_notes_say_what_the_numbers_depend_on(runs: list[Path]) -> None:
    table, dumped = evaluate(runs[0]), evaluate(runs[0], "--json")
    for said in (table.stdout, dumped.stderr):
        assert "Losses are negative log-likelihoods, lower is better" in said
        assert "an upper bound, by noise" in said
        assert "Sigma floor of hershey: standard deviations of at most" in said
        assert "Not all columns" not in said
        assert "learnt from" not in said
    assert "hershey (synthetic)" in table.stdout
    assert "hershey (synthetic): 40 lines" in table.stderr


def test_other_data_than_learnt_from_are_said(runs: list[Path]) -> None:
    model = SequenceModel.load(runs[0])
    model.origin["dataset"], model.std = "iamondb", [40.0, 37.0]
    model.save("other.safetensors")
    done = evaluate("other.safetensors", runs[1], "--dataset", "hershey", "--set", "lines=30")
    assert "other.safetensors: learnt from iamondb, measured with hershey." in done.stdout
    assert "two: learnt from" not in done.stdout
    assert "Not all columns are of the same data." not in done.stdout
    assert "Not all columns have the same units: compare raw units or bits." in done.stdout


def test_a_bound_is_said_to_be_one(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SequenceModel, "exact", False)
    done = evaluate(runs[0], "--json")
    assert json.loads(done.stdout)[0]["exact"] is False
    assert "one: its losses are at most these, a bound." in done.stderr


def test_equal_data_are_prepared_once(runs: list[Path]) -> None:
    done = evaluate(runs[0], runs[0] / "best.safetensors", *runs, "--json")
    assert len(json.loads(done.stdout)) == 4
    assert done.stderr.count("hershey (synthetic)") == 1


def test_each_run_has_its_own_data_and_each_data_set_its_static_gaussian(runs: list[Path]) -> None:
    Run(runs[1], {"dataset": DATA | {"lines": 20}}).write_config()
    done = evaluate(*runs, "--static", "--json", "--split", "train", "--batch-size", 5)
    found = json.loads(done.stdout)
    assert [one["split"] for one in found] == ["train"] * 4
    counts = [len(seqdens.load(**DATA | {"lines": lines}).split("train")) for lines in (40, 20)]  # type: ignore[arg-type]
    assert [one["records"] for one in found] == counts * 2
    assert "Not all columns are of the same data." in done.stderr


@pytest.fixture
def plain(make: Callable[..., Any], small: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on records of fractions x, stroke_end, without a test split."""
    data = make((X, STROKE_END))
    prepare = evaluate_module.prepare_part
    monkeypatch.setattr(
        evaluate_module, "prepare_part", lambda part, cache: data if part["name"] == "plain" else prepare(part, cache)
    )
    run = Run(Path("plain"), {"dataset": {"name": "plain"}})
    run.start()
    small(data).save(run.best)
    return run.path


def test_what_only_one_model_has_is_left_out_of_the_other(runs: list[Path], plain: Path) -> None:
    shown = cells(evaluate(runs[0], plain).stdout)
    assert shown["bits per point, at most"][1] == "-"
    assert shown["records"] == ["2", "4"]


def test_an_empty_split_is_said(runs: list[Path], plain: Path) -> None:
    done = evaluate(plain, "--split", "test")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Error: plain: split 'test' of made has no records; there are: train 10, valid 4, test 0." in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "Missing argument 'MODEL...'"),
        (["nowhere"], 1, "there are no weights at nowhere"),
        (["one", "nowhere"], 1, "there are no weights at nowhere"),
        (["one/config.toml"], 1, "one/config.toml is no seqdens model"),
        (["one", "--split", "validation"], 2, "'validation' is not one of 'train', 'valid', 'test'"),
        (["one", "--device", "abacus"], 2, "device 'abacus' is not available"),
        (["one", "--batch-size", "0"], 2, "0 is not in the range x>=1"),
        (["one", "--dataset", "hersey"], 2, "did you mean 'hershey'"),
        (["one", "--set", "lines=0"], 2, "lines"),
        (["alone.safetensors"], 2, "give --dataset NAME, and --data DIR for one of files"),
        (
            ["plain.safetensors", "--dataset", "hershey", "--set", "lines=6", "--set", "writers=3"],
            2,
            "hershey has columns x (real), y (real), stroke_end (binary), but the model's are x (real),",
        ),
        (
            ["broken.safetensors", "--dataset", "hershey", "--set", "lines=40"],
            1,
            "the loss of the valid split of hershey",
        ),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_sentence(
    runs: list[Path],
    make: Callable[..., Any],
    small: Callable[..., Any],
    arguments: list[str],
    status: int,
    said: str,
) -> None:
    model = small(loaded())
    model.save("alone.safetensors")
    torch.nn.init.constant_(model.head.output.bias, torch.nan)
    model.save("broken.safetensors")
    small(make((X, STROKE_END))).save("plain.safetensors")
    done = evaluate(*arguments, "--json")
    assert (done.exit_code, done.stdout) == (status, ""), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
