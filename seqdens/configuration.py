"""How the options of an experiment get their values.

A configuration is plain nested data, `{part: {option: value}}`, as `config.toml` holds it. Its layers, later wins:
a component's defaults, the experiment, the preset, a configuration file, chosen components, single settings.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from seqdens import components
from seqdens.errors import UsageError
from seqdens.experiments.base import Experiment, Layer
from seqdens.registry import check_options, choices, options_of

Config = dict[str, Any]

COMPONENTS = ("dataset", "encoder", "head")
PARTS = (*COMPONENTS, "training", "sampling")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What is drawn at the end of a run.

    Options:
        count: how many records
        steps: the longest they may become
        bias: 0 for fair samples, above for neater ones
        text: what is written, by an encoder that takes text; by default the texts of the first validation records
    """

    count: Annotated[int, Meta(ge=1)] = 8
    steps: Annotated[int, Meta(ge=1)] = 700
    bias: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    text: str = ""


def resolve(
    experiment: Experiment,
    *,
    preset: str | None = None,
    config: Mapping[str, Any] | None = None,
    chosen: Mapping[str, str] | None = None,
    settings: Iterable[tuple[str, str, Any]] = (),
) -> Config:
    """Every option of every part with its value, checked; `chosen` maps a part to a component's name.

    Raises `UsageError` naming the part, the option or the value, and what is possible.
    """
    config = config or {}
    asked = preset or config.get("preset")
    declared = {part: getattr(experiment, part) for part in PARTS}
    later: list[Layer] = [
        {part: values for part, values in config.items() if part not in ("experiment", "preset")},
        {part: {"name": name} for part, name in (chosen or {}).items()},
        *({part: {option: value}} for part, option, value in settings),
    ]
    preset = str(asked or experiment.preset_for(_merged([declared, *later])["dataset"].get("name", "")))
    if preset and preset not in experiment.presets:
        raise UsageError(f"no preset is named {preset!r}; {choices(preset, experiment.presets)}")
    merged = _merged([declared, experiment.presets.get(preset, {}), *later])
    checked = {part: _checked(part, values) for part, values in merged.items()}
    return ({"preset": preset} if preset else {}) | checked


def parse_setting(text: str) -> tuple[str, str, Any]:
    """`part.option=value` as its three pieces; the value is read as TOML, else taken as text."""
    path, equals, value = text.partition("=")
    part, dot, option = path.strip().partition(".")
    if not (equals and dot and option):
        raise UsageError(f"setting {text!r} must read part.option=value, with a part of {', '.join(PARTS)}.")
    try:
        return part, option, tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        return part, option, value.strip()


def _merged(layers: Iterable[Layer]) -> Config:
    """The layers on top of each other; another component's name drops the options of the one before."""
    config: Config = {part: {} for part in PARTS}
    for layer in layers:
        for part, values in layer.items():
            if part not in PARTS:
                raise UsageError(f"no part is named {part!r}; {choices(part, PARTS)}")
            if not isinstance(values, Mapping):
                raise UsageError(f"part {part!r} is {values!r}, but must be a table of options.")
            before = config[part]
            if "name" in values and values["name"] != before.get("name"):
                before = {}
            config[part] = {**before, **values}
    return config


def _checked(part: str, values: Mapping[str, Any]) -> dict[str, Any]:
    if part in COMPONENTS:
        options = dict(values)
        name = str(options.pop("name", ""))
        root = options.pop("root", None) if part == "dataset" else None
        place = {} if root is None else {"root": str(Path(str(root)).resolve())}
        described = getattr(components, part)(name, **options).describe()
        return {"name": name} | place | {option: _plain(value) for option, value in described.items()}
    options_class = _options_class(part)
    defaults = {name: option.default for name, option in options_of(options_class).items()}
    return defaults | check_options(f"part {part!r}", options_of(options_class), values)


def _plain(value: Any) -> Any:
    """`value` as TOML can hold it."""
    return str(value) if isinstance(value, Path) else value


def _options_class(part: str) -> type:
    if part == "sampling":
        return Sampling
    from seqdens.training.trainer import Trainer  # imports torch

    return Trainer
