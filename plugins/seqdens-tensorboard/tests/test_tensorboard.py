"""What a run leaves in TensorBoard's event files, read back by TensorBoard; runs that go on, fail or cannot write."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seqdens

pytest.importorskip("tensorboard", reason="tensorboard is not installed")

from seqdens_tensorboard import TensorBoard
from seqdens_tensorboard.listener import tag
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

STEPS = 2  # of an epoch

Train = Callable[..., seqdens.Run]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Call for a run as `seqdens run` would carry it out, with this package installed alone."""
    monkeypatch.setenv("SEQDENS_PLUGINS", "seqdens-tensorboard")
    # Files of one second are read in the order of this number, as text.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(100))
    data = seqdens.load("hershey", lines=20, writers=8, cache=tmp_path / "cache")

    def carry_out(epochs: int, resume: bool = False, fails: bool = False) -> seqdens.Run:
        run = seqdens.Run(tmp_path / "run", {"experiment": "small", "training": {"epochs": epochs}})
        head = seqdens.head("gmm-bernoulli", components=2)
        model = seqdens.SequenceModel.for_data(data, seqdens.encoder("memoryless"), head)
        trainer = seqdens.Trainer(epochs=epochs, optimiser="adam", batch_size=8, device="cpu")
        run.write_config()
        events = seqdens.load_events()
        events.run_started(run=run)
        history = trainer.fit(model, data, run=run, resume=resume, events=events)
        if fails:
            events.run_failed(run=run, error=KeyboardInterrupt())
            return run
        seqdens.draw(model.sample(1, steps=5), run.path / "samples.png")
        seqdens.draw(model.sample(1, steps=5), run.path / "samples.svg")
        events.samples_drawn(run=run, paths=[run.path / "samples.svg", run.path / "samples.png"])
        events.run_finished(run=run, metrics=history[-1])
        return run

    return carry_out


def read(run: seqdens.Run) -> EventAccumulator:
    return EventAccumulator(str(run.path / "tensorboard"), {"tensors": 0, "images": 0, "scalars": 0}).Reload()


def steps(events: EventAccumulator, name: str) -> list[int]:
    return [event.step for event in events.Scalars(name)]


def configs(events: EventAccumulator) -> dict[int, str]:
    return {event.step: event.tensor_proto.string_val[0].decode() for event in events.Tensors("config/text_summary")}


def test_every_metric_of_every_epoch_is_there(train: Train) -> None:
    run = train(epochs=2)
    events = read(run)
    for row in run.read_metrics():
        for name, value in row.items():
            if name in ("epoch", "step"):
                continue
            written = {event.step: event.value for event in events.Scalars(tag(name))}
            assert written[int(row["step"])] == pytest.approx(value, rel=1e-6)
    assert steps(events, "nats_per_point/valid") == steps(events, "nats_per_point/train") == [STEPS, 2 * STEPS]


def test_every_step_is_there(train: Train) -> None:
    events = read(train(epochs=2))
    for name in ("train_nats_per_point", "train_nats_per_record", "points_per_second"):
        assert steps(events, f"step/{name}") == [1, 2, 3, 4]
        assert all(np.isfinite(event.value) for event in events.Scalars(f"step/{name}"))
    assert all(event.value > 0 for event in events.Scalars("step/points_per_second"))


def test_the_samples_are_the_picture(train: Train, tmp_path: Path) -> None:
    from PIL import Image

    run = train(epochs=1)
    (event,) = read(run).Images("samples")
    (tmp_path / "copy.png").write_bytes(event.encoded_image_string)
    with Image.open(tmp_path / "copy.png") as copy, Image.open(run.path / "samples.png") as picture:
        assert event.step == STEPS
        np.testing.assert_array_equal(np.asarray(copy), np.asarray(picture.convert("RGB")))


def test_the_configuration_is_there(train: Train) -> None:
    run = train(epochs=1)
    text = configs(read(run))[0]
    assert [line.removeprefix("    ") for line in text.splitlines()] == run.config_file.read_text().splitlines()


