"""Models that `torch.compile` compiled: trained, measured, sampled and saved as the plain ones are."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import seqdens
from seqdens.batches import collate
from seqdens.density import density_map
from seqdens.encoders.base import Encoded
from seqdens.errors import UsageError
from seqdens.evaluation import evaluate
from seqdens.model import SequenceModel
from seqdens.plots import mixture_weights
from seqdens.static import static_gaussian
from seqdens.training.run_folder import Run
from seqdens.training.trainer import Trainer

pytestmark = [
    pytest.mark.usefixtures("_afresh", "_heed_interrupts"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),  # torch's own, of Dynamo
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated"),  # and of inductor
]


@pytest.fixture
def _afresh() -> Iterator[None]:
    """What one test compiled is not used, nor counted, by the next."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Counting:
    """A backend that runs graphs as they are, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            self.calls += 1
            return graph.forward(*given)

        return run


def wrapped(model: SequenceModel, backend: Any) -> SequenceModel:
    return torch.compile(model, backend=backend)  # type: ignore[return-value]


def in_place(model: SequenceModel, backend: Any) -> SequenceModel:
    model.compile(backend=backend)
    return model


def trainer(**options: Any) -> Trainer:
    defaults = {"epochs": 2, "batch_size": 5, "optimiser": "adam", "learning_rate": 1e-2}
    return Trainer(**(defaults | {"device": "cpu", "precision": "float32"} | options))


def assert_near(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def assert_drawn(model: SequenceModel, like: SequenceModel, text: str | None = None) -> None:
    """Equal seeds draw records that are near each other."""
    drawn = [[torch.from_numpy(each) for each in one.sample(2, steps=5, text=text, seed=1)] for one in (model, like)]
    assert_near(*drawn)


LOSSES = ("train_nats_per_point", "valid_nats_per_point")


def losses(history: list[dict[str, float]]) -> list[list[float]]:
    return [[row[name] for name in LOSSES] for row in history]


@pytest.mark.parametrize("compiled", [wrapped, in_place])
@pytest.mark.parametrize("encoder", ["stacked-lstm", "window-lstm"])
def test_it_trains_as_the_plain_model_does_and_is_saved_as_it(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path, encoder: str, compiled: Callable[..., Any]
) -> None:
    data, backend = make(texts=("a b", "bad cab")), Counting()
    plain, model = small(data, encoder=encoder), small(data, encoder=encoder)
    runs = Run(tmp_path / "plain"), Run(tmp_path / "compiled")
    expected = trainer().fit(plain, data, run=runs[0])
    found = trainer().fit(compiled(model, backend), data, run=runs[1])
    assert backend.calls >= 2 * 3  # two epochs of two training batches and one for validation
    assert_near(losses(found), losses(expected))
    assert_near(dict(model.state_dict()), dict(plain.state_dict()))
    for name in ("best", "last"):
        weights = [dict(SequenceModel.load(getattr(run, name)).state_dict()) for run in runs]
        assert_near(weights[1], weights[0])
    states = [torch.load(run.trainer_state, weights_only=True) for run in runs]
    assert_near(states[1]["model"], states[0]["model"])
    assert states[1]["identity"] == states[0]["identity"]
    assert_drawn(model, plain, text="a" if encoder == "window-lstm" else None)


@pytest.mark.parametrize("resumed_by", [wrapped, in_place, None])
def test_an_interrupted_run_goes_on_compiled_or_not(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path, resumed_by: Callable[..., Any] | None
) -> None:
    data, runs = make(), (Run(tmp_path / "straight"), Run(tmp_path / "halved"))
    straight, resumed = small(data), small(data, seed=9)
    expected = trainer().fit(straight, data, run=runs[0])
    with pytest.raises(KeyboardInterrupt):
        trainer().fit(wrapped(small(data), "aot_eager"), data, run=runs[1], events=InterruptsAt(3))
    given = resumed_by(resumed, "aot_eager") if resumed_by else resumed
    found = trainer().fit(given, data, run=runs[1], resume=True)
    assert_near(losses(found), losses(expected))
    assert_near(dict(resumed.state_dict()), dict(straight.state_dict()))


class InterruptsAt:
    """Asks to stop, as Ctrl-C does, after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def metrics_logged(self, *, run: Any, step: int, metrics: Any) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGINT)

    def epoch_finished(self, *, run: Any, metrics: Any) -> None:
        pass


