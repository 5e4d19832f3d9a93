"""The registries, filled: what seqdens provides, what installed packages provide, what code registered."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

from seqdens.builtin import BUILTIN, KINDS
from seqdens.errors import SeqdensError, UsageError
from seqdens.experiments.base import Experiment
from seqdens.plugins import find
from seqdens.registry import Component, Provider, Registry, choices
from seqdens.version import __version__

CORE = f"seqdens {__version__}"

BASES = {
    "datasets": "seqdens.datasets.base:Dataset",
    "encoders": "seqdens.encoders.base:Encoder",
    "heads": "seqdens.heads.base:Head",
}

_registered: list[Provider] = []


def registry(kind: str) -> Registry:
    """The components of one of `KINDS`, as things stand; raises `UsageError` for another kind."""
    if kind not in KINDS:
        raise UsageError(f"there is no kind of component {kind!r}; {choices(kind, KINDS)}")
    core = [Provider(kind, name, target, CORE) for name, target in BUILTIN[kind].items()]
    installed, failures = find(f"seqdens.{kind}")
    in_code = [provider for provider in _registered if provider.kind == kind]
    return Registry(kind, [*core, *installed, *in_code], failures)


def register(kind: str, name: str, component: Any) -> None:
    """Make `component` known as `name` in this process, as an installed package would.

    Raises `UsageError` for an unknown kind and for a name that is taken, `SeqdensError` for what is of no such kind.

    >>> import seqdens
    >>> from seqdens.encoders.stacked_lstm import StackedLSTM
    >>> class OneLayer(StackedLSTM):
    ...     def __init__(self, input_size, context_size=0, *, hidden_size: int = 64) -> None:
    ...         super().__init__(input_size, context_size, hidden_size=hidden_size, layers=1)
    >>> seqdens.register("encoders", "one-layer-example", OneLayer)
    >>> seqdens.encoder("one-layer-example", hidden_size=16).build(3).output_size
    16
    """
    owner = f"registered in code by {getattr(component, '__module__', None) or type(component).__module__}"
    for taken in registry(kind).providers():
        if taken.name == name:
            raise UsageError(
                f"{name!r} of {kind} is already provided by {taken.owner} ({taken.target}); "
                f"{component!r} ({owner}) needs another name."
            )
    provider = Provider(kind, name, component, owner)
    check_class(provider)
    _registered.append(provider)


def check_class(provider: Provider) -> None:
    """Raises `SeqdensError` where what is provided as a data set, an encoder or a head is no class of them."""
    if base := BASES.get(provider.kind):
        found, wanted = provider.load(), resolve_name(base)
        if not (isinstance(found, type) and issubclass(found, wanted)):
            raise SeqdensError(
                f"{provider.name!r} of {provider.kind} ({provider.owner}) is {found!r}, "
                f"but must be a class derived from seqdens.{wanted.__name__}."
            )


def _component(kind: str, name: str, options: dict[str, Any]) -> Component:
    found = registry(kind)
    check_class(found.provider(name))
    return found.component(name, options)


def dataset(name: str, /, **options: Any) -> Component:
    """The data set `name` with `options`; raises `UsageError` for what is unknown or has another type.

    >>> dataset("hershey", lines=6).options
    {'lines': 6}
    """
    return _component("datasets", name, options)


def encoder(name: str, /, **options: Any) -> Component:
    """The encoder `name` with `options`; raises `UsageError` for what is unknown or has another type.

    >>> encoder("stacked-lstm", layers=1).describe()
    {'name': 'stacked-lstm', 'hidden_size': 400, 'layers': 1, 'gate_clip': 10.0, 'recurrence': 'auto'}
    >>> encoder("stacked-lstm", depth=1)
    Traceback (most recent call last):
    seqdens.errors.UsageError: 'stacked-lstm' has no option 'depth'; known: gate_clip, hidden_size, layers, recurrence.
    """
    return _component("encoders", name, options)


def head(name: str, /, **options: Any) -> Component:
    """The head `name` with `options`; raises `UsageError` for what is unknown or has another type.

    >>> head("gmm-bernoulli", components=5) == head("gmm-bernoulli", components=5)
    True
    """
    return _component("heads", name, options)


def regulariser(name: str, /, **options: Any) -> Component:
    """The regulariser `name` with `options`; raises `UsageError` for what is unknown or has another type."""
    return _component("regularisers", name, options)


def experiment(name: str) -> Experiment:
    """The experiment `name`; raises `UsageError` for an unknown name, `SeqdensError` for what is no `Experiment`."""
    provider = registry("experiments").provider(name)
    found = provider.load()
    if not isinstance(found, Experiment):
        raise SeqdensError(f"{name!r} of experiments ({provider.owner}) is {found!r}, but must be an Experiment.")
    return found
