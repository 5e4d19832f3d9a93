"""Named, lazily imported components of one kind, and the options their constructors take.

Knows no domain: a registry maps a name to a provider ("module:Class" or an object, and who provides it).
An option is a keyword-only constructor argument with an annotation and a default.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from operator import attrgetter
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from seqdens.errors import SeqdensError, UsageError


class Option(NamedTuple):
    """One keyword-only argument of a component's constructor."""

    name: str
    annotation: Any
    default: Any

    def describe_type(self) -> str:
        """The type as a user would write it: `int >= 1`, `"a" | "b"`, `[str, ...] | None`, `{NAME = int, ...}`."""
        return _describe_type(self.annotation)

    def example(self, value: Any = None) -> str:
        """How a list or a table, of `value` where that fits, is written on the command line; empty for other types.

        >>> print(Option("words", tuple[str, ...], ()).example("apple"))
        'words=["apple"]'
        """
        written = _example(self.annotation, value)
        return f"'{self.name}={written}'" if written.startswith(("[", "{")) else ""

    def check(self, value: Any) -> Any:
        """`value` as the annotated type (an int for a float, a text for a path, a list for a tuple).

        Raises `ValueError` where it is not of that type.
        """
        import msgspec

        return msgspec.convert(value, self.annotation, dec_hook=lambda kind, given: kind(given))


