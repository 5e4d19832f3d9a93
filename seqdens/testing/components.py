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

from seqdens.components import registry
from seqdens.errors import DataError, UsageError
from seqdens.registry import Component, Option, Registry, options_of

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

    def test_it_is_found_by_its_name(self) -> None:
        found = registry(self.kind).component(self.name, self.component.options)
        assert found == self.component
        assert found.provider == self.component.provider

    def test_its_docstring_begins_with_one_line(self) -> None:
        first, _, rest = documentation(self.component).partition("\n")
        assert first, f"{self.name} has no docstring"
        assert not rest or rest.startswith("\n"), f"its first line must stand alone, with an empty one below: {first!r}"

    def test_every_option_is_documented(self) -> None:
        text = documentation(self.component)
        for name in self.options:
            assert re.search(rf"^\s*{name}: \S", text, re.MULTILINE), f"the docstring has no line `{name}: what it is`"

    def test_defaults_are_of_their_types(self) -> None:
        for name, option in self.options.items():
            assert option.check(option.default) == option.default, f"default of {name}: {option.describe_type()}"

    def test_values_of_other_types_are_refused(self) -> None:
        for name in self.options:
            with refused(self.name, name):
                self.with_options({name: object()})

    def test_options_survive_being_written_down(self) -> None:
        described = json.loads(json.dumps(self.component.describe(), default=str))
        assert described.pop("name") == self.name
        assert self.with_options(described).describe() == self.component.describe()

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
                    pytest.fail(f"{name}={value} raises {error!r}, but must be taken or refused with a UsageError")


def documentation(component: Component) -> str:
    return inspect.getdoc(component.provider.load()) or ""


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
    with pytest.raises((UsageError, DataError)) as caught:
        yield sentence
    sentence.append(str(caught.value))
    check_sentence(sentence[0], *named)


def check_sentence(text: str, *named: str) -> None:
    assert "\n" not in text, f"an error is one line: {text!r}"
    assert text.endswith("."), f"an error is a sentence: {text!r}"
    for name in named:
        assert name in text, f"an error names {name!r}: {text!r}"
