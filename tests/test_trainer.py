"""Training: what a step does, when it stops, what it saves, and that a resumed run is the run."""

import copy
import csv
import os
import re
import signal
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqdens import interrupts
from seqdens.batches import collate, evaluation_batches
from seqdens.errors import DataError, UsageError
from seqdens.evaluation import Likelihood, evaluate
from seqdens.model import SequenceModel
from seqdens.optim import make_optimiser
from seqdens.training import trainer as module
from seqdens.training.run_folder import Run, read_config
from seqdens.training.trainer import Trainer, _Fit

pytestmark = pytest.mark.usefixtures("_heed_interrupts")

TIMES = ("seconds", "points_per_second")
BATCHES = 5  # an epoch, of ten records


class Listener:
    """Remembers the events; `act(step)` is called after each step, `finish(epoch)` after each epoch."""

    def __init__(self, act: Callable[[int], Any] = id, finish: Callable[[int], Any] = id) -> None:
        self.act, self.finish = act, finish
        self.told: list[tuple[str, int]] = []
        self.metrics: list[dict[str, float]] = []

    def metrics_logged(self, *, run: Any, step: int, metrics: dict[str, float]) -> None:
        self.told.append(("step", step))
        self.metrics.append(metrics)
        self.act(step)

    def epoch_finished(self, *, run: Any, metrics: dict[str, float]) -> None:
        self.told.append(("epoch", int(metrics["epoch"])))
        self.finish(int(metrics["epoch"]))


def on(step: int, action: Callable[[], Any]) -> Callable[[int], Any]:
    return lambda now: action() if now == step else None


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def trainer(**options: Any) -> Trainer:
    return Trainer(**({"epochs": 4, "batch_size": 2, "device": "cpu", "precision": "float32"} | options))


