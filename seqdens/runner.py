"""Carrying an experiment out: data, model, training, samples and pictures, all in one run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqdens import components, distributed
from seqdens.cache import Prepared
from seqdens.configuration import Config, Sampling
from seqdens.drawing import is_ink
from seqdens.errors import UsageError
from seqdens.export import save_records
from seqdens.model import SequenceModel
from seqdens.plots import plot_loss
from seqdens.plugins import Events
from seqdens.text import encode
from seqdens.training.run_folder import Run
from seqdens.training.trainer import Trainer


def component(kind: str, part: Mapping[str, Any]) -> components.Component:
    """The component that a part of a configuration describes."""
    options = {name: value for name, value in part.items() if name not in ("name", "root")}
    return getattr(components, kind)(part["name"], **options)


def train_and_sample(
    run: Run, data: Prepared, events: Events, *, resume: bool = False, overwrite: bool = False
) -> list[dict[str, float]]:
    """Train the run's model on `data`, draw samples with its best weights, and leave the pictures.

    Returns the metrics of each epoch. Run events are told of each stage, and of a failure before it is raised, but of
    no run that is refused. What cannot be built leaves no folder behind. Of several processes the first alone draws,
    writes and tells.
    """
    config = run.config
    trainer = Trainer(**config["training"])
    torch.manual_seed(trainer.seed)
    model, texts = distributed.together(lambda: model_and_texts(data, config))
    if distributed.rank() > 0:
        return trainer.fit(model, data, run=run, resume=resume)
    with run.opened(resume=resume, overwrite=overwrite):
        fit = trainer.begin(model, data, run=run, resume=resume, events=events)
        events.run_started(run=run)
        try:
            history = fit()
            run.check_held()
            plot_history(run.path / "loss.png", history)
            events.samples_drawn(run=run, paths=draw_samples(run, model, config, texts))
            events.run_finished(run=run, metrics=history[-1] if history else {})
            return history
        except BaseException as error:
            events.run_failed(run=run, error=error)
            raise


def model_and_texts(data: Prepared, config: Config) -> tuple[SequenceModel, list[str] | None]:
    """The model of the configuration, untrained, and what its samples are to write; raises what cannot be done."""
    model = SequenceModel.for_data(data, component("encoder", config["encoder"]), component("head", config["head"]))
    return model, texts_to_draw(model, data, config)


def texts_to_draw(model: SequenceModel, data: Prepared, config: Config) -> list[str] | None:
    """What samples write, the text asked for or those of the first validation records (without any, training ones).

    None for a model that takes no text. Raises `UsageError` where a text cannot be written.
    """
    sampling = Sampling(**config["sampling"])
    asked, count = sampling.text, sampling.count
    if not model.encoder.takes_text:
        if asked:
            raise UsageError(f"sampling.text is {asked!r}, but encoder {config['encoder']['name']} takes no text.")
        return None
    if asked:
        encode([asked], model.alphabet)
        return [asked] * count
    records = data.split("valid") if len(data.split("valid")) else data.split("train")
    return [data.texts[int(record)] for record in np.resize(records, count)]


def draw_samples(run: Run, model: SequenceModel, config: Config, texts: list[str] | None = None) -> list[Path]:
    """Samples as the configuration asks for them: `samples.svg` and `samples.png` of ink, else `samples.csv`."""
    sampling, seed = config["sampling"], config["training"]["seed"]
    options = {name: sampling[name] for name in ("steps", "bias")}
    records = model.sample(sampling["count"], text=texts, seed=seed, **options)
    suffixes = (".svg", ".png") if is_ink(model.columns) else (".csv",)
    paths = [run.path / f"samples{suffix}" for suffix in suffixes]
    for path in paths:
        save_records(records, path, columns=model.columns, title=caption(model, sampling["bias"]), captions=texts)
    return paths


def caption(model: SequenceModel, bias: float, text: str | None = None) -> str:
    """What a picture of samples says about where they come from, and which text they write if it is one."""
    origin, mark = model.origin.get("dataset", "unknown data"), " (synthetic)" if model.origin.get("synthetic") else ""
    return f"seqdens samples, learnt from {origin}{mark}, bias {bias:g}" + (f": “{text}”" if text else "")


def plot_history(path: Path, history: list[dict[str, float]]) -> None:
    """`loss.png`: nats per point of each epoch, training and validation."""
    if not history:
        return
    names = {"train_nats_per_point": "training", "valid_nats_per_point": "validation"}
    curves = {label: [row[name] for row in history] for name, label in names.items() if name in history[0]}
    plot_loss(path, [int(row["epoch"]) for row in history], curves, "nats per point, normalised units")
