"""A step of sampling as a module, an exported program and an ONNX file: it draws what `SequenceModel.sample` does."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqdens
from seqdens.errors import UsageError
from seqdens.exporting import SamplingStep, _erfinv, export_onnx, exported_step
from seqdens.sampling import Noise

# torch warns of itself, of its own tree specifications and its own modules
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

ENCODERS = ["stacked-lstm", "window-lstm"]
TEXT, COUNT, STEPS, BIAS = "abcab", 3, 200, 0.5


def model(encoder: str, columns: tuple[seqdens.Column, ...] = (seqdens.X, seqdens.Y, seqdens.STROKE_END)) -> Any:
    torch.manual_seed(0)
    parts = seqdens.encoder(encoder, hidden_size=20, layers=2), seqdens.head("gmm-bernoulli", components=4)
    made = seqdens.SequenceModel(columns, *parts, mean=[1, -2], std=[10, 20], alphabet="abc")
    return made.eval()


def context(made: Any) -> seqdens.Context | None:
    if not made.encoder.takes_text:
        return None
    ids = torch.tensor([["abc".index(character) for character in TEXT]] * COUNT)
    return seqdens.Context(ids, torch.full((COUNT,), len(TEXT)))


def drawn(made: Any) -> list[np.ndarray]:
    text = {"text": TEXT} if made.encoder.takes_text else {}
    return list(made.sample(COUNT, steps=STEPS, bias=BIAS, seed=3, **text))


def followed(made: Any, step: Any) -> list[np.ndarray]:
    """What `step` draws from the same noise, each record until it has finished."""
    noise, text = Noise(3, COUNT, made.head.noise_size), context(made)
    seen, state = SamplingStep(made).start(COUNT, text)
    points, lengths = [], np.full(COUNT, STEPS)
    with torch.no_grad():
        for number in range(STEPS):
            point, seen, state, finished = step(seen, noise.draw()[:, 0], state, *(text or (None, None)))
            points.append(np.asarray(point))
            lengths[np.asarray(finished)] = np.minimum(lengths[np.asarray(finished)], number + 1)
    return [record[:length] for record, length in zip(np.stack(points, axis=1), lengths, strict=True)]


def assert_alike(found: list[np.ndarray], wanted: list[np.ndarray], tolerance: float) -> None:
    assert [len(each) for each in found] == [len(each) for each in wanted]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=20 * tolerance)  # of a standard deviation of 20


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_step_draws_what_the_model_draws(encoder: str) -> None:
    made = model(encoder)
    assert_alike(followed(made, SamplingStep(made, BIAS)), drawn(made), 1e-5)


def test_a_step_finishes_at_the_end_of_a_sequence() -> None:
    made = model("stacked-lstm", (seqdens.X, seqdens.Y, seqdens.STROKE_END, seqdens.SEQUENCE_END))
    wanted = drawn(made)
    assert min(map(len, wanted)) < STEPS
    assert_alike(followed(made, SamplingStep(made, BIAS)), wanted, 1e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_exported_step_is_saved_loaded_and_draws_the_same(encoder: str, tmp_path: Path) -> None:
    made = model(encoder)
    torch.export.save(exported_step(made, BIAS), tmp_path / "step.pt2")
    loaded = torch.export.load(tmp_path / "step.pt2").module()
    assert_alike(followed(made, loaded), drawn(made), 1e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_onnx_file_draws_the_same(encoder: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    made = model(encoder)
    export_onnx(made, tmp_path / "step.onnx", bias=BIAS)
    session = runtime.InferenceSession(tmp_path / "step.onnx")
    outputs = [each.name for each in session.get_outputs()]
    assert (outputs[:2], outputs[-1]) == (["point", "next_seen"], "finished")

    def step(seen: Any, noise: Any, state: Any, text: Any, lengths: Any) -> tuple[Any, ...]:
        given = {"seen": seen, "noise": noise} | state
        given |= {} if text is None else {"text": text, "text_lengths": lengths}
        found = dict(zip(outputs, session.run(None, {k: np.asarray(v) for k, v in given.items()}), strict=True))
        return found["point"], found["next_seen"], {name: found[f"next_{name}"] for name in state}, found["finished"]

    assert_alike(followed(made, step), drawn(made), 1e-4)


def test_the_inverse_error_function_is_torch_s() -> None:
    y = torch.linspace(-1 + 2**-23, 1 - 2**-23, 100_001)
    torch.testing.assert_close(_erfinv(y), torch.erfinv(y), rtol=2e-6, atol=1e-6)


def test_without_its_packages_an_onnx_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *given: Any, **options: Any) -> Any:
        if name == "onnxscript":
            raise ModuleNotFoundError("No module named 'onnxscript'", name="onnxscript")
        return real(name, *given, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UsageError, match=r'^onnxscript is not installed; install "seqdens\[onnx\]"\.$'):
        export_onnx(model("stacked-lstm"), tmp_path / "step.onnx")
    assert not [*tmp_path.iterdir()]


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bias is -1, but must be at least 0"):
        SamplingStep(model("stacked-lstm"), -1)
    pytest.importorskip("onnxscript")
    with pytest.raises(UsageError, match=r"the model is torch\.float64 on cpu, but must be float32 on cpu"):
        export_onnx(model("stacked-lstm").double(), tmp_path / "step.onnx")
