"""Finding packages by their metadata, and run events: fixture packages are a `*.dist-info` folder and a module."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from seqdens import hookspecs
from seqdens.errors import SeqdensError
from seqdens.plugins import Events, find, load_events
from seqdens.version import __version__

Use = Callable[..., None]


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the whole of `sys.path`, with every package in it in use."""
    monkeypatch.delenv("SEQDENS_PLUGINS")
    find("seqdens.encoders")  # imports what a search needs, before the path is cut
    import_module("packaging.requirements")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def declare(folder: Path, info: str, lines: str = "mine = my_module:Mine", group: str = "seqdens.encoders") -> None:
    (folder / info).mkdir(parents=True)
    (folder / info / "entry_points.txt").write_text(f"[{group}]\n{lines}\n", encoding="utf-8")


def describe(folder: Path, info: str, *requirements: str) -> None:
    lines = ["Name: any", "Version: 1.5", *(f"Requires-Dist: {each}" for each in requirements)]
    (folder / info / ("PKG-INFO" if info.endswith(".egg-info") else "METADATA")).write_text("\n".join(lines))


def owners(group: str = "seqdens.encoders") -> dict[str, str]:
    return {provider.name: provider.owner for provider in find(group)[0]}


def test_names_come_from_metadata_alone(use: Use) -> None:
    sys.modules.pop("seqdens_good", None)
    use("seqdens-good")
    providers, failures = find("seqdens.encoders")
    assert [(each.kind, each.name, each.target, each.owner) for each in providers] == [
        ("encoders", "good", "seqdens_good:Good", "seqdens-good 1.2"),
        ("encoders", "nested", "seqdens_good:Good.Nested", "seqdens-good 1.2"),
    ]
    assert failures == []
    assert "seqdens_good" not in sys.modules


def test_a_malformed_package_hides_no_neighbour_and_is_named(use: Use) -> None:
    use("seqdens-good", "seqdens-malformed", "unrelated")
    providers, failures = find("seqdens.encoders")
    assert [provider.name for provider in providers] == ["good", "nested"]
    assert len(failures) == 1
    assert failures[0].startswith("The entry points of seqdens-malformed 2.0 cannot be read: MissingSectionHeader")


def test_a_line_that_does_not_parse_costs_itself_and_is_named(use: Use) -> None:
    use("seqdens-unparsable")
    providers, failures = find("seqdens.encoders")
    assert [provider.name for provider in providers] == ["fine"]
    assert any("'spaced out' of seqdens.encoders cannot be used (seqdens-unparsable 0.1)" in each for each in failures)
    assert not any("spaced out" in each for each in find("seqdens.heads")[1])


def test_a_misspelt_group_is_told_with_the_nearest(use: Use) -> None:
    use("seqdens-unparsable")
    told = "seqdens-unparsable 0.1 declares 'misfiled' under 'seqdens.encoder', which is no group; did you mean"
    assert any(failure.startswith(f"{told} 'seqdens.encoders'?") for failure in find("seqdens.heads")[1])


def test_the_environment_narrows_the_set_whatever_the_spelling(use: Use) -> None:
    use("SeqDens.Good ", "")
    assert set(owners().values()) == {"seqdens-good 1.2"}
    use("seqdens-good", "seqdens_double")
    assert len(find("seqdens.encoders")[0]) == 3
    use()
    assert find("seqdens.encoders") == ([], [])


def test_a_package_asked_for_must_be_there(use: Use) -> None:
    use("seqdens-absent")
    assert find("seqdens.heads") == ([], ["SEQDENS_PLUGINS names 'seqdens-absent', which is not installed."])


@pytest.mark.parametrize("given", ["good", "seqdens-god", "seqdens_goood"])
def test_the_package_that_is_perhaps_meant_is_named(use: Use, given: str) -> None:
    use(given)
    (failure,) = find("seqdens.heads")[1]
    assert failure.endswith("which is not installed; did you mean 'seqdens-good'?")