def _describe_type(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = {">=": "ge", ">": "gt", "<=": "le", "<": "lt"}
        given = ((sign, getattr(meta, name, None)) for meta in parts[1:] for sign, name in bounds.items())
        limits = ", ".join(f"{sign} {limit}" for sign, limit in given if limit is not None)
        return f"{_describe_type(parts[0])} {limits}".strip()
    if origin is Literal:
        return " | ".join(json.dumps(value) for value in parts)
    if origin in (Union, UnionType):
        return " | ".join(_describe_type(part) for part in parts)
    if origin in (tuple, list):
        inner = ", ".join("..." if part is ... else _describe_type(part) for part in parts)
        return f"[{inner}, ...]" if origin is list else f"[{inner}]"
    if origin is dict:
        return f"{{NAME = {_describe_type(parts[1])}, ...}}"
    if annotation is NoneType:
        return "None"
    return annotation.__name__ if isinstance(annotation, type) and not parts else str(annotation)


def _example(annotation: Any, value: Any) -> str:
    """A value of that type in TOML, with the text `value` in it if it is one; empty where none is known."""
    origin, parts = get_origin(annotation), get_args(annotation)
    text = value if isinstance(value, str) and re.fullmatch(r"[\w-]+", value) else ""
    if origin is Annotated:
        return _example(parts[0], value)
    if origin in (Union, UnionType):
        return next(filter(None, (_example(part, value) for part in parts)), "")
    if origin in (tuple, list):
        return f"[{', '.join(_example(part, value) for part in parts if part is not ...)}]"
    if origin is dict:
        return f"{{{text or 'name'} = {_example(parts[1], '')}}}"
    known = {str: json.dumps(text or "text"), int: "5", float: "0.5", bool: "true"}
    return json.dumps(parts[0]) if origin is Literal else known.get(annotation, "")


def options_of(factory: Callable[..., Any]) -> dict[str, Option]:
    """The options of a class or function: its keyword-only arguments, in order.

    Raises `UsageError` for what is neither, for `*args`, `**kwargs`, and for options without a readable annotation
    or without a default, since those could be neither listed nor checked.
    """
    owner = getattr(factory, "__name__", str(factory))
    if not callable(factory):
        raise UsageError(f"{owner} is a {type(factory).__name__}, but must be a class: write module:Class.")
    function = factory.__init__ if isinstance(factory, type) else factory  # type: ignore[misc]
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception as error:
        raise UsageError(f"the annotations of {owner} cannot be read: {one_line(error)}.") from error
    options = {}
    for parameter in inspect.signature(function).parameters.values():
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if variadic and function is not object.__init__:
            raise UsageError(f"{owner} takes {parameter}: options must be named keyword-only arguments.")
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        if parameter.default is parameter.empty or parameter.name not in hints:
            raise UsageError(f"option {parameter.name!r} of {owner} needs an annotation and a default.")
        options[parameter.name] = Option(parameter.name, hints[parameter.name], parameter.default)
    return options


def check_options(owner: str, options: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, checked and converted; raises `UsageError` naming the option and what is possible."""
    checked = {}
    for name, value in given.items():
        if name not in options:
            raise UsageError(f"{owner} has no option {name!r}; {choices(name, options)}")
        option = options[name]
        try:
            checked[name] = option.check(value)
        except (ValueError, TypeError) as error:
            import msgspec

            example = option.example(value)
            written = f", such as, on the command line, {example}" if example else ""
            reason = "" if example or isinstance(error, msgspec.ValidationError) else f" ({error})"
            raise UsageError(
                f"option {name!r} of {owner} is {value!r}, but must be {option.describe_type()}{written}{reason}."
            ) from None
    return checked


def choices(wanted: str, known: Iterable[str]) -> str:
    """A clause for error messages: the nearest of `known` to `wanted`, and all of them."""
    names = sorted(known)
    longer = [name for name in names if wanted and name.startswith(wanted)]
    near = get_close_matches(wanted, names, n=1) or longer
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(names) if names else 'none'}."


def one_line(error: BaseException) -> str:
    """The type and the text of an error in one line, for a sentence that names its cause."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@dataclass(frozen=True)
class Provider:
    """Who provides a name: `target` is "module:attribute", "module" or the object itself.

    `owner` is a distribution and its version, "seqdens 0.1.0".
    """

    kind: str
    name: str
    target: Any
    owner: str

    def load(self) -> Any:
        """The object, imported on first use; raises `SeqdensError` naming the owner where that fails."""
        if not isinstance(self.target, str):
            return self.target
        module, _, attribute = self.target.partition(":")
        try:
            found = import_module(module)
            return attrgetter(attribute)(found) if attribute else found
        except (Exception, SystemExit) as error:
            raise SeqdensError(
                f"{self.name!r} of {self.kind} cannot be loaded from {self.target} ({self.owner}): {one_line(error)}"
            ) from error

    def options(self) -> dict[str, Option]:
        """The options of what it loads; raises `UsageError` naming the owner where they cannot be told."""
        try:
            return options_of(self.load())
        except UsageError as error:
            raise UsageError(f"{self.name!r} of {self.kind} ({self.owner}) cannot be used: {error}") from None


@dataclass(frozen=True)
class Component:
    """A name and checked options: printable, equal by value, what a configuration file holds."""

    kind: str
    name: str
    options: dict[str, Any] = field(hash=False)
    provider: Provider = field(compare=False, repr=False)

    def build(self, *wired: Any) -> Any:
        """The object, constructed with what the core wires in (positional) and the options.

        Raises `SeqdensError` naming the owner where the constructor does not take these, or fails otherwise than
        by one.
        """
        factory = self.provider.load()
        try:
            inspect.signature(factory).bind(*wired, **self.options)
        except TypeError as error:
            raise SeqdensError(
                f"{self.name!r} of {self.kind} ({self.provider.owner}) has a constructor that does not take what the "
                f"core gives it: {error}; its base class says what that is."
            ) from error
        try:
            return factory(*wired, **self.options)
        except SeqdensError:
            raise
        except Exception as error:
            raise SeqdensError(
                f"{self.name!r} of {self.kind} ({self.provider.owner}) cannot be built: {one_line(error)}"
            ) from error

    def describe(self) -> dict[str, Any]:
        """The component as plain data, every option with its value, as `config.toml` holds it."""
        defaults = {name: option.default for name, option in self.provider.options().items()}
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

    def choices(self, wanted: str) -> str:
        """A clause for error messages: the nearest name, all names, and packages that could not be read."""
        return " ".join([choices(wanted, self._providers), *self.failures])

    def provider(self, name: str) -> Provider:
        """The provider of `name`; raises `UsageError` for an unknown name and for one with two owners."""
        owners = self._providers.get(name, [])
        if not owners:
            raise UsageError(f"there is no {name!r} among the {self.kind}; {self.choices(name)}")
        if len(owners) > 1:
            both = " and ".join(f"{owner.owner} ({owner.target})" for owner in owners)
            raise UsageError(
                f"{name!r} of {self.kind} is provided twice, by {both}; uninstall {owners[-1].owner}, or leave it out "
                "of those that SEQDENS_PLUGINS names."
            )
        return owners[0]

    def component(self, name: str, options: Mapping[str, Any]) -> Component:
        """`name` with `options` checked against its constructor."""
        provider = self.provider(name)
        known = provider.options()
        for given in options.keys() - known.keys() & inspect.signature(provider.load()).parameters.keys():
            raise UsageError(f"{given!r} of {name!r} is no option, which stands after a `*` in the constructor.")
        checked = check_options(f"{name!r}", known, options)
        return Component(self.kind, name, checked, provider)
