"""The experiments in a small form, from files to samples."""

import math
from pathlib import Path

import numpy as np
import pytest
from seqdens_timeseries.experiments import TRAJECTORIES

import seqdens
from seqdens.testing import ExperimentContract

RHYME = "Row, row, row your boat, gently down the stream.\n"
COLUMNS = {"difference": ("x", "y"), "real": ("speed",), "category": {"gear": 4}}


def write_tracks(path: Path, tracks: int = 40, missing: float = 0.1) -> None:
    """Vehicles that drive on and turn: positions, a speed that is not always known, a gear."""
    rng = np.random.default_rng(0)
    lines = ["id,x,y,speed,gear"]
    for track in range(tracks):
        steps = rng.integers(10, 20)
        speed = np.abs(5 + rng.normal(0, 0.5, steps).cumsum())
        heading = rng.normal(0, 0.3, steps).cumsum()
        place = np.stack([speed * np.cos(heading), speed * np.sin(heading)]).cumsum(axis=1)
        known = rng.random(steps) >= missing
        for x, y, v, said in zip(*place, speed, known, strict=True):
            lines.append(f"{track},{x:.2f},{y:.2f},{f'{v:.2f}' if said else ''},{min(3, int(v / 3))}")
    path.write_text("\n".join(lines) + "\n")


class TestTrajectories(ExperimentContract):
    experiment = "trajectories"
    settings = (
        'dataset.real=["speed"]',
        "dataset.category={gear = 4}",
        "dataset.end=true",
        "encoder.hidden_size=8",
        "head.components=2",
        "sampling.steps=20",
    )

    def make_files(self, root: Path) -> None:
        write_tracks(root / "tracks.csv")


def test_the_quick_preset_takes_hundreds_of_steps_on_a_hundred_tracks() -> None:
    training = TRAJECTORIES.presets["quick"]["training"]
    assert 80 // training["batch_size"] * training["epochs"] >= 500
    assert 0 < training["patience"] < training["epochs"]


class TestCharacters(ExperimentContract):
    experiment = "characters"
    settings = ("dataset.length=40", "encoder.hidden_size=16", "sampling.steps=20")

    def make_files(self, root: Path) -> None:
        (root / "rhyme.txt").write_text(RHYME * 60)

    def test_a_small_run_learns_and_draws(self, root: Path | None, tmp_path: Path) -> None:
        super().test_a_small_run_learns_and_draws(root, tmp_path)
        assert (tmp_path / "run" / "samples.txt").read_text(encoding="utf-8").startswith("----- sample 1 -----\n")


@pytest.mark.parametrize("name", ["table", "text"])
def test_without_files_the_error_says_what_is_wanted(name: str) -> None:
    with pytest.raises(seqdens.UsageError, match=rf"{name} needs --data DIR \(in Python, root=DIR\): a "):
        seqdens.dataset(name).build(None)


def test_a_model_of_text_alone_is_measured_in_bits(tmp_path: Path) -> None:
    (tmp_path / "rhyme.txt").write_text(RHYME * 300)
    data = seqdens.load("text", root=tmp_path, length=40)
    encoder, head = seqdens.encoder("stacked-lstm", hidden_size=8, layers=1), seqdens.head("categorical")
    measures = seqdens.measure(seqdens.SequenceModel.for_data(data, encoder, head), data)
    assert measures.nats_per_point == pytest.approx(math.log(256), abs=0.5)
    assert measures.bits_per_point == pytest.approx(measures.nats_per_point / math.log(2))
    assert measures.raw_nats_per_point == measures.nats_per_point
    assert measures.sse_per_point == {}


@pytest.mark.parametrize("missing", [0.0, 0.1, 1.0])
def test_a_model_is_trained_and_measured_whatever_is_missing(tmp_path: Path, missing: float) -> None:
    write_tracks(tmp_path / "tracks.csv", missing=missing)
    data = seqdens.load("table", root=tmp_path, **COLUMNS)
    encoder, head = seqdens.encoder("stacked-lstm", hidden_size=8, layers=1), seqdens.head("gmm", components=2)
    model = seqdens.SequenceModel.for_data(data, encoder, head)
    before = seqdens.measure(model, data, "train")
    seqdens.Trainer(epochs=2, optimiser="adam", learning_rate=0.01, batch_size=8, device="cpu").fit(model, data)
    after = seqdens.measure(model, data, "train")
    assert after.nats_per_point < before.nats_per_point
    assert math.isfinite(after.sse_per_point["mean"])
    assert after.bits_per_point is None
    drawn = np.concatenate(model.sample(4, steps=10, seed=0))
    assert np.isfinite(drawn).all()
    assert set(drawn[:, 3]) <= {0.0, 1.0, 2.0, 3.0}