def test_strictly_a_failure_is_raised(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    use("seqdens-malformed")
    monkeypatch.setenv("SEQDENS_STRICT_PLUGINS", "1")
    with pytest.raises(SeqdensError, match=r"seqdens-malformed 2\.0 cannot be read"):
        find("seqdens.heads")


def test_the_first_distribution_of_a_name_wins(only: Path) -> None:
    declare(only / "b", "My_Encoders-1.0.dist-info", "old = my_module:Mine")
    declare(only / "a", "my.encoders-2.0.dist-info", "new = my_module:Mine")
    sys.path[:] = [str(only / "a"), str(only / "b"), str(only / "missing")]
    assert owners() == {"new": "my-encoders 2.0"}


def test_eggs_without_version_leftovers_and_our_own_name(only: Path) -> None:
    declare(only, "my_egg.egg-info", "egg = my_module:Mine")
    declare(only, "~emoved-1.0.dist-info", "removed = my_module:Mine")
    declare(only, "seqdens-0.1.0.dist-info", "ours = seqdens.encoders:Ours")
    (only / "plain-1.0.dist-info").mkdir()
    assert owners() == {"egg": "my-egg (version unknown)"}


def test_the_version_is_that_of_the_metadata(only: Path) -> None:
    declare(only, "my_egg.egg-info", "egg = my_module:Mine")
    describe(only, "my_egg.egg-info")
    assert owners() == {"egg": "my-egg 1.5"}


@pytest.mark.parametrize("requirement", ["seqdens>=9", "seqdens[test] (<0.1)", "seqdens==0.0.1; python_version > '3'"])
def test_a_package_for_another_seqdens_is_told_and_left_out(only: Path, requirement: str) -> None:
    declare(only, "ahead-1.0.dist-info", "ahead = my_module:Mine")
    describe(only, "ahead-1.0.dist-info", "numpy>=99", requirement)
    declare(only, "mine-1.0.dist-info")
    assert owners() == {"mine": "mine 1.0"}
    (failure,) = find("seqdens.heads")[1]
    assert failure.startswith("ahead 1.5 needs seqdens")
    assert failure.endswith(f", but this is {__version__}; upgrade seqdens.")


@pytest.mark.parametrize("requirement", ["seqdens", "seqdens>=0.1", "seqdens-ink>=9", "seqdens>=9; extra == 'new'"])
def test_a_requirement_that_is_met_or_of_another_package_is_none(only: Path, requirement: str) -> None:
    declare(only, "fine-1.0.dist-info")
    describe(only, "fine-1.0.dist-info", requirement)
    assert owners() == {"mine": "fine 1.5"}
    assert find("seqdens.encoders")[1] == []


def test_a_percent_sign_costs_its_own_line_alone(only: Path) -> None:
    declare(only, "odd-1.0.dist-info", "half = 50%:Half\nmine = my_module:Mine")
    assert owners() == {"mine": "odd 1.0"}
    assert "'half' of seqdens.encoders" in find("seqdens.encoders")[1][0]


@pytest.mark.parametrize("content", [b"[seqdens.heads]\nx = a:\xff\n", b"[seqdens.heads]\nx = a:b\nx = c:d\n"])
def test_bytes_and_lines_that_make_no_sense_are_told(only: Path, content: bytes) -> None:
    declare(only, "odd-1.0.dist-info")
    (only / "odd-1.0.dist-info" / "entry_points.txt").write_bytes(content)
    providers, failures = find("seqdens.heads")
    assert providers == []
    assert [failure.partition(" cannot")[0] for failure in failures] == ["The entry points of odd 1.0"]


class Own:
    """The core's own listener."""

    def __init__(self, name: str, heard: list[Any]) -> None:
        self.name, self.heard = name, heard

    @hookspecs.hookimpl
    def epoch_finished(self, metrics: dict[str, float]) -> None:
        self.heard.append((self.name, metrics))


def test_events_reach_our_own_first_then_the_packages(use: Use) -> None:
    use("seqdens-good")
    recorded = import_module("seqdens_good").EVENTS
    recorded.clear()
    events = load_events([Own("first", recorded), Own("second", recorded)])
    events.epoch_finished(run="the run", metrics={"loss": 1.0})
    assert recorded == [(name, {"loss": 1.0}) for name in ("first", "second", "epoch_finished")]


def test_what_our_own_raise_propagates() -> None:
    class Failing:
        @hookspecs.hookimpl
        def run_started(self) -> None:
            raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        load_events([Failing()]).run_started(run=None)


@pytest.mark.parametrize(
    ("listener", "reason"),
    [
        (
            "misspelt",
            "there is no event 'epoch_finnished'; did you mean 'epoch_finished'? known: epoch_finished, ",
        ),
        ("unknown-argument", "epoch_finished has no argument 'loss'; known: metrics, run."),
        ("unmarked", "no function of it is marked with seqdens.hookimpl"),
        ("needy", "missing 1 required positional argument: 'port'"),
    ],
)
def test_a_listener_that_cannot_listen_is_told_and_left_out(
    use: Use, capsys: pytest.CaptureFixture[str], listener: str, reason: str
) -> None:
    use("seqdens-listeners", "seqdens-good")
    events = load_events()
    lines = capsys.readouterr().err.splitlines()
    (told,) = [line for line in lines if repr(listener) in line]
    assert told.startswith(f"Warning: '{listener}' of hooks (seqdens-listeners 4.0) cannot listen to runs: ")
    assert reason in told
    assert len(lines) == 4
    events.run_finished(run=None, metrics={})


def test_a_listener_that_cannot_be_imported_is_told_and_left_out(use: Use, capsys: pytest.CaptureFixture[str]) -> None:
    use("seqdens-broken", "seqdens-malformed")
    load_events().run_started(run=None)
    told = capsys.readouterr().err
    assert "'broken-listener' of hooks cannot be loaded from seqdens_broken (seqdens-broken 0.3)" in told
    assert "The entry points of seqdens-malformed 2.0 cannot be read" in told


def test_a_listener_that_raises_is_told_no_more_and_the_run_goes_on(
    use: Use, capsys: pytest.CaptureFixture[str]
) -> None:
    use("seqdens-listeners", "seqdens-good")
    events = load_events()
    raising, recorded = import_module("seqdens_listeners").Raising, import_module("seqdens_good").EVENTS
    raising.calls = 0
    recorded.clear()
    capsys.readouterr()
    events.run_started(run=None)
    events.epoch_finished(run=None, metrics={"loss": 1.0})
    events.epoch_finished(run=None, metrics={"loss": 2.0})
    assert raising.calls == 2
    assert [metrics["loss"] for _, metrics in recorded] == [1.0, 2.0]
    assert capsys.readouterr().err == (
        "Warning: 'raising' of hooks (seqdens-listeners 4.0) failed at epoch_finished: "
        "ValueError: disk full; it is told no more of this run.\n"
    )


def test_strictly_a_listener_that_fails_is_raised(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    use("seqdens-listeners")
    events = load_events()
    monkeypatch.setenv("SEQDENS_STRICT_PLUGINS", "1")
    with pytest.raises(SeqdensError, match=r"'raising' of hooks .* failed at epoch_finished") as raised:
        events.epoch_finished(run=None, metrics={})
    assert isinstance(raised.value.__cause__, ValueError)
    with pytest.raises(SeqdensError, match="cannot listen"):
        load_events()


def test_events_are_those_of_the_specification() -> None:
    specified = {name for name, item in vars(hookspecs).items() if hasattr(item, "seqdens_spec")}
    assert specified == set(Events.__annotations__)
    for name in specified:
        assert getattr(hookspecs, name).__doc__
        assert callable(getattr(load_events(), name))


def test_an_event_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no run event 'epoch_ended'"):
        load_events().epoch_ended(run=None)