def weights(model: SequenceModel) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def assert_equal(one: Any, other: Any) -> None:
    """Nested data of equal tensors and numbers, bit for bit."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one.keys() - set(TIMES):
            assert_equal(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_equal(*pair)
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def timeless(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in history]


def timeless_rows(run: Run) -> list[dict[str, str]]:
    with run.metrics.open(newline="") as file:
        return [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)]


# Resuming


def assert_same_run(one: Run, other: Run, models: tuple[SequenceModel, SequenceModel]) -> None:
    assert_equal(*(torch.load(run.trainer_state, weights_only=True) for run in (one, other)))
    assert_equal(*(weights(model) for model in models))
    assert timeless_rows(one) == timeless_rows(other)
    assert one.last.read_bytes() == other.last.read_bytes()
    assert one.best.read_bytes() == other.best.read_bytes()


@pytest.mark.parametrize("optimiser", ["graves-rmsprop", "adam"])
@pytest.mark.parametrize("stop", [1, 8, 10, 19, 20])
def test_an_interrupted_run_resumes_bit_for_bit(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path, optimiser: str, stop: int
) -> None:
    data = make()
    training = trainer(optimiser=optimiser, learning_rate=1e-2, decay=0.6, seed=3)
    whole, halved = Run(tmp_path / "whole"), Run(tmp_path / "halved")
    straight = small(data)
    history = training.fit(straight, data, run=whole)
    listener = Listener(on(stop, interrupt))
    with pytest.raises(KeyboardInterrupt):
        training.fit(small(data), data, run=halved, events=listener)
    assert listener.told[-1] == ("step", stop)
    resumed, again = small(data, seed=99), Listener()
    assert_equal(training.fit(resumed, data, run=halved, resume=True, events=again), history)
    assert [what for what in listener.told + again.told if what[0] == "step"] == [("step", n) for n in range(1, 21)]
    assert_same_run(whole, halved, (straight, resumed))


def test_a_finished_run_goes_on_with_more_epochs(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path
) -> None:
    data = make()
    whole, halved = Run(tmp_path / "whole"), Run(tmp_path / "halved")
    straight = small(data)
    trainer(epochs=4).fit(straight, data, run=whole)
    trainer(epochs=2).fit(small(data), data, run=halved)
    resumed = small(data, seed=99)
    trainer(epochs=4).fit(resumed, data, run=halved, resume=True)
    assert_same_run(whole, halved, (straight, resumed))


def test_a_finished_run_has_nothing_left_to_do(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path
) -> None:
    data, run = make(), Run(tmp_path)
    model, again = small(data), small(data, seed=99)
    history = trainer(epochs=2).fit(model, data, run=run)
    before = run.trainer_state.read_bytes()
    listener = Listener()
    assert trainer(epochs=2).fit(again, data, run=run, resume=True, events=listener) == history
    assert (listener.told, run.trainer_state.read_bytes()) == ([], before)
    assert_equal(weights(again), weights(model))


def test_fewer_epochs_than_are_done_are_refused(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path
) -> None:
    data, run = make(), Run(tmp_path)
    trainer(epochs=2).fit(small(data), data, run=run)
    before = run.trainer_state.read_bytes()
    with pytest.raises(UsageError, match=r"has begun epoch 2 already; training\.epochs is 1, but must be at least 2"):
        trainer(epochs=1).fit(small(data), data, run=run, resume=True)
    assert run.trainer_state.read_bytes() == before


def test_a_run_is_neither_begun_anew_by_chance_nor_used_by_two(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path
) -> None:
    data, run = make(), Run(str(tmp_path))
    trainer(epochs=1).fit(small(data), data, run=run)
    state = run.trainer_state.read_bytes()
    with pytest.raises(UsageError, match=r"already holds a run; go on with it by resume=True, or use another folder"):
        trainer(epochs=1).fit(small(data), data, run=run)
    with Run(tmp_path).opened(resume=True), pytest.raises(UsageError, match="another run is using it"):
        trainer(epochs=2).fit(small(data), data, run=run, resume=True)
    assert run.trainer_state.read_bytes() == state
    with run.opened(resume=True):
        assert len(trainer(epochs=2).fit(small(data), data, run=run, resume=True)) == 2


def test_resuming_nothing_starts(make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path) -> None:
    data = make()
    assert len(trainer(epochs=2).fit(small(data), data, run=Run(tmp_path), resume=True)) == 2


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"optimiser": "adam"}, "another setting (optimiser"),
        ({"batch_size": 3}, "another setting (batch size"),
        ({"seed": 1}, "another setting (seed"),
        ({"accumulate": 2}, "another setting (accumulate 1, now 2)"),
    ],
)
def test_what_would_make_it_another_run_cannot_be_resumed(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path, options: dict[str, Any], what: str
) -> None:
    data, run = make(), Run(tmp_path, {"training": {"epochs": 1}})
    run.start()
    trainer(epochs=1).fit(small(data), data, run=run)
    other = Run(tmp_path, {"training": {"epochs": 2}})
    with pytest.raises(UsageError, match=re.escape(what)):
        trainer(epochs=2, **options).fit(small(data), data, run=other, resume=True)
    assert read_config(run.config_file) == run.config
    trainer(epochs=2).fit(small(data), data, run=other, resume=True)
    assert read_config(run.config_file) == other.config


def test_another_data_set_cannot_be_resumed(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path
) -> None:
    data, other = make(), make(seed=1)
    trainer(epochs=1).fit(small(data), data, run=Run(tmp_path))
    with pytest.raises(UsageError, match=r"another setting \(scaling of the data \["):
        trainer(epochs=2).fit(small(other), other, run=Run(tmp_path), resume=True)


# Stopping


def test_ctrl_c_lets_the_step_finish_and_saves(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path
) -> None:
    data, run = make(), Run(tmp_path)
    model, listener = small(data), Listener(on(7, interrupt))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer().fit(model, data, run=run, events=listener)
    assert listener.told[-1] == ("step", 7)
    assert signal.getsignal(signal.SIGINT) is before
    assert torch.load(run.trainer_state, weights_only=True)["progress"]["step"] == 7
    assert_equal(weights(SequenceModel.load(run.last)), weights(model))
    assert len(run.read_metrics()) == 1


def test_an_interrupt_after_the_last_step_was_looked_at_is_heeded(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run, look = make(), Run(tmp_path), _Fit._stop_if

    def look_too_early(fit: _Fit, asked: Any) -> None:
        look(fit, asked)
        if fit.progress.epoch == 1:
            interrupt()

    monkeypatch.setattr(_Fit, "_stop_if", look_too_early)
    with pytest.raises(KeyboardInterrupt):
        trainer(epochs=1).fit(small(data), data, run=run)
    assert len(run.read_metrics()) == 1


def test_a_second_ctrl_c_stops_at_once(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interrupts, "SAME", 0.0)
    data, run = make(), Run(tmp_path)
    reached: list[str] = []

    def twice() -> None:
        interrupt()
        reached.append("after the first")
        interrupt()
        reached.append("after the second")

    with pytest.raises(KeyboardInterrupt):
        trainer().fit(small(data), data, run=run, events=Listener(on(7, twice)))
    assert reached == ["after the first"]
    assert torch.load(run.trainer_state, weights_only=True)["progress"]["step"] == BATCHES


def test_ctrl_c_during_validation_resumes_with_validation(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = make(), Run(tmp_path)
    straight = small(data)
    history = trainer(epochs=1).fit(straight, data)
    seen = []

    def interrupting(*arguments: Any) -> Any:
        for batch in evaluation_batches(*arguments):
            seen.append(batch)
            interrupt()
            yield batch

    monkeypatch.setattr(module, "evaluation_batches", interrupting)
    with pytest.raises(KeyboardInterrupt):
        trainer(epochs=1).fit(small(data), data, run=run)
    assert len(seen) == 1
    assert run.read_metrics() == []
    monkeypatch.setattr(module, "evaluation_batches", evaluation_batches)
    listener, resumed = Listener(), small(data, seed=99)
    assert_equal(trainer(epochs=1).fit(resumed, data, run=run, resume=True, events=listener), history)
    assert listener.told == [("epoch", 1)]
    assert_equal(weights(resumed), weights(straight))


def test_training_works_in_another_thread(make: Callable[..., Any], small: Callable[..., Any]) -> None:
    data, histories = make(), []
    thread = threading.Thread(target=lambda: histories.append(trainer(epochs=1).fit(small(data), data)))
    thread.start()
    thread.join()
    assert len(histories[0]) == 1


def script_validation(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Let validation give these losses, an epoch each."""
    script = iter(losses)
    monkeypatch.setattr(module, "evaluate", lambda model, batches: Likelihood(next(script), 1, 1))


