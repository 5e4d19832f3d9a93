"""The file of a model's weights: what reads back, and what is refused without being run."""

import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

import seqdens
from seqdens import components
from seqdens.encoders.base import Encoded, Encoder
from seqdens.errors import DataError
from seqdens.model import SequenceModel


def test_a_run_folder_stands_for_its_best_weights(model: SequenceModel, tmp_path: Path) -> None:
    model.save(tmp_path / "run" / "best.safetensors")
    assert SequenceModel.load(tmp_path / "run").columns == model.columns


@pytest.mark.parametrize("place", ["nowhere.safetensors", "."])
def test_missing_weights_are_said_to_be_missing(tmp_path: Path, place: str) -> None:
    with pytest.raises(DataError, match=r"there are no weights at .*safetensors; a run writes"):
        SequenceModel.load(tmp_path / place)


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_a_pickle_is_not_unpickled(tmp_path: Path) -> None:
    path, mark = tmp_path / "best.safetensors", tmp_path / "exploded"
    for write in (lambda: path.write_bytes(pickle.dumps(Bomb(mark))), lambda: torch.save({"a": Bomb(mark)}, path)):
        write()
        with pytest.raises(DataError, match="is no seqdens model"):
            SequenceModel.load(path)
        assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()


def test_a_file_cut_short_is_refused(model: SequenceModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model.save(path)
    whole = path.read_bytes()
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="is no seqdens model"):
            SequenceModel.load(path)


def rewritten(path: Path, **changes: Any) -> None:
    """Change the description in a weights file, keeping its weights."""
    with safetensors.safe_open(path, "pt") as file:
        described = json.loads(file.metadata()["seqdens"]) | changes
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    safetensors.torch.save_file(weights, path, {"seqdens": json.dumps(described)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "else"}, "is no seqdens model: its description has no format 'seqdens-model'"),
        ({"version": 99}, "has model format 99, this seqdens reads 1"),
        ({"columns": [["x", "real"]]}, "does not hold the model that it describes"),
        ({"columns": 3}, "does not hold the model that it describes"),
        ({"columns": [["x", "real", 1, "", True], ["ends", "benary", 1, "", False]]}, r"describes .*'benary' - at "),
        ({"mean": [1.0]}, "does not hold the model that it describes"),
        ({"encoder": None}, "does not hold the model that it describes"),
        ({"encoder": {"provider": "someone", "options": {}}}, "does not hold the model that it describes"),
        (
            {"encoder": {"provider": "seqdens", "options": {"name": "stacked-lstm", "hidden_size": 9}}},
            "does not hold the model that it describes .*size mismatch",
        ),
        (
            {"encoder": {"provider": "seqdens", "options": {"name": "stacked-lstm", "hidden_size": 0}}},
            "does not hold the model that it describes .*hidden_size",
        ),
        (
            {"encoder": {"provider": "nice-lstm 1.4", "options": {"name": "nice"}}},
            "needs the encoder 'nice' of nice-lstm 1.4: there is no 'nice' among the encoders",
        ),
        (
            {"head": {"provider": "seqdens 9", "options": {"name": "gmm-bernoulli", "newer": 1}}},
            "needs the head 'gmm-bernoulli' of seqdens 9: .* has no option 'newer'",
        ),
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    model: SequenceModel, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "model.safetensors"
    model.save(path)
    rewritten(path, **changes)
    with pytest.raises(DataError, match=message):
        SequenceModel.load(path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(model: SequenceModel, tmp_path: Path, value: float) -> None:
    path = tmp_path / "model.safetensors"
    with torch.no_grad():
        next(model.head.parameters())[-1] = value
    model.save(path)
    with pytest.raises(DataError, match=r"does not hold the model that it describes .*its head\.\S+ is not finite"):
        SequenceModel.load(path)


@pytest.mark.parametrize("metadata", [None, {}, {"other": "1"}, {"seqdens": "no JSON"}, {"seqdens": "[]"}])
def test_safetensors_of_others_are_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path, metadata)
    with pytest.raises(DataError, match="is no seqdens model"):
        SequenceModel.load(path)


class Tied(Encoder):
    """Two names for one weight."""

    def __init__(self, input_size: int, context_size: int = 0) -> None:
        super().__init__()
        self.output_size = input_size
        self.one = nn.Linear(input_size, input_size)
        self.two = nn.Linear(input_size, input_size)
        self.two.weight = self.one.weight

    def start(self, batch_size: int, context: Any = None) -> dict[str, torch.Tensor]:
        return {"nothing": torch.zeros(batch_size, 1)}

    def forward(self, inputs: Any, lengths: Any, state: Any, context: Any = None) -> Encoded:
        return Encoded(self.two(self.one(inputs).tanh()), state, {})


def test_a_plugin_s_model_with_tied_weights_is_saved_and_missed_by_name(
    make: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(components, "_registered", [])
    seqdens.register("encoders", "tied", Tied)
    model = SequenceModel.for_data(make(), seqdens.encoder("tied"), seqdens.head("gmm-bernoulli", components=2))
    path = tmp_path / "model.safetensors"
    model.save(path)
    loaded = SequenceModel.load(path)
    np.testing.assert_allclose(loaded.sample(steps=3, seed=0), model.sample(steps=3, seed=0), rtol=1e-3)
    components._registered.clear()
    with pytest.raises(DataError, match="needs the encoder 'tied' of registered in code by"):
        SequenceModel.load(path)


def test_a_failing_save_keeps_the_old_file(model: SequenceModel, tmp_path: Path, fill_disk: Callable[[], None]) -> None:
    path = tmp_path / "model.safetensors"
    model.save(path)
    before = path.read_bytes()
    fill_disk()
    with pytest.raises(DataError, match="No space left on device"):
        model.save(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.glob("*model*")] == ["model.safetensors"]
    assert not list(tmp_path.glob(".*"))
