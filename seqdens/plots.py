"""Figures of what a model predicts along a record, and of a run's losses: `.png`, `.svg` or `.pdf` files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from seqdens.drawing import strokes
from seqdens.errors import UsageError
from seqdens.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from seqdens.batches import Batch
    from seqdens.model import SequenceModel

SUFFIXES = (".png", ".svg", ".pdf")

_WIDTH, _TALLEST = 12.0, 12.0  # inches
_DECADES = 4  # of density that the colours tell apart
_TITLE = 140  # characters a row
_INK, _PEN = "#1c1c28", "#5ad1ff"
_CAPTION: dict[str, Any] = {"loc": "left", "fontsize": 9, "color": "#6b6b76"}
_COLOURS = "magma"
_BAR = (1.01, 0.0, 0.014, 1.0)  # where the colour bar stands, beside axes of unit size


def plot_density(path: str | Path, model: SequenceModel, batch: Batch, title: str = "") -> Path:
    """Plot where the next point was predicted along the one record of a batch, as in Graves (2013), Fig. 10 above.

    Raises what `density_map` raises, `UsageError` for another suffix, `DataError` for ink that is not finite.
    """
    from matplotlib.colors import LogNorm

    from seqdens.density import density_map

    path = _checked(path)
    ink = strokes(batch.points[0].cpu().numpy(), model.columns)
    densities = density_map(model, batch)
    rows, columns = densities.values.shape
    figure = _figure(min(0.87 * _WIDTH * rows / columns, _TALLEST) + 1.4, title)
    axes = figure.add_subplot(xlabel="x, raw units", ylabel="y, raw units")
    position, path_drawn = ("pen position", "ink") if _has_pen(model) else ("position", "record itself")
    axes.set_title(
        f"Colour: the densities, per squared raw unit, of each next {position} given those before it, "
        f"added up over the steps; logarithmic. Blue: the {path_drawn}.",
        **_CAPTION,
    )
    highest = float(np.quantile(densities.values, 0.9995))
    norm = LogNorm(highest / 10**_DECADES, highest, clip=True)
    image = axes.imshow(densities.values, extent=densities.extent, norm=norm, cmap=_COLOURS)
    for stroke in ink:
        axes.plot(*stroke.T, color=_PEN, linewidth=0.5)
    figure.colorbar(image, cax=axes.inset_axes(_BAR), label="density")
    return _save(figure, path)


def plot_mixture(path: str | Path, model: SequenceModel, batch: Batch, title: str = "") -> Path:
    """Plot the mixture's weights along the one record of a batch, as in Graves (2013), Fig. 10 below.

    Raises what `mixture_weights` and `strokes` raise, and `UsageError` for another suffix.
    """
    from matplotlib.ticker import MaxNLocator

    path = _checked(path)
    weights = mixture_weights(model, batch)
    steps, components = weights.shape
    figure = _figure(4.4, title)
    above, axes = figure.subplots(2, height_ratios=(2, 3), sharex=True)
    height, what = ("the pen's height", "where it is") if _has_pen(model) else ("y", "the record")
    above.set_title(f"Above: {height}. Below: the mixture that predicts {what} at each step.", **_CAPTION)
    above.set_ylabel("y, raw units")
    first = 0
    for stroke in strokes(batch.points[0].cpu().numpy(), model.columns):
        above.plot(range(first, first + len(stroke)), stroke[:, 1], color=_INK, linewidth=1.2)
        first += len(stroke)
    above.invert_yaxis()
    extent = (0.5, steps + 0.5, components + 0.5, 0.5)
    image = axes.imshow(weights.T, extent=extent, vmin=0, vmax=1, cmap=_COLOURS, aspect="auto", interpolation="nearest")
    axes.set(xlabel="step", ylabel="component", xlim=extent[:2])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.colorbar(image, cax=axes.inset_axes(_BAR), label="weight")
    return _save(figure, path)


def mixture_weights(model: SequenceModel, batch: Batch) -> np.ndarray:
    """The weights (T, K) of the mixture that predicts each step of the one record of a batch.

    Raises `UsageError` for a head whose distributions have no `weights`.
    """
    import torch

    from seqdens.sampling import evaluating

    with torch.inference_mode(), evaluating(model.modules()):
        weights = getattr(model.predict(batch), "weights", None)
    if weights is None:
        raise UsageError(
            f"the head {model.components['head'].name!r} predicts no mixture, so there are no weights to plot."
        )
    return np.asarray(weights[0].cpu())


def plot_window(path: str | Path, model: SequenceModel, text: str, record: np.ndarray, title: str = "") -> Path:
    """Plot the window over a text along the record (T, D) that writes it, as in Graves (2013), Fig. 13.

    The ink above stands over the steps in which it was written: way that it makes from letter to letter is replaced by
    time. Raises what `attention` and `strokes` raise, and `UsageError` for another suffix.
    """
    from seqdens.writing import attention

    path = _checked(path)
    shares = next(attention(model, [text], [record]))
    steps, characters = shares.shape
    ink = over_time(strokes(record, model.columns), 2 * steps / characters)
    high = min(0.9 * _WIDTH * np.ptp(np.concatenate(ink)[:, 1]) / steps, 0.5 * _TALLEST)
    low = min(max(0.16 * characters, 1.5), _TALLEST)
    figure = _figure(high + low + 1.6, title)
    above, axes = figure.subplots(2, height_ratios=(max(high, 0.3), low), sharex=True)
    above.set_title("Above: the ink over the steps in which it was written. Below: the window.", **_CAPTION)
    for stroke in ink:
        above.plot(*stroke.T, color=_INK, linewidth=1.4, solid_capstyle="round", marker="." * (len(stroke) == 1))
    above.invert_yaxis()
    above.set_axis_off()
    extent = (0.5, steps + 0.5, -0.5, characters - 0.5)
    settings = {"vmin": 0, "vmax": 1, "cmap": _COLOURS, "aspect": "auto", "interpolation": "nearest"}
    image = axes.imshow(shares.T, origin="lower", extent=extent, **settings)
    axes.set(xlabel="step", ylabel="character", xlim=extent[:2])
    axes.set_yticks(range(characters), list(text.replace(" ", "\N{OPEN BOX}")), fontsize=min(8, 50 * low / characters))
    figure.colorbar(image, cax=axes.inset_axes(_BAR), label="share of the window")
    return _save(figure, path)


def over_time(ink: Sequence[np.ndarray], span: float) -> list[np.ndarray]:
    """Strokes (n, 2) of a line where time, in steps, takes the place of the way from letter to letter.

    That way is x averaged over about `span` steps; how x differs from it, and y, are kept, at one scale.
    """
    points = np.concatenate(ink)
    steps = len(points)
    scale = steps / max(np.ptp(points[:, 0]), 1e-9)
    half = min(round(span / 2), steps - 1)
    padded = np.pad(points[:, 0], half, mode="reflect", reflect_type="odd")
    drift = np.convolve(padded, np.full(2 * half + 1, 1 / (2 * half + 1)), mode="valid")
    placed = np.column_stack([np.arange(steps) + (points[:, 0] - drift) * scale, points[:, 1] * scale])
    return np.split(placed, np.cumsum([len(stroke) for stroke in ink])[:-1])


def _has_pen(model: SequenceModel) -> bool:
    return any(column.role == "stroke_end" for column in model.columns)


def _figure(height: float, title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure((_WIDTH, height), facecolor="white", layout="compressed")
    figure.suptitle(fill(title, _TITLE), x=0.01, ha="left", fontsize=11, parse_math=False)
    return figure


def _save(figure: Figure, path: Path) -> Path:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, bbox_inches="tight")
    return path


def _checked(path: str | Path) -> Path:
    check_suffix(path := Path(path))
    return path


def check_suffix(path: Path) -> None:
    """Raises `UsageError` for a file of another kind than figures are saved in."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"cannot plot {str(path)!r}: its suffix is {path.suffix!r}, but must be one of {', '.join(SUFFIXES)}."
        )


