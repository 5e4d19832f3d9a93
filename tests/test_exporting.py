"""A step of sampling as a module, an exported program and an ONNX file: it draws what `SequenceModel.sample` does."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqdens
from seqdens import components
from seqdens.encoders.memoryless import Memoryless
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


def context(made: Any, count: int = COUNT) -> seqdens.Context | None:
    if not made.encoder.takes_text:
        return None
    ids = torch.tensor([["abc".index(character) for character in TEXT]] * count)
    return seqdens.Context(ids, torch.full((count,), len(TEXT)))


def drawn(made: Any, count: int = COUNT) -> list[np.ndarray]:
    text = {"text": TEXT} if made.encoder.takes_text else {}
    return list(made.sample(count, steps=STEPS, bias=BIAS, seed=3, **text))


def followed(made: Any, step: Any, count: int = COUNT) -> list[np.ndarray]:
    """What `step` draws from the same noise, each record until it has finished."""
    noise, text = Noise(3, count, made.head.noise_size), context(made, count)
    seen, state = SamplingStep(made).start(count, text)
    points, lengths = [], np.full(count, STEPS)
    with torch.no_grad():
        for number in range(STEPS):
            point, seen, state, finished = step(seen, noise.draw()[:, 0], state, *(text or ()))
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


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("encoder", ENCODERS)
def test_torch_exports_a_step_as_it_is(encoder: str, tmp_path: Path) -> None:
    made, records = model(encoder), {0: torch.export.Dim("records")}
    step, text = SamplingStep(made, BIAS), context(made)
    seen, state = step.start(COUNT, text)
    given = seen, torch.rand(COUNT, made.head.noise_size), state, *(text or ())
    shapes = records, records, dict.fromkeys(state, records), *[records for _ in text or ()]
    with torch.no_grad():
        exported = torch.export.export(step, given, dynamic_shapes=shapes)
    assert "seqdens.mixture_draw.default" in operators_of(exported)
    torch.export.save(exported, tmp_path / "step.pt2")
    loaded = torch.export.load(tmp_path / "step.pt2").module()
    assert_alike(followed(made, loaded), drawn(made), 1e-5)


def operators_of(exported: torch.export.ExportedProgram) -> set[str]:
    return {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_exported_step_is_saved_loaded_and_draws_the_same(encoder: str, tmp_path: Path) -> None:
    made = model(encoder).train()
    exported = exported_step(torch.compile(made), BIAS)
    assert all(module.training for module in made.modules())
    assert not [name for name in operators_of(exported) if name.startswith("seqdens")]
    torch.export.save(exported, tmp_path / "step.pt2")
    loaded = torch.export.load(tmp_path / "step.pt2").module()
    for count in (COUNT, 1):
        assert_alike(followed(made, loaded, count), drawn(made, count), 1e-5)


def test_an_exported_step_has_the_dtype_of_the_model() -> None:
    made = model("stacked-lstm").double()
    step, (seen, state) = exported_step(made).module(), SamplingStep(made).start(1)
    assert step(seen, torch.rand(1, made.head.noise_size).double(), state)[0].dtype == torch.float64


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_onnx_file_draws_the_same(encoder: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    made = model(encoder)
    export_onnx(made, tmp_path / "step.onnx", bias=BIAS)
    session = runtime.InferenceSession(tmp_path / "step.onnx")
    outputs = [each.name for each in session.get_outputs()]
    assert (outputs[:2], outputs[-1]) == (["point", "next_seen"], "finished")

    def step(seen: Any, noise: Any, state: Any, text: Any = None, lengths: Any = None) -> tuple[Any, ...]:
        given = {"seen": seen, "noise": noise} | state
        given |= {} if text is None else {"text": text, "text_lengths": lengths}
        found = dict(zip(outputs, session.run(None, {k: np.asarray(v) for k, v in given.items()}), strict=True))
        return found["point"], found["next_seen"], {name: found[f"next_{name}"] for name in state}, found["finished"]

    for count in (COUNT, 1):
        assert_alike(followed(made, step, count), drawn(made, count), 1e-4)
    assert {each.shape[0] for each in (*session.get_inputs(), *session.get_outputs())} == {"records"}
    about = session.get_modelmeta().custom_metadata_map
    alphabet = "abc" if made.encoder.takes_text else ""
    assert about == {"columns": '["x", "y", "stroke_end"]', "alphabet": alphabet, "bias": "0.5"}
    content = (tmp_path / "step.onnx").read_bytes()
    assert not [each for each in (seqdens, torch) if str(Path(each.__file__).parent).encode() in content]


def test_the_inverse_error_function_is_torch_s() -> None:
    y = torch.linspace(-1 + 2**-23, 1 - 2**-23, 100_001)
    torch.testing.assert_close(_erfinv(y), torch.erfinv(y), rtol=2e-6, atol=1e-6)


def test_without_its_packages_an_onnx_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *given: Any, **options: Any) -> Any:
        if name == "onnx":
            raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
        return real(name, *given, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(
        UsageError, match=r'^an ONNX file needs onnx, which is missing: pip install "seqdens\[onnx\]"\.$'
    ):
        export_onnx(model("stacked-lstm"), tmp_path / "step.onnx")
    assert not [*tmp_path.iterdir()]


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bias is -1, but must be at least 0"):
        SamplingStep(model("stacked-lstm"), -1)
    pytest.importorskip("onnxscript")
    with pytest.raises(UsageError, match=r"the model is torch\.float64 on cpu, but must be float32 on cpu"):
        export_onnx(model("stacked-lstm").double(), tmp_path / "step.onnx")


class Grows(Memoryless):
    """An encoder whose state is longer after every step."""

    def forward(self, inputs: Any, lengths: Any, state: Any, context: Any = None) -> seqdens.Encoded:
        encoded = super().forward(inputs, lengths, state, context)
        return encoded._replace(state={"one": torch.cat([state["one"], state["one"]], dim=1)})


class Asks(Memoryless):
    """An encoder that looks at numbers, which a graph does not have."""

    def forward(self, inputs: Any, lengths: Any, state: Any, context: Any = None) -> seqdens.Encoded:
        return super().forward(inputs if inputs.sum() > 0 else -inputs, lengths, state, context)


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        (Grows, r"changes the size of its state 'one' from \(2, 1\) to \(2, 2\), but can be exported only if"),
        (Asks, r"a step of encoder 'asks' and head 'gmm-bernoulli' cannot be exported: \w+: "),
    ],
)
def test_an_encoder_that_cannot_be_exported_is_refused(
    encoder: type, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(components, "_registered", [])
    seqdens.register("encoders", encoder.__name__.lower(), encoder)
    parts = seqdens.encoder(encoder.__name__.lower()), seqdens.head("gmm-bernoulli")
    with pytest.raises(UsageError, match=said):
        exported_step(seqdens.SequenceModel((seqdens.X,), *parts, mean=[0], std=[1]))