def test_a_run_that_goes_on_continues_its_steps(train: Train) -> None:
    train(epochs=1)
    events = read(train(epochs=3, resume=True))
    assert steps(events, "step/train_nats_per_point") == [1, 2, 3, 4, 5, 6]
    assert steps(events, "nats_per_point/valid") == [2, 4, 6]
    assert [event.step for event in events.Images("samples")] == [2, 6]
    assert {step: text.splitlines()[-1].strip() for step, text in configs(events).items()} == {
        0: "epochs = 1",
        2: "epochs = 3",
    }


def test_a_run_that_has_nothing_left_to_train_loses_nothing(train: Train) -> None:
    train(epochs=1)
    events = read(train(epochs=1, resume=True))
    assert steps(events, "step/train_nats_per_point") == [1, 2]
    assert steps(events, "nats_per_point/valid") == [2]


def test_steps_that_were_lost_with_a_killed_run_are_void(train: Train) -> None:
    killed, run = TensorBoard(), train(epochs=1)
    told = {"train_nats_per_point": 9.0, "train_nats_per_record": 9.0, "points_per_second": 9.0}
    for step in (3, 4, 5):
        killed.metrics_logged(run=run, step=step, metrics=told)
    killed.run_failed()
    assert steps(read(run), "step/train_nats_per_point") == [1, 2, 3, 4, 5]
    events = read(train(epochs=2, resume=True))
    assert steps(events, "step/train_nats_per_point") == [1, 2, 3, 4]
    assert all(event.value != 9 for event in events.Scalars("step/train_nats_per_point"))


def test_a_run_that_starts_anew_replaces_what_was_there(train: Train, tmp_path: Path) -> None:
    first = train(epochs=2)
    (first.path / "tensorboard" / "notes.txt").write_text("kept")
    for path in (first.trainer_state, first.best, first.last, first.metrics):
        path.unlink()
    run = train(epochs=1)
    assert steps(read(run), "step/train_nats_per_point") == [1, 2]
    assert len(list((run.path / "tensorboard").glob("events.*"))) == 1
    assert (run.path / "tensorboard" / "notes.txt").exists()


def test_what_was_told_before_a_failure_is_there(train: Train) -> None:
    events = read(train(epochs=1, fails=True))
    assert steps(events, "step/train_nats_per_point") == [1, 2]
    assert "samples" not in events.Tags()["images"]


def test_a_failure_before_the_first_step_leaves_nothing(tmp_path: Path) -> None:
    run, listener = seqdens.Run(tmp_path), TensorBoard()
    listener.run_started(run=run)
    listener.run_failed()
    assert list(tmp_path.iterdir()) == []


def test_each_epoch_is_on_the_disk_when_it_ends(train: Train, tmp_path: Path) -> None:
    listener, run = TensorBoard(), seqdens.Run(tmp_path / "other")
    listener.epoch_finished(run=run, metrics={"epoch": 1.0, "step": 7.0, "train_nats_per_point": 2.5})
    assert [(event.step, event.value) for event in read(run).Scalars("nats_per_point/train")] == [(7, 2.5)]
    listener.run_finished()


def test_a_folder_that_cannot_be_written_breaks_no_run(train: Train, tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("a file is in the way")
    assert len(train(epochs=2).read_metrics()) == 2
    told = capfd.readouterr().err
    assert told.startswith("Warning: 'tensorboard' of hooks (seqdens-tensorboard 0.1.0) failed at metrics_logged: ")
    assert told.count("Warning") == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of TensorBoard's own thread
def test_a_disk_that_fills_up_breaks_no_run(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    def full(self: Any, event: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", full)
    assert len(train(epochs=2).read_metrics()) == 2
    assert "'tensorboard' of hooks (seqdens-tensorboard 0.1.0) failed at " in capfd.readouterr().err


def test_a_training_without_a_run_folder_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    listener = TensorBoard()
    listener.metrics_logged(run=None, step=1, metrics={})
    listener.epoch_finished(run=None, metrics={})
    listener.run_finished()
    assert list(tmp_path.iterdir()) == []


def test_tags_put_training_and_validation_side_by_side() -> None:
    assert [tag(f"{split}_nats_per_point") for split in ("train", "valid")] == [
        "nats_per_point/train",
        "nats_per_point/valid",
    ]
    assert tag("valid_stroke_end_nats_per_point") == "stroke_end_nats_per_point/valid"
    assert tag("seconds") == "speed/seconds"
