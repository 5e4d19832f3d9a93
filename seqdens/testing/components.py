"""What holds for components of every kind: options that can be listed, checked, written down and refused."""

from __future__ import annotations

import inspect
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from seqdens.components import registry
from seqdens.errors import DataError, UsageError
from seqdens.registry import Component, Option, Registry, choices, one_line, options_of

NUMBERS = (-1, 0, -1.0, 0.0, math.nan)  # that an option may be too small for


class ComponentContract(ABC):
    """What the contracts of encoders, heads and data sets have in common.

    `impossible` are pairs of an option and a value of its type that the component refuses.
    """

    kind: ClassVar[str]
    impossible: Sequence[tuple[str, Any]] = ()

    @property
    @abstractmethod
    def component(self) -> Component:
        """What is tested."""

    @abstractmethod
    def wired(self, folder: Path) -> tuple[Any, ...]:
        """What the core gives the constructor; `folder` is empty."""

    @property
    def name(self) -> str:
        return self.component.name

    @property
    def options(self) -> dict[str, Option]:
        return options_of(self.component.provider.load())

    def with_options(self, options: Mapping[str, Any]) -> Component:
        """The component with other options, checked as the registry does."""
        return Registry(self.kind, [self.component.provider]).component(self.name, options)

    def close(self, found: Any, expected: Any, fault: str, **tolerance: Any) -> None:
        """As `torch.testing.assert_close`, after a sentence."""
        torch.testing.assert_close(found, expected, msg=lambda found: f"{self.name}: {fault}. {found}", **tolerance)

    def test_it_is_found_by_its_name(self) -> None:
        found = registry(self.kind).component(self.name, self.component.options)
        assert found == self.component
        assert found.provider == self.component.provider, f"{self.name}: its name stands for another, {found.provider}"

    def test_options_are_keyword_only(self, tmp_path: Path) -> None:
        parameters = inspect.signature(self.component.provider.load()).parameters.values()
        positional = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
        for name in positional[len(self.wired(tmp_path)) :]:
            pytest.fail(f"{self.name}: {name} must be keyword-only to be an option: put it after a `*` in __init__")

    def test_its_docstring_begins_with_one_line(self) -> None:
        first, _, rest = documentation(self.component).partition("\n")
        assert first, f"{self.name} has no docstring"
        assert not rest or rest.startswith("\n"), (
            f"{self.name}: the docstring's first line must stand alone, with an empty one below: {first!r}"
        )

    def test_every_option_is_documented(self) -> None:
        text = documentation(self.component)
        for name in self.options:
            assert re.search(rf"^\s*{name}: \S", text, re.MULTILINE), (
                f"{self.name}: the docstring has no line `{name}: what it is`"
            )

    def test_every_documented_option_exists(self) -> None:
        for name in documented(self.component):
            assert name in self.options, (
                f"{self.name}: the docstring has an option {name!r}, but the constructor has not; "
                f"{choices(name, self.options)}"
            )

    def test_defaults_are_of_their_types(self) -> None:
        for name, option in self.options.items():
            try:
                same = option.check(option.default) == option.default
            except (ValueError, TypeError):
                same = False
            assert same, (
                f"{self.name}: the default of option {name!r} is {option.default!r}, "
                f"but its type says {option.describe_type()}"
            )

    def test_values_of_other_types_are_refused(self) -> None:
        for name in self.options:
            with refused(self.name, name):
                self.with_options({name: object()})

    def test_options_survive_being_written_down(self) -> None:
        described = json.loads(json.dumps(self.component.describe(), default=str))
        assert described.pop("name") == self.name
        assert self.with_options(described).describe() == self.component.describe(), (
            f"{self.name}: its options are others after they were written down and read"
        )

    def test_impossible_values_are_refused(self, tmp_path: Path) -> None:
        wired = self.wired(tmp_path)
        for name, value in self.impossible:
            with refused(self.name, name) as refusal:
                self.with_options({**self.component.options, name: value}).build(*wired)
            parts = value if isinstance(value, tuple) else (value,)
            assert any(str(part) in refusal[0] for part in parts), f"{refusal[0]!r} does not name the value {value!r}"

    def test_numbers_are_taken_or_refused(self, tmp_path: Path) -> None:
        """Zero, one below it and NaN: an option takes each, or refuses it in a sentence."""
        wired = self.wired(tmp_path)
        for name, option in self.options.items():
            for value in filter(lambda number: is_of_type(option, number), NUMBERS):
                try:
                    self.with_options({**self.component.options, name: value}).build(*wired)
                except (UsageError, DataError) as error:
                    check_sentence(str(error), self.name, name)
                except Exception as error:
                    pytest.fail(
                        f"{self.name}: {name}={value} raises {one_line(error)}, "
                        "but must be taken or refused with a UsageError"
                    )


def documentation(component: Component) -> str:
    return inspect.getdoc(component.provider.load()) or ""


def documented(component: Component) -> list[str]:
    """The names in the section `Options:` of the docstring."""
    section = re.search(r"^Options:\n((?:[ \t]+\S.*\n?)*)", documentation(component), re.MULTILINE)
    return re.findall(r"^(\w+):", inspect.cleandoc("\n" + section[1]), re.MULTILINE) if section else []


def is_of_type(option: Option, value: Any) -> bool:
    """Whether a user could give `value`; a whole number is not tried twice."""
    try:
        return type(option.check(value)) is type(value)
    except (ValueError, TypeError):
        return False


@contextmanager
def refused(*named: str) -> Iterator[list[str]]:
    """Within it a `UsageError` or a `DataError` must be raised, in one sentence that names all of `named`."""
    sentence: list[str] = []
    wanted = f"a UsageError or a DataError that names {' and '.join(map(repr, named))} must be raised"
    try:
        yield sentence
    except (UsageError, DataError) as error:
        sentence.append(str(error))
    except Exception as error:
        pytest.fail(f"{wanted}, not {one_line(error)}")
    if not sentence:
        pytest.fail(f"{wanted}, but nothing is")
    check_sentence(sentence[0], *named)


def check_sentence(text: str, *named: str) -> None:
    assert "\n" not in text, f"an error is one line: {text!r}"
    assert text.endswith("."), f"an error is a sentence: {text!r}"
    for name in named:
        assert name in text, f"an error names {name!r}: {text!r}"