def test_the_best_weights_are_those_of_the_best_validation(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = make(), Run(tmp_path)
    model, by_epoch = small(data), {}
    script_validation(monkeypatch, [3.0, 1.0, 2.0, 1.0])
    listener = Listener(finish=lambda epoch: by_epoch.setdefault(epoch, weights(model)))
    trainer().fit(model, data, run=run, events=listener)
    assert not torch.equal(by_epoch[2][0], by_epoch[4][0])
    assert_equal(weights(model), by_epoch[2])
    assert_equal(weights(SequenceModel.load(run.best)), by_epoch[2])
    assert_equal(weights(SequenceModel.load(run.last)), by_epoch[4])


@pytest.mark.parametrize(
    ("patience", "losses", "epochs"),
    [(2, [3.0, 1.0, 2.0, 1.5, 0.0], 4), (1, [3.0, 3.0, 1.0], 2), (3, [3, 4, 4, 2, 4, 4, 4, 1], 7), (0, [1, 2, 3], 3)],
)
def test_training_stops_once_patience_is_lost(
    make: Callable[..., Any],
    small: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    patience: int,
    losses: list[float],
    epochs: int,
) -> None:
    data, run = make(), Run(tmp_path)
    script_validation(monkeypatch, losses)
    training = trainer(epochs=len(losses), patience=patience)
    history = training.fit(small(data), data, run=run)
    assert len(history) == epochs
    assert len(training.fit(small(data), data, run=run, resume=True)) == epochs


# Steps that are skipped


def poison(model: SequenceModel, *records: int, of: str = "loss") -> SequenceModel:
    """`model`, whose loss, or whose gradients alone, are not finite for batches that hold one of `records`."""
    seen: list[bool] = []

    def spoil(module: Any, inputs: Any, loss: Any) -> Any:
        seen.append(bool(set(inputs[0].records.tolist()) & set(records)))
        return loss._replace(nats=loss.nats + torch.inf) if seen[-1] and of == "loss" else loss

    model.register_forward_hook(spoil)
    if of == "gradient":
        model.head.output.bias.register_hook(lambda gradient: gradient / 0 if seen[-1] else gradient)
    return model


@pytest.mark.parametrize("of", ["loss", "gradient"])
@pytest.mark.parametrize("optimiser", ["graves-rmsprop", "adam"])
def test_a_step_that_is_not_finite_leaves_weights_and_optimiser_alone_and_is_counted(
    make: Callable[..., Any],
    small: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    optimiser: str,
    of: str,
) -> None:
    data, states, made = make(), [], []
    model, run = poison(small(data), 4, of=of), Run(tmp_path)
    monkeypatch.setattr(module, "make_optimiser", lambda *given: made.append(make_optimiser(*given)) or made[-1])
    listener = Listener(lambda step: states.append(copy.deepcopy([weights(model), made[-1].state_dict()["state"]])))
    history = trainer(epochs=2, optimiser=optimiser).fit(model, data, run=run, events=listener)
    kept = [step for step in range(1, 10) if torch.equal(states[step][0][0], states[step - 1][0][0])]
    assert len(kept) == 2
    for step in kept:
        assert_equal(states[step], states[step - 1])
    assert [row["skipped_steps"] for row in history] == [1, 1]
    assert [row["step"] for row in history] == [5, 10]
    assert run.read_metrics() == history
    assert not run.skipped.exists()
    counts = np.array([metrics["skipped_steps"] for metrics in listener.metrics])
    assert list(np.flatnonzero(np.diff(counts, prepend=0) == 1)) == kept


def test_the_training_loss_is_of_the_steps_that_were_taken(make: Callable[..., Any], small: Callable[..., Any]) -> None:
    data, listener = make(), Listener()
    history = trainer(epochs=1).fit(poison(small(data), 4), data, events=listener)
    told = [metrics["train_nats_per_record"] for metrics in listener.metrics]
    taken = [nats for nats in told if np.isfinite(nats)]
    assert (len(told), len(taken)) == (5, 4)
    assert history[0]["train_nats_per_record"] == pytest.approx(np.mean(taken))


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_a_run_with_skipped_steps_resumes_bit_for_bit(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path, stop: int
) -> None:
    data, training = make(), trainer(epochs=2, optimiser="adam")
    whole, halved = Run(tmp_path / "whole"), Run(tmp_path / "halved")
    straight = poison(small(data), 2, 4)
    history = training.fit(straight, data, run=whole)
    with pytest.raises(KeyboardInterrupt):
        training.fit(poison(small(data), 2, 4), data, run=halved, events=Listener(on(stop, interrupt)))
    resumed = poison(small(data, seed=99), 2, 4)
    assert_equal(training.fit(resumed, data, run=halved, resume=True), history)
    assert sum(row["skipped_steps"] for row in history) >= 2
    assert_same_run(whole, halved, (straight, resumed))


def test_a_state_of_before_steps_were_skipped_or_made_of_several_batches_is_resumed(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path
) -> None:
    data, run = make(), Run(tmp_path)
    trainer(epochs=1).fit(small(data), data, run=run)
    state = torch.load(run.trainer_state, weights_only=True)
    for name in ("skipped", "skipped_in_a_row"):
        del state["progress"][name]
    del state["progress"]["history"][0]["skipped_steps"], state["identity"]["accumulate"]
    torch.save(state, run.trainer_state)
    trainer(epochs=2).fit(small(data), data, run=run, resume=True)
    assert [row["skipped_steps"] for row in run.read_metrics()] == [0, 0]


def ids(run: Run) -> list[list[str]]:
    with run.skipped.open(newline="") as file:
        return list(csv.reader(file))


def test_steps_skipped_in_a_row_end_the_run_and_their_records_are_listed(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path
) -> None:
    data, run = make(), Run(tmp_path / "run")
    kept: dict[str, bytes] = {}
    model, seen = small(data), list[list[int]]()
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].records.tolist()))
    model.head.output.bias.register_hook(lambda gradient: gradient * (np.nan if len(seen) > BATCHES + 3 else 1))
    listener = Listener(
        finish=lambda epoch: kept.update({each.name: each.read_bytes() for each in run.path.glob("[!.]*")})
    )
    listed = f"look at the records of their batches, listed in {run.skipped}."
    with pytest.raises(
        DataError, match=r"steps 7 to 9 were all skipped \(training\.max_skipped is 3\), .* gradient of nan"
    ) as error:
        trainer(max_skipped=3).fit(model, data, run=run, events=listener)
    assert str(error.value).endswith(listed)
    names = [[f"train-{record}" for record in batch] for batch in seen[-3:]]
    assert ids(run) == [["step", "record"], *([str(7 + at), name] for at in range(3) for name in names[at])]
    assert set(kept) == {"best.safetensors", "last.safetensors", "metrics.csv", "trainer.pt"}
    assert {path.name: path.read_bytes() for path in run.path.iterdir() if path != run.skipped} == kept
    assert listener.told[-1] == ("step", 8)
    left: list[bool] = []
    again = Listener(lambda step: left.append(run.skipped.exists()))
    assert len(trainer().fit(small(data), data, run=run, resume=True, events=again)) == 4
    assert left == [True] * BATCHES + [False] * (2 * BATCHES)  # the second epoch, in which it failed, and those after


