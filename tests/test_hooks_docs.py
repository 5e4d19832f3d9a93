"""docs/hooks.md and the run events: each has a heading with its arguments, an example that listens, and is told."""

import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from seqdens import hookimpl, hookspecs
from seqdens.errors import UsageError
from seqdens.plugins import Events, load_events
from seqdens.runner import train_and_sample
from seqdens.training.run_folder import Run
from seqdens.training.trainer import Trainer

PAGE = Path(__file__).parents[1] / "docs" / "hooks.md"
ARGUMENTS = {
    name: list(inspect.signature(event).parameters)
    for name, event in vars(hookspecs).items()
    if hasattr(event, "seqdens_spec")
}


def section(name: str) -> str:
    """What stands under the heading of an event."""
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    (found,) = [each for each in sections if each.startswith(f"{name}(")]
    return found


def test_every_event_has_a_heading_with_its_exact_arguments() -> None:
    headings = re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [f"{name}({', '.join(arguments)})" for name, arguments in ARGUMENTS.items()]


@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_argument_is_described(name: str) -> None:
    assert re.findall(r"^- `(\w+)`: ", section(name), re.MULTILINE) == ARGUMENTS[name]


@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_event_has_an_example_that_can_listen_to_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"^```python\n(.+?)^```$", section(name), re.DOTALL | re.MULTILINE)
    module = ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)
    exec(f"import seqdens\n{code}", vars(module))
    (listener,) = [item for item in vars(module).values() if isinstance(item, type)]
    assert set(ARGUMENTS) & set(vars(listener)) == {name}
    load_events([listener()])


class Heard(Events):
    """All that was told, with its arguments."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.told: list[tuple[str, dict[str, Any]]] = []

    def _tell(self, event: str, **arguments: Any) -> None:
        super()._tell(event, **arguments)
        self.told.append((event, arguments))

    @property
    def order(self) -> list[str]:
        return [name for name, _ in self.told]

    def last(self, event: str) -> dict[str, Any]:
        return dict(self.told)[event]


CONFIG = {
    "dataset": {"name": "made"},
    "encoder": {"name": "stacked-lstm", "hidden_size": 4, "layers": 1},
    "head": {"name": "gmm-bernoulli", "components": 2},
    "training": {"epochs": 2, "batch_size": 5, "device": "cpu", "seed": 0},
    "sampling": {"count": 2, "steps": 3, "bias": 0.0},
}


@pytest.fixture
def heard(make: Callable[..., Any], tmp_path: Path) -> Heard:
    """Of a small run."""
    heard = Heard()
    train_and_sample(Run(tmp_path / "run", CONFIG), make(train=10, valid=3), heard)
    return heard


@pytest.fixture
def heard_failing(make: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Heard:
    """Of a run that is stopped in its first step."""
    heard = Heard()

    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("seqdens.training.trainer._Fit._step", stop)
    with pytest.raises(KeyboardInterrupt):
        train_and_sample(Run(tmp_path / "failing", CONFIG), make(), heard)
    return heard


def test_every_event_is_told_with_all_its_arguments_and_in_the_order_that_the_page_says(
    heard: Heard, heard_failing: Heard
) -> None:
    epoch = ["metrics_logged", "metrics_logged", "epoch_finished"]
    assert heard.order == ["run_started", *epoch, *epoch, "samples_drawn", "run_finished"]
    assert heard_failing.order == ["run_started", "run_failed"]
    assert {*heard.order, *heard_failing.order} == set(ARGUMENTS)
    for name, arguments in heard.told + heard_failing.told:
        assert sorted(arguments) == sorted(ARGUMENTS[name])


def test_what_they_are_told_is_what_the_page_says(heard: Heard, heard_failing: Heard) -> None:
    run = heard.last("run_started")["run"]
    assert isinstance(run, Run)
    assert all(arguments["run"] is run for _, arguments in heard.told)
    assert heard.last("metrics_logged")["step"] == heard.last("epoch_finished")["metrics"]["step"] == 4
    assert heard.last("samples_drawn")["paths"] == [run.path / "samples.svg", run.path / "samples.png"]
    assert heard.last("run_finished")["metrics"] == heard.last("epoch_finished")["metrics"] == run.read_metrics()[-1]
    assert isinstance(heard_failing.last("run_failed")["error"], KeyboardInterrupt)


@pytest.mark.parametrize("name", ["metrics_logged", "epoch_finished"])
def test_the_page_names_every_metric(heard: Heard, name: str) -> None:
    told = heard.last(name)["metrics"]
    cells = re.findall(r"^\| (`.+?) \|", section(name), re.MULTILINE)
    patterns = [text.replace("TERM", r"[a-z_]+") for cell in cells for text in re.findall(r"`(\w+)`", cell)]
    of_key = {key: [pattern for pattern in patterns if re.fullmatch(pattern, key)] for key in told}
    assert all(of_key.values()), of_key
    assert {pattern for found in of_key.values() for pattern in found} == set(patterns)
    assert all(isinstance(value, int | float) for value in told.values())


def test_what_a_listener_in_code_raises_ends_the_training(make: Callable[..., Any], small: Callable[..., Any]) -> None:
    class Wrong:
        @hookimpl
        def epoch_finished(self) -> None:
            raise RuntimeError("wrong")

    data = make(train=4)
    with pytest.raises(RuntimeError, match="wrong"):
        Trainer(epochs=1, device="cpu").fit(small(data), data, events=load_events([Wrong()]))


def test_a_listener_in_code_to_what_does_not_exist_is_refused() -> None:
    class Misspelt:
        @hookimpl
        def epoch_over(self) -> None: ...

    with pytest.raises(
        UsageError, match="Misspelt cannot listen to runs: there is no event 'epoch_over'; known: epoch_"
    ):
        load_events([Misspelt()])


def test_without_a_run_folder_there_is_no_run(make: Callable[..., Any], small: Callable[..., Any]) -> None:
    data, heard = make(train=4), Heard()
    Trainer(epochs=1, device="cpu").fit(small(data), data, events=heard)
    assert [(name, arguments["run"]) for name, arguments in heard.told] == [
        ("metrics_logged", None),
        ("epoch_finished", None),
    ]
    assert not any("valid" in key for key in heard.last("epoch_finished")["metrics"])
