"""What installed packages provide: components, found by their entry points, and listeners to run events.

Only this file and `hookspecs` import `entrypoints` and `pluggy`, and only when they are needed: together
they take as long to import as half the command line. Names come from metadata alone; an outsider's code is
imported when its name is used. A *group* is "seqdens.<kind>", and holds lines "name = module:object".

SEQDENS_PLUGINS=a,b keeps the distributions a and b alone (empty: none); SEQDENS_STRICT_PLUGINS=1 raises
what is otherwise reported.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from email import message_from_string
from email.message import Message
from functools import lru_cache, partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from seqdens.builtin import KINDS
from seqdens.errors import SeqdensError, UsageError
from seqdens.registry import Provider, choices, one_line
from seqdens.version import __version__

if TYPE_CHECKING:
    from pluggy import PluginManager

GROUPS = tuple(f"seqdens.{kind}" for kind in (*KINDS, "hooks"))


class Failure(NamedTuple):
    """A sentence on metadata that could not be used; `group` is empty where it may concern any."""

    group: str
    sentence: str


def find(group: str) -> tuple[list[Provider], list[str]]:
    """Who provides the names of `group`, and a sentence for each package whose metadata could not be used.

    With SEQDENS_STRICT_PLUGINS=1 the sentences are raised as `SeqdensError`.
    """
    providers, failures = _scan(tuple(sys.path), os.environ.get("SEQDENS_PLUGINS"))
    sentences = [failure.sentence for failure in failures if failure.group in ("", group)]
    if sentences and _strict():
        raise SeqdensError(" ".join(sentences))
    return [provider for provider in providers if f"seqdens.{provider.kind}" == group], sentences


def load_events(extra: Iterable[object] = ()) -> Events:
    """`extra`, and the listeners of installed packages; of these, one that cannot listen is reported and left out.

    Raises `UsageError` for one of `extra` that cannot.
    """
    extra = list(extra)
    for listener in extra:
        if fault := fault_of(listener):
            raise UsageError(f"{type(listener).__name__} cannot listen to runs: {fault}")
    providers, failures = find("seqdens.hooks")
    for failure in failures:
        _report(failure)
    listeners = []
    for provider in providers:
        try:
            listeners.append((provider, load_listener(provider)))
        except SeqdensError as error:
            _report(str(error), error)
    return Events(extra, listeners)


def load_listener(provider: Provider) -> PluginManager:
    """`provider`'s listener, checked, alone in a manager; raises `SeqdensError` naming who failed and why."""
    plugin = provider.load()
    try:
        listener = plugin() if isinstance(plugin, type) else plugin
        if fault := fault_of(listener):
            raise UsageError(fault)
        return _manager([listener])
    except Exception as error:
        reason = str(error) if isinstance(error, UsageError) else one_line(error)
        raise SeqdensError(f"{provider.name!r} of hooks ({provider.owner}) cannot listen to runs: {reason}") from error


def events_heard(provider: Provider) -> list[str]:
    """The run events that `provider`'s listener is told of; raises what `load_listener` raises."""
    manager = load_listener(provider)
    return [name for name, caller in vars(manager.hook).items() if caller.get_hookimpls()]


def fault_of(listener: object) -> str:
    """What keeps `listener` from being told of events, in a sentence; empty where nothing does."""
    from seqdens import hookspecs

    manager = _manager([])
    specified = [name for name in vars(hookspecs) if manager.parse_hookspec_opts(hookspecs, name)]
    arguments = {name: list(signature(getattr(hookspecs, name)).parameters) for name in specified}
    heard = [name for name in dir(listener) if manager.parse_hookimpl_opts(listener, name)]
    for name in heard:
        if name not in arguments:
            return f"there is no event {name!r}; {choices(name, arguments)}"
        for parameter in signature(getattr(listener, name)).parameters.values():
            if parameter.name not in arguments[name] and parameter.default is parameter.empty:
                return f"{name} has no argument {parameter.name!r}; {choices(parameter.name, arguments[name])}"
    return "" if heard else "no function of it is marked with seqdens.hookimpl."


class Events:
    """Tells listeners what happens: `events.epoch_finished(run=run, metrics=metrics)`; see `hookspecs`.

    What the core's own listeners raise propagates. Each outsider has a manager of its own, since pluggy stops
    a call at the first exception; who raises is reported, then told no more.
    """

    run_started: Callable[..., None]
    metrics_logged: Callable[..., None]
    epoch_finished: Callable[..., None]
    samples_drawn: Callable[..., None]
    run_finished: Callable[..., None]
    run_failed: Callable[..., None]

    def __init__(self, own: Iterable[object], outsiders: Iterable[tuple[Provider, PluginManager]]) -> None:
        self._own = _manager(own)
        self._outsiders = list(outsiders)

    def __getattr__(self, event: str) -> Callable[..., None]:
        if event.startswith("_") or not hasattr(self._own.hook, event):
            raise AttributeError(f"there is no run event {event!r}.")
        return partial(self._tell, event)

    def _tell(self, event: str, **arguments: Any) -> None:
        getattr(self._own.hook, event)(**arguments)
        for listener in list(self._outsiders):
            provider, manager = listener
            try:
                getattr(manager.hook, event)(**arguments)
            except Exception as error:
                self._outsiders.remove(listener)
                failed = f"{provider.name!r} of hooks ({provider.owner}) failed at {event}: {one_line(error)}"
                _report(f"{failed}; it is told no more of this run.", error)


