"""`seqdens sample`: drawing from a trained model, into every format."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from seqdens.cli import cli
from seqdens.datasets.base import SEQUENCE_END, STROKE_END, Column, X, Y
from seqdens.export import load_ink, save_records
from seqdens.model import SequenceModel


def sample(*args: Any) -> Result:
    return CliRunner().invoke(cli, ["sample", *map(str, args)], prog_name="seqdens")


@pytest.fixture
def run(make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the weights of a model of ink, and with nothing else."""
    monkeypatch.chdir(tmp_path)
    small(make()).save(tmp_path / "run" / "best.safetensors")
    return Path("run")


@pytest.mark.parametrize("suffix", [".svg", ".png", ".gif", ".npz", ".csv", ".json"])
def test_every_format_is_written(run: Path, suffix: str) -> None:
    done = sample(run, "-n", 2, "--steps", 5, "--seed", 4, "--out", f"new/lines{suffix}")
    assert (done.exit_code, done.output) == (0, f"new/lines{suffix}: records 2, points 10, seed 4\n")
    assert Path(f"new/lines{suffix}").stat().st_size > 0
    if suffix == ".svg":
        assert "made (synthetic), bias 0" in Path("new/lines.svg").read_text()


def test_by_default_eight_lines_are_drawn(run: Path) -> None:
    assert re.fullmatch(r"samples\.svg: records 8, points 5,600, seed \d+\n", sample(run).output)


def test_what_is_no_ink_goes_into_a_table_by_default(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small(make((Column("speed", "real"), Column("on", "binary")))).save(tmp_path / "model.safetensors")
    assert sample("model.safetensors", "-n", 2, "--steps", 5, "--seed", 1).output.startswith("samples.csv: records 2")


def test_the_seed_that_is_said_draws_the_same_again(run: Path) -> None:
    said = sample(run, "--steps", 5, "--out", "first.csv").output.rpartition(" ")[2]
    sample(run, "--steps", 5, "--seed", int(said), "--out", "again.csv")
    assert Path("first.csv").read_bytes() == Path("again.csv").read_bytes()


def test_the_command_draws_what_the_library_draws(run: Path) -> None:
    prime = np.array([[3, 4, 0], [5, -6, 1]], np.float32)
    save_records([prime, prime[::-1]], "prime.npz")
    arguments = ("-n", 2, "--steps", 5, "--bias", 0.5, "--prime", "prime.npz", "--seed", 9, "--out", "lines.npz")
    assert sample(run / "best.safetensors", *arguments).exit_code == 0
    expected = SequenceModel.load(run).sample(2, steps=5, bias=0.5, prime=prime, seed=9)
    for mine, theirs in zip(load_ink("lines.npz").records, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_seed_repeats_and_none_varies(run: Path) -> None:
    contents = []
    for number, seed in enumerate([(), (), ("--seed", 4), ("--seed", 4)]):
        sample(run, "-n", 1, "--steps", 3, *seed, "--out", f"{number}.csv")
        contents.append(Path(f"{number}.csv").read_text())
    assert contents[2] == contents[3]
    assert len(set(contents)) == 3


def test_data_without_ink_are_saved_as_numbers(run: Path, make: Callable[..., Any], small: Callable[..., Any]) -> None:
    small(make((Column("price", "real"),))).save("prices.safetensors")
    assert sample("prices.safetensors", "--out", "prices.csv").exit_code == 0
    refused = sample("prices.safetensors", "--out", "prices.svg")
    assert refused.exit_code == 2
    assert "Error: records without a column 'x' cannot be drawn; there are: price." in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["nowhere"], 1, "there are no weights at nowhere"),
        (["."], 1, "there are no weights at best.safetensors; a run writes"),
        (["broken.safetensors"], 1, "broken.safetensors is no seqdens model"),
        (["run", "-n", "0"], 2, "0 is not in the range 1<=x<=1000000"),
        (["run", "--steps", "0"], 2, "0 is not in the range 1<=x<=1000000"),
        (["run", "--bias", "-1"], 2, "-1.0 is not in the range x>=0"),
        (["run", "--bias", "nan"], 2, "bias is nan"),
        (["run", "--bias", "inf"], 2, "bias is inf"),
        (["run", "--seed", "-1"], 2, "-1 is not in the range x>=0"),
        (["run", "--seed", str(2**70)], 2, "seed is 1180591620717411303424"),
        (["run", "--out", "lines.bmp"], 2, "'.bmp', but must be one of .svg, .png, .gif, .npz, .csv, .json"),
        (["run", "--out", "lines"], 2, "its suffix is ''"),
        (["run", "--out", "run/best.safetensors/lines.svg"], 1, "lines.svg"),
        (["run", "--prime", "none.npz"], 1, "cannot load 'none.npz': No such file"),
        (["run", "--prime", "prime.txt"], 2, "its suffix is '.txt'"),
        (["run", "--prime", "broken.npz"], 1, "cannot load 'broken.npz'"),
        (
            ["run", "--prime", "signature.npz"],
            2,
            "stroke_end (binary), sequence_end (binary), but the ",
        ),
        (
            ["run", "--prime", "other.npz"],
            2,
            "has columns a (real), b (real), stroke_end (binary), but the ",
        ),
    ],
)
def test_a_silly_argument_is_one_sentence(run: Path, arguments: list[str], status: int, said: str) -> None:
    Path("broken.safetensors").write_bytes(b"broken")
    Path("broken.npz").write_bytes(b"broken")
    save_records([np.zeros((2, 4))], "signature.npz", columns=(X, Y, STROKE_END, SEQUENCE_END))
    save_records([np.zeros((2, 3))], "other.npz", columns=(Column("a", "real"), Column("b", "real"), STROKE_END))
    before = sorted(Path().rglob("*"))
    refused = sample(*arguments)
    assert isinstance(refused.exception, SystemExit), refused.exception
    assert refused.exit_code == status
    assert said in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.output
    assert sorted(Path().rglob("*")) == before


def test_a_text_is_written(writer: SequenceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    writer.save("writer.safetensors")
    prime = np.array([[3, 4, 0], [5, -6, 1]], np.float32)
    save_records([prime], "prime.npz")
    options = ("writer.safetensors", "-n", 2, "--steps", 9, "--seed", 1)
    primed = ("--prime", "prime.npz", "--prime-text", "d")
    done = sample(*options, "--text", "Bäd cab", "--unknown", "replace", *primed, "--out", "lines.npz")
    assert done.exit_code == 0, done.output
    wanted = writer.sample(2, steps=9, text="bad cab", prime=prime, prime_text="d", seed=1)
    for one, other in zip(load_ink(Path("lines.npz")).records, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert sample(*options, "--text", "bad", "--out", "lines.svg").exit_code == 0
    assert "bias 0: “bad”" in Path("lines.svg").read_text()
    assert "writes a text: say which" in sample(*options).output
    assert "character 'x' cannot be written" in sample(*options, "--text", "xa").output
