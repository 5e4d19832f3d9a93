"""Figures of predictions along a record and of losses."""

from typing import Any
from xml.sax.saxutils import unescape

import numpy as np
import pytest
import torch
from lxml import etree
from PIL import Image
from scipy.ndimage import label

import seqdens
from seqdens import density
from seqdens.batches import Batch, collate
from seqdens.datasets.base import SEQUENCE_END, STROKE_END, Column, X, Y
from seqdens.errors import DataError, UsageError
from seqdens.plots import mixture_weights, over_time, plot_density, plot_loss, plot_mixture, plot_window


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    """Density maps that are quick."""
    monkeypatch.setattr(density, "_CELLS", 10_000)
    monkeypatch.setattr(density, "_WATCHED", 2)


def pixels(path):
    """(height, width, 3) of a PNG file."""
    with Image.open(path, formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def first(data: Any) -> Batch:
    """The longest record of a data set."""
    return collate(data, np.array([data.lengths_of(np.arange(len(data))).argmax()]))


def texts(path):
    """The texts that a figure was made of, which its SVG file holds as comments."""
    return [unescape(" ".join(node.text.split())) for node in etree.parse(path).iter(etree.Comment)]


def test_weights_are_those_of_the_prediction(make, small):
    data = make()
    model, batch = small(data), first(data)
    weights = mixture_weights(model, batch)
    assert weights.shape == (batch.points.shape[1], 2)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    with torch.no_grad():
        np.testing.assert_allclose(weights, model.predict(batch).weights[0], rtol=1e-6)


def test_a_mode_of_training_is_kept(make, small):
    data = make()
    model = small(data).train()
    mixture_weights(model, first(data))
    assert model.training


class NoMixture(seqdens.Distribution):
    terms = sample = mean = None


class Plain(torch.nn.Module):
    """A head whose distributions have no weights."""

    noise_size = 1

    def forward(self, features):
        return NoMixture()


@pytest.mark.parametrize("plot", [plot_density, plot_mixture])
@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_predictions_are_plotted(make, small, tmp_path, plot, suffix):
    data = make()
    path = plot(tmp_path / "new" / f"figure{suffix}", small(data), first(data), "a $title$ & more")
    assert path.stat().st_size > 5000
    if suffix == ".svg":
        assert "a $title$ & more" in texts(path)
    if suffix == ".png":
        assert pixels(path).std() > 10


def test_a_long_title_is_wrapped(make, small, tmp_path):
    data = make()
    title = " ".join(map(str, range(100)))
    whole, words = (plot_mixture(tmp_path / f"{n}.svg", small(data), first(data), title[:n]) for n in (9, 999))
    sizes = [float(etree.parse(path).getroot().get("width").removesuffix("pt")) for path in (whole, words)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.01)
    assert set(title.split()) <= set(" ".join(texts(words)).split())


def test_signatures_are_plotted(make, small, tmp_path):
    data = make((X, Y, STROKE_END, SEQUENCE_END))
    assert plot_density(tmp_path / "density.png", small(data), first(data)).is_file()
    assert plot_mixture(tmp_path / "mixture.png", small(data), first(data)).is_file()


@pytest.mark.parametrize(("columns", "pen"), [((X, Y, STROKE_END), True), ((X, Y), False)])
def test_a_pen_is_spoken_of_where_there_is_one(make, small, tmp_path, columns, pen):
    data = make(columns)
    for number, plot in enumerate((plot_density, plot_mixture)):
        written = " ".join(texts(plot(tmp_path / f"{number}.svg", small(data), first(data))))
        assert ("pen" in written) == pen
        assert ("next position" in written or "Above: y." in written) != pen


def test_a_head_without_a_mixture_is_named(make, small, tmp_path):
    data = make()
    model = small(data)
    model.head = Plain()
    with pytest.raises(UsageError, match="'gmm-bernoulli' predicts no mixture"):
        plot_mixture(tmp_path / "figure.png", model, first(data))
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("plot", [plot_density, plot_mixture])
def test_no_ink_no_plot(make, small, tmp_path, plot):
    data = make((Column("price", "real"),))
    with pytest.raises(UsageError, match="column 'x' cannot be drawn; there are: price"):
        plot(tmp_path / "figure.png", small(data), first(data))


@pytest.mark.parametrize("plot", [plot_density, plot_mixture])
def test_another_suffix_is_refused(make, small, tmp_path, plot):
    data = make()
    with pytest.raises(UsageError, match=r"'\.jpeg', but must be one of \.png, \.svg, \.pdf"):
        plot(tmp_path / "figure.jpeg", small(data), first(data))


@pytest.mark.parametrize("plot", [plot_density, plot_mixture])
def test_missing_positions_are_refused(make, small, tmp_path, plot):
    data = make()
    batch = first(data)
    batch.points[0, 1, 0] = torch.nan
    with pytest.raises(DataError):
        plot(tmp_path / "figure.png", small(data), batch)


@pytest.mark.parametrize(
    ("losses", "blobs"),
    [([-3.5], 2), ([np.nan, -1.0, np.nan], 2), ([3.0, -1.0, np.nan, 0.5], 2), ([np.nan] * 2, 1)],
)
def test_the_losses_known_are_plotted_even_a_single_one(tmp_path, losses, blobs):
    epochs = range(1, len(losses) + 1)
    path = plot_loss(tmp_path / "run" / "loss.png", epochs, {"training $": losses}, "loss ($ per line)")
    coloured = np.ptp(pixels(path), axis=2) > 60
    assert label(coloured, np.ones((3, 3)))[1] == blobs  # one of them is the legend's


@pytest.mark.parametrize(
    ("name", "epochs", "curves", "message"),
    [
        ("loss.bmp", [1], {"training": [1.0]}, r"must be one of \.png, \.svg, \.pdf"),
        ("loss.png", [], {"training": []}, "no epochs"),
        ("loss.png", [1], {}, "no curves"),
        ("loss.png", [1, 2], {"training": [1.0]}, "'training' has 1 losses for 2 epochs"),
    ],
)
def test_a_plot_of_nothing_is_refused(tmp_path, name, epochs, curves, message):
    with pytest.raises(UsageError, match=message):
        plot_loss(tmp_path / name, epochs, curves, "loss (nats per line)")
    assert not list(tmp_path.iterdir())


def test_ink_stands_over_the_steps_in_which_it_was_drawn():
    steady = [np.column_stack([np.arange(0.0, 200, 5), np.zeros(40)]), np.column_stack([np.arange(200.0, 300, 5)] * 2)]
    first, second = over_time(steady, 10)
    np.testing.assert_allclose(first[:, 0], np.arange(40), atol=1e-9)
    np.testing.assert_allclose(second[:, 0], np.arange(40, 60), atol=1e-9)
    np.testing.assert_allclose(second[:, 1], second[0, 1] + np.arange(20) * 60 / 59)
    rests = [np.column_stack([np.repeat([0.0, 100.0], 50), np.zeros(100)])]  # at one place, then at another
    (waiting,) = over_time(rests, 20)
    np.testing.assert_allclose(waiting[[10, 89], 0], [10, 89])
    (dot,) = over_time([np.zeros((1, 2))], 10)
    np.testing.assert_allclose(dot, 0, atol=1e-9)


def test_a_window_is_drawn_with_its_text_beside_it(writer, tmp_path):
    (record,) = writer.sample(1, text="bad cab", seed=1)
    path = plot_window(tmp_path / "window.svg", writer, "bad cab", record, "said")
    assert "said" in texts(path)
    labels = [text for text in texts(path) if text in [*"abcd", "\N{OPEN BOX}"]]
    assert labels == list("bad\N{OPEN BOX}cab")
    assert "share of the window" in texts(path)
    with pytest.raises(UsageError, match=r"its suffix is '\.gif'"):
        plot_window(tmp_path / "window.gif", writer, "bad", record)
