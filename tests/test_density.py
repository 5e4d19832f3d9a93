"""Densities of next pen positions over the page: where they are, and how much there is of them."""

import numpy as np
import pytest
import torch

import seqdens
from seqdens import density
from seqdens.batches import Batch
from seqdens.datasets.base import SEQUENCE_END, STROKE_END, Column, X, Y
from seqdens.density import density_map
from seqdens.errors import UsageError


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    """Maps that are quick."""
    monkeypatch.setattr(density, "_CELLS", 10_000)
    monkeypatch.setattr(density, "_BLOCK", 5)


def model_with(columns=(X, Y, STROKE_END), mean=(5.0, 0.0), std=(20.0, 20.0), head="gmm-bernoulli", **options):
    torch.manual_seed(0)
    encoder = seqdens.encoder("stacked-lstm", hidden_size=4, layers=1)
    return seqdens.SequenceModel(columns, encoder, seqdens.head(head, **options), mean=mean, std=std)


def batch_of(points):
    points = torch.as_tensor(points, dtype=torch.float32)[None]
    empty = torch.zeros(1, 0, dtype=torch.long)
    length = torch.tensor([points.shape[1]])
    return Batch(points, length, empty, torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long))


def centres(found):
    """Positions x (W,) and y (H,) of the cells' centres."""
    rows, columns = found.values.shape
    return tuple(
        start + found.cell * (np.arange(count) + 0.5) for start, count in ((found.left, columns), (found.top, rows))
    )


def narrow(model, sigma, places):
    """Make every prediction a mixture of narrow Gaussians at these normalised places (K, 2)."""
    output = model.head.output
    torch.nn.init.zeros_(output.weight)
    count = len(places)
    means = torch.as_tensor(places, dtype=torch.float32).T.flatten()
    bias = [torch.zeros(count), means, torch.full((2 * count,), sigma).log(), torch.zeros(count + 1)]
    output.bias.data = torch.cat(bias)
    return model


WALK = np.column_stack([np.full(9, 30.0), [20, -20, 0] * 3, np.zeros(9)])


def test_each_step_adds_a_mass_of_about_one():
    found = density_map(model_with(), batch_of(WALK))
    assert found.values.sum() * found.cell**2 == pytest.approx(len(WALK), rel=0.1)
    assert (found.values >= 0).all()


def test_narrow_predictions_have_their_mass_and_place():
    model = narrow(model_with(components=1), 0.1, [[1.0, -0.5]])
    found = density_map(model, batch_of(WALK))
    assert found.values.sum() * found.cell**2 == pytest.approx(len(WALK), rel=0.02)
    x, y = centres(found)
    before = np.vstack([[0, 0], WALK[:-1, :2].cumsum(axis=0)])
    for left, top in before:
        near = (np.abs(x - left - 25) < 8)[None] & (np.abs(y - top + 10) < 8)[:, None]
        assert found.values[near].sum() * found.cell**2 == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_a_map_is_the_density_in_each_cell(seed):
    rng = np.random.default_rng(seed)
    points = np.column_stack([rng.normal(5, 20, (3, 2)), rng.random(3) < 0.5])
    model, batch = model_with(components=3), batch_of(points)
    found = density_map(model, batch)
    x, y = centres(found)
    before = np.vstack([[0, 0], points[:-1, :2].cumsum(axis=0)])
    inside = np.pad(np.ones_like(found.values[3:-3, 3:-3]), 3)  # half a block at the edge is only about right
    visible = np.argwhere(inside * found.values > found.values.max() / 1000)
    for row, column in rng.choice(visible, 20):
        moved = batch.points.clone()
        moved[0, :, :2] = torch.as_tensor(np.array([x[column], y[row]]) - before)
        with torch.no_grad():
            real = model.predict(batch).terms(model.normalise(moved))["real"].exp().sum() / 400
        assert np.log(found.values[row, column] / float(real)) == pytest.approx(0, abs=0.1)


def test_order_of_columns_states_and_scaling_do_not_matter():
    swapped = (SEQUENCE_END, Y, STROKE_END, X)
    points = np.zeros((9, 4))
    points[:, [3, 1]] = WALK[:, :2]
    model = model_with(swapped, mean=(0.0, 5.0), std=(10.0, 30.0))
    found = density_map(model, batch_of(points))
    assert found.values.sum() * found.cell**2 == pytest.approx(len(points), rel=0.1)


def test_the_page_holds_the_ink_with_a_margin():
    found = density_map(model_with(), batch_of(WALK))
    left, right, bottom, top = found.extent
    assert left < -50 < 270 + 50 < right
    assert top < -50 < 20 + 50 < bottom
    assert found.values.size == pytest.approx(10_000, rel=0.1)


def test_a_pen_that_rests_has_a_map():
    found = density_map(model_with(), batch_of(np.zeros((1, 3))))
    assert np.isfinite(found.values).all()
    assert found.values.sum() * found.cell**2 == pytest.approx(1, rel=0.1)


def test_the_same_record_has_the_same_map():
    model, batch = model_with(), batch_of(WALK)
    np.testing.assert_array_equal(density_map(model, batch).values, density_map(model, batch).values)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ((X, Y, Column("force", "real"), STROKE_END), "real columns are the offsets x and y alone.*x, y, force"),
        ((X, STROKE_END), "this one's are x"),
        ((Column("x", "real"), Column("y", "real")), "are the offsets x and y alone"),
    ],
)
def test_other_columns_are_refused(columns, said):
    count = sum(column.kind == "real" for column in columns)
    model = model_with(columns, mean=(0.0,) * count, std=(1.0,) * count)
    with pytest.raises(UsageError, match=said):
        density_map(model, batch_of(np.zeros((2, len(columns)))))


def test_a_record_that_is_too_long_is_refused():
    with pytest.raises(UsageError, match="10,001 points, and a density can be plotted for 10,000"):
        density_map(model_with(), batch_of(np.zeros((10_001, 3))))
