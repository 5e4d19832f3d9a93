"""How the options of an experiment get their values.

A configuration is plain nested data, `{part: {option: value}}`, as `config.toml` holds it. Its layers, later wins:
a component's defaults, the experiment, the preset, a configuration file, chosen components, single settings.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from seqdens import components
from seqdens.errors import UsageError
from seqdens.experiments.base import Experiment, Layer
from seqdens.registry import check_options, choices, options_of

Config = dict[str, dict[str, Any]]

COMPONENTS = ("dataset", "encoder", "head")
PARTS = (*COMPONENTS, "training", "sampling")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What is drawn at the end of a run.

    Options:
        count: how many records
        steps: the longest they may become
        bias: 0 for fair samples, above for neater ones
    """

    count: Annotated[int, Meta(ge=1)] = 8
    steps: Annotated[int, Meta(ge=1)] = 700
    bias: Annotated[float, Meta(ge=0)] = 0.0


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
    given = {part: values for part, values in (config or {}).items() if isinstance(values, Mapping)}
    chosen_layer = {part: {"name": name} for part, name in (chosen or {}).items()}
    names = {"name": experiment.dataset["name"]} | dict(given.get("dataset", {})) | chosen_layer.get("dataset", {})
    preset = preset or (config or {}).get("preset") or experiment.preset_for(names["name"])
    if preset and preset not in experiment.presets:
        raise UsageError(f"no preset is named {preset!r}; {choices(preset, experiment.presets)}")
    layers: list[Layer] = [
        {part: getattr(experiment, part) for part in PARTS},
        experiment.presets.get(preset, {}),
        given,
        chosen_layer,
        *({part: {option: value}} for part, option, value in settings),
    ]
    merged: Config = {}
    for layer in layers:
        _merge(merged, layer)
    checked = {part: _checked(part, values) for part, values in merged.items()}
    return ({"preset": preset} if preset else {}) | checked  # type: ignore[return-value]


def parse_setting(text: str) -> tuple[str, str, Any]:
    """`part.option=value` as its three pieces; the value is read as TOML, else taken as text."""
    path, equals, value = text.partition("=")
    part, dot, option = path.strip().partition(".")
    if not (equals and dot and option):
        raise UsageError(f"setting {text!r} must read part.option=value, with a part of {', '.join(PARTS)}.")
    try:
        return part, option, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return part, option, value.strip()


def _merge(config: Config, layer: Layer) -> None:
    """Put a layer on top; another component's name drops the options of the one before."""
    for part, values in layer.items():
        if part not in PARTS:
            raise UsageError(f"no part is named {part!r}; {choices(part, PARTS)}")
        before = config.get(part, {})
        if "name" in values and "name" in before and values["name"] != before["name"]:
            before = {}
        config[part] = {**before, **values}


def _checked(part: str, values: Mapping[str, Any]) -> dict[str, Any]:
    if part in COMPONENTS:
        options = dict(values)
        root = {"root": str(options.pop("root"))} if options.get("root") is not None else {}
        if root and part != "dataset":
            raise UsageError(f"{part} has no option 'root'.")
        name = options.pop("name")
        described = getattr(components, part)(name, **options).describe()
        return {"name": name} | root | described
    options_class = _options_class(part)
    defaults = {name: option.default for name, option in options_of(options_class).items()}
    return defaults | check_options(f"part {part!r}", options_of(options_class), values)


def _options_class(part: str) -> type:
    if part == "sampling":
        return Sampling
    from seqdens.training.trainer import Trainer  # imports torch

    return Trainer