def _manager(listeners: Iterable[object]) -> PluginManager:
    from pluggy import PluginManager

    from seqdens import hookspecs

    manager = PluginManager("seqdens")
    manager.add_hookspecs(hookspecs)
    for listener in reversed(list(listeners)):  # pluggy calls the last one first
        manager.register(listener)
    return manager


def _strict() -> bool:
    return os.environ.get("SEQDENS_STRICT_PLUGINS", "0") not in ("", "0")


def _report(sentence: str, cause: Exception | None = None) -> None:
    if _strict():
        raise SeqdensError(sentence) from cause
    print(f"Warning: {sentence}", file=sys.stderr)


# `entrypoints` is in maintenance mode: `importlib.metadata.distributions` is the replacement, for this
# function and its helpers. Its own queries raise at any package's first malformed file: hence its pieces.
@lru_cache
def _scan(path: tuple[str, ...], chosen: str | None) -> tuple[list[Provider], list[Failure]]:
    infos = _metadata_folders(path)
    wanted = {_normalised(name) for name in (infos if chosen is None else chosen.split(","))} - {""}
    missing = sorted(wanted - set(infos))
    failures = [
        Failure("", f"SEQDENS_PLUGINS names {name!r}, which is not installed{_nearest(name, infos)}")
        for name in missing
    ]
    providers = []
    for name in sorted(wanted & set(infos) - {"seqdens"}):
        owner = f"{name} {infos[name].stem.partition('-')[2] or '(version unknown)'}"
        try:
            lines = _declared_lines(infos[name])
            about = _metadata(infos[name]) if lines else Message()
        except Exception as error:
            failures.append(Failure("", f"The entry points of {owner} cannot be read: {one_line(error)}."))
            continue
        owner = f"{name} {about['Version']}" if about["Version"] else owner
        if wanted_core := _unmet(about):
            failures.append(Failure("", f"{owner} needs {wanted_core}, but this is {__version__}; upgrade seqdens."))
            continue
        for group, key, line in lines:
            try:
                providers.append(_provider(group, key, line, owner))
            except UsageError as error:
                failures.append(Failure(group if group in GROUPS else "", str(error)))
    return providers, failures


def _nearest(name: str, installed: Iterable[str]) -> str:
    """The end of a sentence: the package that is perhaps meant, with or without the usual beginning of its name."""
    for wanted in (f"seqdens-{name.removeprefix('seqdens-')}", name):
        if near := get_close_matches(wanted, installed, n=1, cutoff=0.8):
            return f"; did you mean {near[0]!r}?"
    return "."


def _metadata_folders(path: Iterable[str]) -> dict[str, Path]:
    """Metadata folders by name of distribution; the first on `path` wins, as it does for an import."""
    found: dict[str, Path] = {}
    for folder in path:
        for info in sorted(Path(folder).glob("[!~]*.*-info")):  # pip leaves "~name" behind where it failed
            found.setdefault(_normalised(info.stem.partition("-")[0]), info)
    return found


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _declared_lines(info: Path) -> list[tuple[str, str, str]]:
    """The entry points of seqdens in a metadata folder: group, name and "module:object"."""
    from entrypoints import CaseSensitiveConfigParser

    file = info / "entry_points.txt"
    content = file.read_bytes() if file.is_file() else b""
    if b"seqdens." not in content:
        return []
    parser = CaseSensitiveConfigParser(delimiters=("=",), interpolation=None)
    parser.read_string(content.decode(), source="entry_points.txt")
    groups = [group for group in parser.sections() if group.startswith("seqdens.")]
    return [(group, *line) for group in groups for line in parser.items(group)]


def _metadata(info: Path) -> Message:
    files = (file for file in (info / "METADATA", info / "PKG-INFO") if file.is_file())
    return message_from_string("".join(file.read_text(encoding="utf-8") for file in files))


def _unmet(about: Message) -> str:
    """What a package requires of seqdens that this version is not, as "seqdens>=9"; empty where it is met."""
    for line in about.get_all("Requires-Dist", []):
        if re.match(r"seqdens\b(?!-)", line):
            from packaging.requirements import Requirement

            wanted = Requirement(line)
            active = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
            if active and not wanted.specifier.contains(__version__, prereleases=True):
                return f"seqdens{wanted.specifier}"
    return ""


def _provider(group: str, name: str, line: str, owner: str) -> Provider:
    from entrypoints import BadEntryPoint, EntryPoint

    if group not in GROUPS:
        raise UsageError(f"{owner} declares {name!r} under {group!r}, which is no group; {choices(group, GROUPS)}")
    try:
        entry = EntryPoint.from_string(line, name)
    except BadEntryPoint as error:
        raise UsageError(f"{name!r} of {group} cannot be used ({owner}): {one_line(error)}.") from None
    target = ":".join(filter(None, (entry.module_name, entry.object_name)))
    return Provider(group.removeprefix("seqdens."), name, target, owner)