def test_a_row_of_skipped_steps_goes_on_in_the_next_epoch_and_when_resumed(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path
) -> None:
    data, run = make(train=3, valid=1), Run(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        trainer(max_skipped=5).fit(poison(small(data), 0, 1, 2), data, run=run, events=Listener(on(3, interrupt)))
    before, model = weights(small(data)), poison(small(data, seed=9), 0, 1, 2)
    with pytest.raises(DataError, match="steps 1 to 5 were all skipped"):
        trainer(max_skipped=5).fit(model, data, run=run, resume=True)
    assert sorted({step for step, _ in ids(run)[1:]}) == list("12345")
    assert_equal(weights(model), before)
    assert np.isnan(run.read_metrics()[0]["train_nats_per_point"])


def test_without_a_run_the_records_are_not_listed(make: Callable[..., Any], small: Callable[..., Any]) -> None:
    data = make()
    with pytest.raises(DataError, match=r"were all skipped .*, or look at the records of their batches\.$"):
        trainer(max_skipped=1).fit(poison(small(data), 4), data)


def test_a_step_that_is_taken_ends_the_row(make: Callable[..., Any], small: Callable[..., Any]) -> None:
    data = make(train=4, valid=2)
    history = trainer(epochs=6, max_skipped=3).fit(poison(small(data), 0), data)
    assert [row["skipped_steps"] for row in history] == [1] * 6


def test_an_epoch_without_a_step_is_never_the_best(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path
) -> None:
    data, run = make(train=2), Run(tmp_path)
    history = trainer(epochs=3).fit(poison(small(data), 0), data, run=run)
    assert all(np.isnan(row["train_nats_per_point"]) for row in history)
    assert not run.best.exists()


def test_weights_are_never_saved_that_cannot_be_used(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path
) -> None:
    data, untested = make(), make(train=4)
    model = small(data)
    spoil = on(BATCHES, lambda: model.head.output.bias.data.fill_(float("nan")))
    with pytest.raises(DataError, match="the validation loss after 5 steps, 0 skipped in this epoch, is nan"):
        trainer().fit(model, data, run=Run(tmp_path), events=Listener(spoil))
    model = small(untested)
    spoil = on(2, lambda: model.head.output.bias.data.fill_(float("inf")))
    with pytest.raises(DataError, match="the largest weight after 2 steps, 0 skipped in this epoch, is inf"):
        trainer().fit(model, untested, run=Run(tmp_path), events=Listener(spoil))
    with pytest.raises(DataError, match=r"lower training\.learning_rate"):
        trainer(optimiser="sgd", learning_rate=1e30).fit(small(data), data, run=Run(tmp_path))
    assert not list(tmp_path.glob("*.safetensors"))


# A step


def test_the_gradient_is_the_sum_over_each_record_and_the_mean_over_records(
    make: Callable[..., Any], small: Callable[..., Any]
) -> None:
    data = make(train=3)
    model, reference = small(data), small(data)
    for record in range(3):
        (reference(collate(data, np.array([record]))).nats.sum() / 3).backward()
    trainer(epochs=1, batch_size=3, optimiser="sgd", learning_rate=1.0).fit(model, data)
    for mine, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs - theirs.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("train", "accumulate"), [(6, 3), (7, 4), (7, 9)])