def plot_loss(path: str | Path, epochs: Sequence[float], curves: Mapping[str, Sequence[float]], ylabel: str) -> Path:
    """Plot each curve, one loss per epoch (NaN where there was none), as a `.png`; `ylabel` states the unit.

    Raises `UsageError` for another suffix, nothing to plot, and a curve that does not match the epochs.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    path = _checked(path)
    if not len(epochs) or not curves:
        raise UsageError(f"cannot plot {str(path)!r}: there are no epochs or no curves.")
    figure = Figure((7.2, 4.2), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for name, losses in curves.items():
        if len(losses) != len(epochs):
            raise UsageError(f"curve {name!r} has {len(losses)} losses for {len(epochs)} epochs.")
        _plot_curve(axes, name, np.asarray(epochs, float), np.asarray(losses, float))
    axes.set_xlabel("epoch")
    axes.set_ylabel(ylabel, parse_math=False)
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color="#e4e4e8", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return _save(figure, path)


def _plot_curve(axes: Axes, name: str, epochs: np.ndarray, losses: np.ndarray) -> None:
    known = np.isfinite(losses)
    epochs, losses = epochs[known], losses[known]
    if len(losses):
        best = losses.argmin()
        name += f", lowest {losses[best]:.5g} at epoch {epochs[best]:g}".replace("-", "\N{MINUS SIGN}")
    marker = "o" if len(losses) <= 30 else ""
    axes.plot(epochs, losses, label=name.replace("$", r"\$"), marker=marker, markersize=4, linewidth=1.6)
