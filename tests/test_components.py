"""The filled registries: what the core provides, what fixture packages provide, what code registers."""

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from seqdens import components
from seqdens.builtin import BUILTIN, KINDS
from seqdens.encoders.base import Encoder
from seqdens.errors import SeqdensError, UsageError
from seqdens.heads.gmm_bernoulli import GMMBernoulli

Use = Callable[..., None]


class Mine(Encoder):
    def __init__(self, input_size: int, *, cells: int = 1) -> None:
        super().__init__()
        self.cells = cells

    start = forward = None  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def _forget_what_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "_registered", [])


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in BUILTIN[kind]])
def test_every_line_of_the_table_of_contents_can_be_loaded(kind: str, name: str) -> None:
    provider = components.registry(kind).provider(name)
    assert provider.owner == components.CORE
    if inspect.isclass(provider.load()):
        assert components.registry(kind).component(name, {}).describe()["name"] == name


def test_without_packages_the_core_alone_is_there(use: Use) -> None:
    use()
    assert components.registry("encoders").names() == list(BUILTIN["encoders"])


def test_a_package_is_used_by_name(use: Use) -> None:
    use("seqdens-good")
    good = components.encoder("good", cells=5)
    assert (good.provider.owner, good.provider.target) == ("seqdens-good 1.2", "seqdens_good:Good")
    assert (good.build(7).input_size, good.build(7).cells) == (7, 5)
    assert components.registry("encoders").component("nested", {}).build().__doc__ == "Reached by a dotted name."
    assert components.experiment("good-experiment").encoder == {"name": "good", "cells": 4}


def test_options_of_a_package_are_checked(use: Use) -> None:
    use("seqdens-good")
    with pytest.raises(UsageError, match=r"'good' has no option 'cell'; did you mean 'cells'\?"):
        components.encoder("good", cell=5)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("broken", "RuntimeError: this machine has no plotter"),
        ("quitter", "SystemExit: no licence"),
        ("absent", "AttributeError: .*Absent"),
    ],
)
def test_a_broken_package_is_named_and_breaks_nothing_else(use: Use, name: str, reason: str) -> None:
    use("seqdens-good", "seqdens-broken")
    assert components.encoder("good").name == "good"
    with pytest.raises(SeqdensError, match=rf"'{name}' of encoders cannot be loaded .*seqdens-broken 0\.3.*{reason}"):
        components.encoder(name)


def test_an_unknown_name_tells_of_the_package_that_could_not_be_read(use: Use) -> None:
    use("seqdens-malformed")
    with pytest.raises(UsageError, match=r"no 'lost' among the encoders; known: .* seqdens-malformed 2\.0 cannot be"):
        components.encoder("lost")


def test_two_packages_with_one_name_are_both_named_and_other_names_work(use: Use) -> None:
    use("seqdens-good", "seqdens-double")
    with pytest.raises(
        UsageError, match=r"'good' of encoders is provided twice, by seqdens-double 5\.0 .*seqdens-good"
    ):
        components.encoder("good")
    assert components.encoder("nested").name == "nested"


def test_a_package_cannot_take_a_name_of_the_core(use: Use) -> None:
    use("seqdens-double")
    with pytest.raises(UsageError, match=rf"by {components.CORE} .* and seqdens-double 5\.0 \(seqdens_good:Good\)"):
        components.head("gmm-bernoulli")


def test_code_registers_a_component() -> None:
    components.register("encoders", "mine", Mine)
    assert components.encoder("mine", cells=2).build(3).cells == 2
    assert components.registry("encoders").provider("mine").owner == f"registered in code by {__name__}"


def test_code_cannot_take_a_name(use: Use) -> None:
    use("seqdens-good")
    components.register("encoders", "mine", Mine)
    for name, owner in [("good", "seqdens-good 1.2"), ("mine", "registered in code"), ("stacked-lstm", "seqdens 0")]:
        with pytest.raises(
            UsageError, match=rf"'{name}' of encoders is already provided by {owner}.*Mine.* needs another"
        ):
            components.register("encoders", name, Mine)


@pytest.mark.parametrize(
    ("kind", "thing", "base"),
    [
        ("encoders", int, "Encoder"),
        ("encoders", GMMBernoulli, "Encoder"),
        ("heads", lambda features: features, "Head"),
        ("datasets", Path(), "Dataset"),
    ],
)
def test_what_is_of_another_kind_is_refused(kind: str, thing: object, base: str) -> None:
    with pytest.raises(
        SeqdensError, match=rf"'odd' of {kind} \(registered .* but must be a class .* seqdens\.{base}\."
    ):
        components.register(kind, "odd", thing)
    assert "odd" not in components.registry(kind).names()


def test_an_unknown_kind_lists_the_kinds() -> None:
    with pytest.raises(UsageError, match=r"no kind of component 'encoder'; did you mean 'encoders'\?"):
        components.register("encoder", "mine", Mine)


@pytest.mark.parametrize("kind", ["dataset", "encoder", "head", "regulariser", "experiment"])
def test_every_look_up_searches_its_own_kind(kind: str) -> None:
    with pytest.raises(UsageError, match=f"no 'nothing' among the {kind}s"):
        getattr(components, kind)("nothing")