@pytest.mark.parametrize("optimiser", ["sgd", "graves-rmsprop", "adam"])
def test_batches_of_one_step_are_as_one_batch_of_all_their_records(
    make: Callable[..., Any], small: Callable[..., Any], train: int, accumulate: int, optimiser: str
) -> None:
    data, models, histories = make(train=train), [], []
    for options in ({"batch_size": 2, "accumulate": accumulate}, {"batch_size": train}):
        models.append(small(data).double())
        training = trainer(epochs=3, optimiser=optimiser, learning_rate=0.01, **options)
        histories.append(timeless(training.fit(models[-1], data)))
    for mine, theirs in zip(*map(weights, models), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)
    for row, other in zip(*histories, strict=True):
        assert row == pytest.approx(other, rel=1e-9)
    assert not torch.equal(weights(models[0])[0], weights(small(data).double())[0])


def test_an_accumulated_step_is_one_step(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run, listener, rates = make(), Run(tmp_path), Listener(), []
    step = torch.optim.Adam.step

    def recorded(self: Any, *arguments: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", recorded)
    training = trainer(epochs=2, accumulate=2, optimiser="adam", learning_rate=0.6, decay=1.0)
    history = training.fit(small(data), data, run=run, events=listener)
    assert [row["step"] for row in history] == [3, 6]  # of 2, 2 and 1 batches
    assert listener.told == [
        *[("step", n) for n in (1, 2, 3)],
        ("epoch", 1),
        *[("step", n) for n in (4, 5, 6)],
        ("epoch", 2),
    ]
    assert {metrics["steps"] for metrics in listener.metrics} == {6}
    assert listener.metrics[-1]["seconds_left"] == 0
    np.testing.assert_allclose(rates, [0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_run_of_accumulated_steps_resumes_bit_for_bit(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path, stop: int
) -> None:
    data, training = make(), trainer(epochs=2, accumulate=2, optimiser="adam", learning_rate=1e-2, decay=0.6)
    whole, halved = Run(tmp_path / "whole"), Run(tmp_path / "halved")
    straight = small(data)
    history = training.fit(straight, data, run=whole)
    with pytest.raises(KeyboardInterrupt):
        training.fit(small(data), data, run=halved, events=Listener(on(stop, interrupt)))
    assert torch.load(halved.trainer_state, weights_only=True)["progress"]["batch"] == [2, 4, 5, 2][stop - 1]
    resumed = small(data, seed=99)
    assert_equal(training.fit(resumed, data, run=halved, resume=True), history)
    assert_same_run(whole, halved, (straight, resumed))


def test_an_accumulated_step_is_skipped_whole(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path
) -> None:
    data, run = make(), Run(tmp_path)
    model = poison(small(data), 4)
    before = weights(model)
    with pytest.raises(DataError, match="steps 1 to 1 were all skipped"):
        trainer(accumulate=5, max_skipped=1).fit(model, data, run=run)
    assert_equal(weights(model), before)
    assert sorted(ids(run)[1:]) == [["1", f"train-{record}"] for record in range(10)]


ENCODERS: list[dict[str, Any]] = [
    {"encoder": "stacked-lstm", "layers": 2},
    {"encoder": "window-lstm", "layers": 2, "window_components": 2},
]
each_encoder = pytest.mark.parametrize("options", ENCODERS, ids=lambda options: options["encoder"])


@each_encoder
def test_a_truncated_step_adds_up_the_gradients_of_its_pieces(
    make: Callable[..., Any], small: Callable[..., Any], options: dict[str, Any]
) -> None:
    data = make(train=6)
    model, reference = (small(data, **options).double() for _ in range(2))
    whole, batch = small(data, **options).double(), collate(data, np.arange(6))
    for piece in reference.pieces(batch, 5):
        (piece.nats.sum() / 6).backward()
    (whole(batch).nats.sum() / 6).backward()
    expected = [parameter - parameter.grad for parameter in reference.parameters()]
    history = trainer(epochs=1, truncate=5, batch_size=2, accumulate=3, optimiser="sgd", learning_rate=1.0).fit(
        model, data
    )
    for mine, theirs in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)
    assert history[0]["train_nats_per_record"] == pytest.approx(whole(batch).nats.sum().item() / 6, rel=1e-12)
    assert not torch.allclose(*(next(each.encoder.parameters()).grad for each in (reference, whole)))


@each_encoder
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_pieces_that_hold_whole_records_change_nothing(
    make: Callable[..., Any], small: Callable[..., Any], options: dict[str, Any], precision: str
) -> None:
    data, models = make(), []
    for truncate in (0, 12):
        models.append(small(data, **options))
        trainer(epochs=2, truncate=truncate, precision=precision).fit(models[-1], data)
    assert_equal(*map(weights, models))


@each_encoder
def test_a_truncated_run_learns_and_resumes_bit_for_bit(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path, options: dict[str, Any]
) -> None:
    data, training = make(), trainer(truncate=3, optimiser="adam", learning_rate=1e-2)
    whole, halved = Run(tmp_path / "whole"), Run(tmp_path / "halved")
    straight = small(data, **options)
    history = training.fit(straight, data, run=whole)
    with pytest.raises(KeyboardInterrupt):
        training.fit(small(data, **options), data, run=halved, events=Listener(on(7, interrupt)))
    resumed = small(data, seed=99, **options)
    assert_equal(training.fit(resumed, data, run=halved, resume=True), history)
    assert_same_run(whole, halved, (straight, resumed))
    assert history[-1]["train_nats_per_point"] < history[0]["train_nats_per_point"]


class Kept:
    """Bytes of tensors kept for gradients: `most` at a time."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def pack(self, tensor: torch.Tensor) -> list[Any]:
        size = tensor.numel() * tensor.element_size()
        self.now += size
        self.most = max(self.most, self.now)
        packed = _Packed([tensor])
        weakref.finalize(packed, self.free, size)
        return packed

    def free(self, size: int) -> None:
        self.now -= size


class _Packed(list[Any]):
    """A list that can be referred to weakly."""


@each_encoder
def test_pieces_bound_the_memory_for_gradients(
    make: Callable[..., Any], small: Callable[..., Any], options: dict[str, Any]
) -> None:
    data, most = make(train=2, longest=400), []
    assert data.lengths_of(data.split("train")).max() > 200
    for truncate in (0, 20):
        kept = Kept()
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda packed: packed[0]):
            trainer(epochs=1, truncate=truncate).fit(small(data, **options), data)
        assert kept.now == 0
        most.append(kept.most)
    assert most[1] < most[0] / 5


@pytest.mark.parametrize(
    ("decay", "factors"),
    [(0.0, [1, 1, 1, 1, 1, 1]), (0.5, [1, 1, 1, 1, 2 / 3, 1 / 3]), (1.0, [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])],
)
def test_the_learning_rate_falls_to_zero_over_the_share_asked_for(
    make: Callable[..., Any],
    small: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    decay: float,
    factors: list[float],
) -> None:
    data, rates = make(train=6), []
    step = torch.optim.Adam.step

    def recorded(self: Any, *arguments: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", recorded)
    trainer(epochs=2, optimiser="adam", learning_rate=0.5, decay=decay).fit(small(data), data)
    np.testing.assert_allclose(rates, [0.5 * factor for factor in factors])


def test_training_reduces_the_loss(make: Callable[..., Any], small: Callable[..., Any]) -> None:
    data = make(train=8)
    for optimiser, rate in (("adam", 1e-2), ("graves-rmsprop", 1e-3)):
        model = small(data)
        before = evaluate(model, evaluation_batches(data, data.split("train"), 8)).nats
        history = trainer(epochs=20, optimiser=optimiser, learning_rate=rate).fit(model, data)
        after = evaluate(model, evaluation_batches(data, data.split("train"), 8)).nats
        assert after < before - 0.1 * abs(before)
        assert history[-1]["train_nats_per_point"] < history[0]["train_nats_per_point"]


def test_every_epoch_takes_each_record_once_in_an_order_of_its_own(
    make: Callable[..., Any], small: Callable[..., Any]
) -> None:
    data = make(train=10)
    model, seen = small(data), []
    model.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs[0].records.tolist()))
    trainer(epochs=3).fit(model, data)
    epochs = [tuple(seen[start : start + 10]) for start in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len(set(epochs)) == 3


def test_equal_seeds_train_equally(make: Callable[..., Any], small: Callable[..., Any]) -> None:
    data = make()

    def trained(seed: int) -> list[torch.Tensor]:
        model = small(data)
        trainer(epochs=1, seed=seed).fit(model, data)
        return weights(model)

    assert_equal(trained(1), trained(1))
    assert not torch.equal(trained(1)[0], trained(2)[0])


def test_frozen_weights_stay(make: Callable[..., Any], small: Callable[..., Any]) -> None:
    data = make()
    model = small(data)
    frozen = model.head.output.weight.requires_grad_(False)
    before = frozen.clone()
    trainer(epochs=1).fit(model, data)
    assert torch.equal(frozen, before)


def test_training_in_bf16_stays_close_to_float32(make: Callable[..., Any], small: Callable[..., Any]) -> None:
    data = make()
    rough, exact = (
        trainer(epochs=1, precision=precision).fit(small(data), data)[0] for precision in ("bf16", "float32")
    )
    assert rough["valid_nats_per_point"] == pytest.approx(exact["valid_nats_per_point"], abs=0.05)
    assert rough["valid_nats_per_point"] != exact["valid_nats_per_point"]


# What is told


def test_events_are_told_in_order(make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path) -> None:
    data, run = make(), Run(tmp_path)
    saved = []
    listener = Listener(finish=lambda epoch: saved.append((run.trainer_state.exists(), len(run.read_metrics()))))
    trainer(epochs=2).fit(small(data), data, run=run, events=listener)
    steps = [("step", step) for step in range(1, 11)]
    assert listener.told == [*steps[:5], ("epoch", 1), *steps[5:], ("epoch", 2)]
    assert saved == [(True, 1), (True, 2)]
    assert [metrics["epoch"] for metrics in listener.metrics] == [1] * 5 + [2] * 5
    assert {metrics["steps"] for metrics in listener.metrics} == {10}
    assert listener.metrics[-1]["seconds_left"] == 0
    assert all(metrics["seconds_left"] > 0 for metrics in listener.metrics[:-1])


def test_metrics_are_complete_and_right(make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path) -> None:
    data, run = make(), Run(tmp_path)
    model, listener = small(data), Listener()
    history = trainer(epochs=3).fit(model, data, run=run, events=listener)
    assert run.read_metrics() == history
    assert list(history[0]) == [
        "epoch",
        "step",
        "train_nats_per_point",
        "train_nats_per_record",
        "valid_nats_per_point",
        "valid_nats_per_record",
        "valid_real_nats_per_point",
        "valid_stroke_end_nats_per_point",
        "seconds",
        "points_per_second",
        "skipped_steps",
    ]
    assert [(row["epoch"], row["step"]) for row in history] == [(1, 5), (2, 10), (3, 15)]
    points = {split: data.lengths_of(data.split(split)).sum() for split in ("train", "valid")}
    for row in history:
        assert row["train_nats_per_point"] * points["train"] == pytest.approx(row["train_nats_per_record"] * 10)
        parts = row["valid_real_nats_per_point"] + row["valid_stroke_end_nats_per_point"]
        assert parts == pytest.approx(row["valid_nats_per_point"])
    best = evaluate(model, evaluation_batches(data, data.split("valid"), 2)).metrics("valid")
    assert best["valid_nats_per_point"] == pytest.approx(min(row["valid_nats_per_point"] for row in history))
    first = sum(metrics["train_nats_per_record"] * 2 for metrics in listener.metrics[:BATCHES])
    assert history[0]["train_nats_per_record"] * 10 == pytest.approx(first)
    seconds = [row["seconds"] for row in history]
    assert seconds == sorted(seconds)


def test_without_a_validation_split_the_training_loss_decides(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path
) -> None:
    data, run = make(train=5), Run(tmp_path)
    history = trainer(epochs=2, optimiser="adam", learning_rate=1e-2).fit(small(data), data, run=run)
    assert not any(name.startswith("valid") for name in history[0])
    state = torch.load(run.trainer_state, weights_only=True)["progress"]
    assert state["best"] == min(row["train_nats_per_point"] for row in history)


def test_without_a_run_nothing_is_written(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make()
    model = small(data)
    script_validation(monkeypatch, [1.0, 2.0])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    by_epoch: dict[int, list[torch.Tensor]] = {}
    listener = Listener(finish=lambda epoch: by_epoch.setdefault(epoch, weights(model)))
    trainer(epochs=2).fit(model, data, events=listener)
    assert_equal(weights(model), by_epoch[1])
    assert not list(Path().iterdir())


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "option 'epochs' of the trainer is 0, but must be int >= 1"),
        ({"batch_size": 0}, "option 'batch_size' of the trainer is 0"),
        ({"accumulate": 0}, "option 'accumulate' of the trainer is 0, but must be int >= 1"),
        ({"learning_rate": 0.0}, "option 'learning_rate' of the trainer is 0.0, but must be float > 0"),
        ({"learning_rate": float("nan")}, "option 'learning_rate'|refuses|lr of"),
        ({"decay": 1.5}, "option 'decay' of the trainer is 1.5"),
        ({"truncate": -1}, "option 'truncate' of the trainer is -1, but must be int >= 0"),
        ({"patience": -1}, "option 'patience' of the trainer is -1"),
        ({"max_skipped": 0}, "option 'max_skipped' of the trainer is 0, but must be int >= 1"),
        ({"seed": -1}, "option 'seed' of the trainer is -1"),
        ({"seed": 2**64}, "option 'seed' of the trainer is 18446744073709551616"),
        ({"precision": "fp8"}, "option 'precision' of the trainer is 'fp8', but must be \"auto\" | \"float32\""),
        ({"device": "tpu"}, "device 'tpu' is not available; here are: auto, "),
        ({"optimiser": "addam"}, "no optimiser is named 'addam'; did you mean 'adam'"),
        ({"optimiser": "lbfgs"}, "optimiser 'lbfgs' evaluates the loss several times"),
    ],
)
def test_silly_options_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Trainer(**options)


def test_auto_trains_on_what_there_is(make: Callable[..., Any], small: Callable[..., Any]) -> None:
    data = make()
    automatic = Trainer(epochs=1)
    model = small(data)
    assert len(automatic.fit(model, data)) == 1
    assert model.device.type == automatic.device.type
