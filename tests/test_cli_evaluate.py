"""`seqdens evaluate`: the table, the JSON, and one sentence for what cannot be measured."""

import json
import math
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
from seqdens.datasets.base import SEQUENCE_END, STROKE_END, Column, X
from seqdens.heads.base import Distribution, Head
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
            "x: mean, std (raw)": f"{one['mean'][0]:.4g}, {one['std'][0]:.4g}",
            "y: mean, std (raw)": f"{one['mean'][1]:.4g}, {one['std'][1]:.4g}",
            "nats per line": f"{one['nats_per_record']:+.2f}",
            "stroke_end per line": f"{one['terms_nats_per_record']['stroke_end']:+.2f}",
            "nats per point": f"{one['nats_per_point']:+.3f}",
            "real per point": f"{one['terms_nats_per_point']['real']:+.3f}",
            "nats per point, raw units": f"{one['raw_nats_per_point']:+.3f}",
            "bits per point, at most": f"{one['bits_per_point']:.3f}",
            "SSE per point, mean": f"{one['sse_per_point']['mean']:.3f}",
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
        assert "Not all models" not in said
        assert "Missing values" not in said
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
    assert "Not all models are measured with the same data." not in done.stdout
    assert "Not all models have the same units: compare raw units or bits." in done.stdout


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
    assert "Not all models are measured with the same data." in done.stderr


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
    assert shown["y: mean, std (raw)"][1] == "-"


def test_models_of_different_columns_do_not_compare(runs: list[Path], plain: Path) -> None:
    done = evaluate(plain, runs[0])
    assert "The models predict different columns, so their losses do not compare." in done.stdout
    assert "Not all models" not in done.stdout


def test_the_terms_of_all_models_stand_together(
    runs: list[Path], make: Callable[..., Any], small: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = {"first": make((X, STROKE_END)), "second": make((Column("p", "real"), SEQUENCE_END))}
    serve(monkeypatch, prepared)
    for name, data in prepared.items():
        run = Run(Path(name), {"dataset": {"name": name}})
        run.start()
        small(data).save(run.best)
    labels = list(cells(evaluate("first", "second").stdout))
    per_record = ["nats per record", "real per record", "stroke_end per record", "sequence_end per record"]
    per_point = [label.replace("record", "point") for label in per_record]
    start = labels.index("nats per record")
    assert labels[start : start + 9] == [*per_record, *per_point, "nats per point, raw units"]


def serve(monkeypatch: pytest.MonkeyPatch, prepared: dict[str, Any]) -> None:
    """Has these be the data sets of their names."""
    prepare = evaluate_module.prepare_part
    monkeypatch.setattr(
        evaluate_module, "prepare_part", lambda part, cache: prepared.get(part["name"]) or prepare(part, cache)
    )


class Symbols(Head):
    """Every category as likely as any other."""

    noise_size = 1

    def forward(self, features: Any) -> Any:
        return Uniform(self.columns[0].size)


class Uniform(Distribution):
    def __init__(self, size: int) -> None:
        self.size = size

    def terms(self, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"letter": torch.full(targets.shape[:2], -math.log(self.size))}

    def sample(self, noise: torch.Tensor, bias: float = 0.0) -> torch.Tensor:
        return (noise * self.size).floor()

    def mean(self) -> torch.Tensor:
        raise NotImplementedError


def test_of_text_nothing_is_said_that_does_not_apply(
    make: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seqdens.register("heads", "symbols", Symbols)
    data = make((Column("letter", "category", 8),))
    serve(monkeypatch, {"letters": data})
    run = Run(Path("letters"), {"dataset": {"name": "letters"}})
    run.start()
    SequenceModel.for_data(data, seqdens.encoder("memoryless"), seqdens.head("symbols")).save(run.best)
    done = evaluate("letters", "--static")
    shown = cells(done.stdout)
    assert shown["bits per point"][0] == "3.000"
    assert "letter per point" in shown
    assert done.stdout.splitlines()[-1] == "Losses are negative log-likelihoods, lower is better."
    assert not any("raw" in label or "real" in label for label in shown)


def test_the_models_are_measured_where_there_is_no_static_gaussian(
    runs: list[Path], plain: Path, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, {"plain": make((X, STROKE_END), test=5)})
    done = evaluate(plain, "--static", "--split", "test")
    assert done.exit_code == 0, done.output
    assert cells(done.stdout)["records"] == ["5"]
    assert "No static Gaussian for made: made has no training records among 5." in done.stdout


def test_all_records_of_other_files_are_measured(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run(Path("run"), {"dataset": {"name": "plain", "root": str(tmp_path / "old.csv")}})
    run.start()
    serve(monkeypatch, {"plain": make((X, STROKE_END), train=7, valid=2, test=3)})
    small(make((X, STROKE_END))).save(run.best)
    said = "All records are measured: --data names other files than the run's; --split takes a part."
    for options, split, count in (
        (["--data", "new.csv"], "all", "12"),
        (["--set", "root=new.csv"], "all", "12"),
        (["--data", "new.csv", "--split", "test"], "test", "3"),
        (["--data", "old.csv"], "valid", "2"),
        (["--split", "all"], "all", "12"),
        ([], "valid", "2"),
    ):
        done = evaluate("run", *options)
        shown = cells(done.stdout)
        assert (shown["split"], shown["records"]) == ([split], [count]), done.output
        assert (said in done.stdout) == (split == "all" and len(options) == 2 and "all" not in options)


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
        (["one", "--split", "validation"], 2, "'validation' is not one of 'train', 'valid', 'test', 'all'"),
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
    torch.nn.init.constant_(model.head.output.bias, -1e30)
    model.save("broken.safetensors")
    small(make((X, STROKE_END))).save("plain.safetensors")
    done = evaluate(*arguments, "--json")
    assert (done.exit_code, done.stdout) == (status, ""), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
