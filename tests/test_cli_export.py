"""`seqdens export`: a step of sampling as a file for other programs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from seqdens.cli import cli


def export(*args: Any) -> Result:
    return CliRunner().invoke(cli, ["export", *map(str, args)], prog_name="seqdens")


@pytest.fixture
def run(make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the weights of a model of ink, and with nothing else."""
    monkeypatch.chdir(tmp_path)
    small(make()).save(tmp_path / "run" / "best.safetensors")
    return Path("run")


def test_a_step_is_written_and_nothing_else_is_said(run: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    done = export(run, "--bias", 1.5, "--out", "new/step.onnx")
    assert (done.exit_code, done.output) == (0, "new/step.onnx: a step of sampling, bias 1.5\n")
    session = runtime.InferenceSession("new/step.onnx")
    assert [each.name for each in session.get_inputs()] == ["seen", "noise", "hidden", "cell"]
    assert session.get_modelmeta().custom_metadata_map["bias"] == "1.5"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["nowhere"], 1, "there are no weights at nowhere"),
        (["run", "--bias", "-1"], 2, "-1.0 is not in the range x>=0"),
        (["run", "--bias", "nan"], 2, "bias is nan"),
        (["run", "--out", "run/best.safetensors/step.onnx"], 1, "step.onnx"),
    ],
)
def test_a_silly_argument_is_one_sentence(run: Path, arguments: list[str], status: int, said: str) -> None:
    pytest.importorskip("onnxscript")
    refused = export(*arguments)
    assert isinstance(refused.exception, SystemExit), refused.exception
    assert refused.exit_code == status
    assert said in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.output
