"""Named, lazily imported components of one kind, and the options their constructors take.

Knows no domain: a registry maps a name to a provider ("module:Class" or an object, and who provides it).
An option is a keyword-only constructor argument with an annotation and a default.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from seqdens.errors import SeqdensError, UsageError


class Option(NamedTuple):
    """One keyword-only argument of a component's constructor."""

    name: str
    annotation: Any
    default: Any

    def describe_type(self) -> str:
        """The type as a user would write it: `int`, `"a" | "b"`, `float | None`."""
        if get_origin(self.annotation) is Literal:
            return " | ".join(json.dumps(value) for value in get_args(self.annotation))
        return getattr(self.annotation, "__name__", str(self.annotation)).replace("pathlib.", "")

    def check(self, value: Any) -> Any:
        """`value` as the annotated type (an int for a float, a text for a path, a list for a tuple).

        Raises `ValueError` where it is not of that type.
        """
        import msgspec

        return msgspec.convert(value, self.annotation, dec_hook=lambda kind, given: kind(given))


def options_of(factory: Callable[..., Any]) -> dict[str, Option]:
    """The options of a class or function: its keyword-only arguments, in order.

    Raises `UsageError` for `*args`, `**kwargs`, and for options without annotation or default, since those
    could be neither listed nor checked.
    """
    owner = getattr(factory, "__name__", str(factory))
    function = factory.__init__ if isinstance(factory, type) else factory  # type: ignore[misc]
    hints = get_type_hints(function)
    options = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) and function is not object.__init__:
            raise UsageError(f"{owner} takes {parameter}: options must be named keyword-only arguments.")
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        if parameter.default is parameter.empty or parameter.name not in hints:
            raise UsageError(f"option {parameter.name!r} of {owner} needs an annotation and a default.")
        options[parameter.name] = Option(parameter.name, hints[parameter.name], parameter.default)
    return options


def check_options(owner: str, options: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, each value checked and converted; raises `UsageError` naming the option and what is possible."""
    checked = {}
    for name, value in given.items():
        if name not in options:
            raise UsageError(f"{owner} has no option {name!r}; {choices(name, options)}")
        option = options[name]
        try:
            checked[name] = option.check(value)
        except ValueError as error:
            raise UsageError(
                f"option {name!r} of {owner} is {value!r}, but must be {option.describe_type()} ({error})."
            ) from None
    return checked


def choices(wanted: str, known: Iterable[str]) -> str:
    """A clause for error messages: the nearest of `known` to `wanted`, and all of them."""
    names = sorted(known)
    near = get_close_matches(wanted, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(names) if names else 'none'}."


@dataclass(frozen=True)
class Provider:
    """Who provides a name: `target` is "module:attribute" or the object itself, `owner` a distribution."""

    kind: str
    name: str
    target: Any
    owner: str

    def load(self) -> Any:
        """The object, imported on first use; raises `SeqdensError` naming the distribution where that fails."""
        if not isinstance(self.target, str):
            return self.target
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(import_module(module), attribute)
        except Exception as error:
            raise SeqdensError(
                f"{self.name!r} of {self.kind} cannot be loaded from {self.target} ({self.owner}): "
                f"{type(error).__name__}: {error}"
            ) from error


@dataclass(frozen=True)
class Component:
    """A name of a registry and checked options: printable, equal by value, what a configuration file holds."""

    kind: str
    name: str
    options: dict[str, Any] = field(hash=False)
    provider: Provider = field(compare=False, repr=False)

    def build(self, *wired: Any) -> Any:
        """The object, constructed with what the core wires in (positional) and the options."""
        return self.provider.load()(*wired, **self.options)

    def describe(self) -> dict[str, Any]:
        """The component as plain data, every option with its value, as `config.toml` holds it."""
        defaults = {name: option.default for name, option in options_of(self.provider.load()).items()}
        return {"name": self.name} | defaults | self.options


class Registry:
    """The components of one kind, by name.

    `failures` holds a sentence for each package whose metadata could not be read, for error messages.
    """

    def __init__(self, kind: str, providers: Iterable[Provider] = (), failures: Iterable[str] = ()) -> None:
        self.kind = kind
        self.failures = list(failures)
        self._providers: dict[str, list[Provider]] = {}
        for provider in providers:
            self._providers.setdefault(provider.name, []).append(provider)

    def names(self) -> list[str]:
        return sorted(self._providers)

    def providers(self) -> list[Provider]:
        return [provider for name in self.names() for provider in self._providers[name]]

    def provider(self, name: str) -> Provider:
        """The provider of `name`; raises `UsageError` for an unknown name and for one with two owners."""
        owners = self._providers.get(name, [])
        if not owners:
            failed = "".join(f" ({failure})" for failure in self.failures)
            raise UsageError(f"no {self.kind} component is named {name!r}; {choices(name, self._providers)}{failed}")
        if len(owners) > 1:
            both = " and ".join(f"{owner.owner} ({owner.target})" for owner in owners)
            raise UsageError(f"{name!r} of {self.kind} is provided twice, by {both}; uninstall one of them.")
        return owners[0]

    def component(self, name: str, options: Mapping[str, Any]) -> Component:
        """`name` with `options` checked against its constructor."""
        provider = self.provider(name)
        checked = check_options(f"{name!r}", options_of(provider.load()), options)
        return Component(self.kind, name, checked, provider)
