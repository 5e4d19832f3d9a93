"""`seqdens show`: what a name stands for, its options, its declaration or the events that it listens to."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import click

from seqdens.builtin import KINDS
from seqdens.cli import aligned, load_command
from seqdens.components import CORE, experiment, registry
from seqdens.errors import UsageError
from seqdens.experiments.base import Experiment
from seqdens.plugins import events_heard, find
from seqdens.registry import Provider, choices

RECIPE = [
    Provider("options of a run", "training", "seqdens.training.trainer:Trainer", CORE),
    Provider("options of a run", "sampling", "seqdens.configuration:Sampling", CORE),
]


@click.command()
@click.argument("name")
def show(name: str) -> None:
    """Show what NAME, one of `seqdens list` or `seqdens plugins` or `training` or `sampling`, is, and its options."""
    registries = [registry(kind) for kind in KINDS]
    found = [each.provider(name) for each in registries if name in each.names()]
    hooks, failures = find("seqdens.hooks")
    found += [provider for provider in [*hooks, *RECIPE] if provider.name == name]
    if not found:
        known = {known for each in registries for known in each.names()}
        known |= {provider.name for provider in [*hooks, *RECIPE]}
        failures = list(dict.fromkeys([failure for each in registries for failure in each.failures] + failures))
        raise UsageError(" ".join([f"nothing is named {name!r};", choices(name, known), *failures]))
    click.echo("\n\n".join(describe(provider) for provider in found))


def describe(provider: Provider) -> str:
    """Kind, name, owner and purpose, then options or declaration, as text."""
    title = f"{provider.name} ({provider.kind}, {provider.owner}, {provider.target})"
    if provider.kind == "commands":
        return f"{title}\n{load_command(provider.name).get_short_help_str(limit=200)}"
    if provider.kind == "hooks":
        events = f"  listens to {', '.join(events_heard(provider))}"
        return "\n".join(filter(None, (title, purpose(provider.load()), events)))
    if provider.kind == "experiments":
        return f"{title}\n\n{declaration(experiment(provider.name))}"
    return "\n".join(filter(None, (title, purpose(provider.load()), options(provider))))


def purpose(component: Any) -> str:
    """The first line of the docstring."""
    return (inspect.getdoc(component) or "").partition("\n")[0]


def declaration(experiment: Experiment) -> str:
    """An experiment as TOML."""
    import tomli_w

    return tomli_w.dumps(experiment.describe()).strip()


def options(provider: Provider) -> str:
    """The options as aligned lines."""
    rows = option_rows(provider)
    return aligned([("option", "type", "default", ""), *rows], "  ") if rows else ""


def option_rows(provider: Provider) -> list[tuple[str, str, str, str]]:
    """Name, type and default of each option and, where the docstring has a line `name: text`, what it does."""
    texts = dict(re.findall(r"^\s*(\w+): (.+)$", inspect.getdoc(provider.load()) or "", re.MULTILINE))
    return [
        (option.name, option.describe_type(), _written(option.default), texts.get(option.name, ""))
        for option in provider.options().values()
    ]


def _written(default: Any) -> str:
    return "None" if default is None else json.dumps(default, default=str)