@pytest.mark.parametrize("options", [{"truncate": 4}, {"accumulate": 2}, {"precision": "bf16"}])
def test_it_trains_with_every_option(
    make: Callable[..., Any], small: Callable[..., Any], options: dict[str, Any]
) -> None:
    data = make()
    expected = trainer(**options).fit(small(data), data)
    found = trainer(**options).fit(wrapped(small(data), "aot_eager"), data)
    torch.testing.assert_close(losses(found), losses(expected), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("compiled", [wrapped, in_place])
def test_what_takes_a_model_takes_a_compiled_one(
    make: Callable[..., Any], small: Callable[..., Any], tmp_path: Path, compiled: Callable[..., Any]
) -> None:
    data = make()
    plain, model = small(data), compiled(small(data), "eager").train()
    batches = [collate(data, [number]) for number in range(3)]
    assert_near(*(evaluate(each, batches).nats for each in (model, plain)))
    assert seqdens.measure(model, data) == seqdens.measure(plain, data)
    assert seqdens.measure(model, data, precision="int8") == seqdens.measure(plain, data, precision="int8")
    np.testing.assert_array_equal(*(density_map(each, batches[0]).values for each in (model, plain)))
    np.testing.assert_array_equal(*(mixture_weights(each, batches[0]) for each in (model, plain)))
    assert_drawn(model, plain)
    assert static_gaussian(data, like=model).mean == plain.mean
    model.save(tmp_path / "model.safetensors")
    assert_near(dict(SequenceModel.load(tmp_path / "model.safetensors").state_dict()), dict(plain.state_dict()))
    assert all(module.training for module in model.modules())


def test_a_compiled_model_writes(writer: SequenceModel) -> None:
    options: Any = {"characters": 8, "seed": 1, "tries": 1}
    expected, found = (seqdens.write("ab", model, **options) for model in (writer, wrapped(writer, "eager")))
    np.testing.assert_array_equal(found.lines[0].points, expected.lines[0].points)


def test_modes_are_heeded_in_compiled_graphs(make: Callable[..., Any], small: Callable[..., Any]) -> None:
    data = make()
    plain, model = small(data), small(data)
    model.encoder.register_forward_hook(drop_out)
    compiled, batch = wrapped(model.train(), "aot_eager"), collate(data, [0, 1, 2])
    for _ in range(2):
        assert abs(compiled(batch).nats.sum() - plain(batch).nats.sum()) > 1e-3
        assert_near(evaluate(compiled, [batch]).nats, evaluate(plain, [batch]).nats)
        assert compiled.training


def drop_out(module: torch.nn.Module, given: Any, encoded: Encoded) -> Encoded:
    return encoded._replace(features=functional.dropout(encoded.features, 0.5, module.training))


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="inductor needs a C++ compiler")
def test_losses_and_gradients_of_the_default_backend_are_the_plain_ones(
    make: Callable[..., Any], small: Callable[..., Any]
) -> None:
    data = make()
    plain, model = small(data), small(data)
    compiled, batch = wrapped(model, "inductor"), collate(data, [0, 1, 2, 3])
    pairs = [each(batch).nats for each in (compiled, plain)]
    assert_near(*pairs)
    for nats in pairs:
        nats.sum().backward()
    assert_near(*([weight.grad for weight in each.parameters()] for each in (model, plain)))


@pytest.mark.parametrize("given", [torch.nn.Linear(1, 1), "model.safetensors"])
def test_what_is_no_model_is_not_trained(make: Callable[..., Any], given: Any) -> None:
    with pytest.raises(
        UsageError, match=r"the model is a (Linear|str), but must be a SequenceModel, or torch\.compile of"
    ):
        trainer().fit(given, make())
