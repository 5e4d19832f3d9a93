"""The assembled model: what every encoder and head must meet in it, and the paper's equations."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import seqdens
from seqdens.batches import Batch, collate
from seqdens.components import registry
from seqdens.datasets.base import STROKE_END, Column, X, Y
from seqdens.errors import DataError, SeqdensError, UsageError
from seqdens.evaluation import measure
from seqdens.model import SequenceModel
from seqdens.registry import options_of
from seqdens.training.trainer import Trainer

INK = (X, Y, STROKE_END)
COLUMN_SETS = (INK, (Column("value", "real"),), (Column("token", "category", 5),))
SMALL = {"hidden_size": 8, "layers": 2, "components": 2}

every_pair = pytest.mark.parametrize(
    ("encoder", "head"), list(product(registry("encoders").names(), registry("heads").names()))
)


def little(kind: str, name: str) -> Any:
    """The component with as few weights as its options allow."""
    known = options_of(registry(f"{kind}s").provider(name).load())
    return getattr(seqdens, kind)(name, **{option: value for option, value in SMALL.items() if option in known})


def build(make: Callable[..., Any], encoder: str, head: str) -> tuple[Any, Any]:
    """Data that the head can model, and a model for them in float64."""
    torch.manual_seed(0)
    for columns in COLUMN_SETS:
        data = make(columns, train=6)
        try:
            return data, SequenceModel.for_data(data, little("encoder", encoder), little("head", head)).double()
        except UsageError:
            continue
    pytest.fail(f"{head} takes none of the columns tried here")


def batch_of(data: Any, records: list[int]) -> Batch:
    batch = collate(data, np.array(records))
    return batch._replace(points=batch.points.double())


@every_pair
def test_a_record_s_loss_is_its_own(make: Callable[..., Any], encoder: str, head: str) -> None:
    data, model = build(make, encoder, head)
    together = model(batch_of(data, [0, 1, 2, 3, 4, 5])).nats
    order = [4, 2, 5, 0]
    for row, record in zip(model(batch_of(data, order)).nats, order, strict=True):
        alone = model(batch_of(data, [record])).nats[0]
        assert len(alone) == data.lengths_of(np.array([record]))[0]
        for other in (together[record], row):
            torch.testing.assert_close(other[: len(alone)], alone)
            assert not other[len(alone) :].any()


@every_pair
@pytest.mark.parametrize("steps", [1, 3, 5, 100])
def test_pieces_have_the_loss_of_the_whole(make: Callable[..., Any], encoder: str, head: str, steps: int) -> None:
    data, model = build(make, encoder, head)
    batch = batch_of(data, [0, 1, 2, 3, 4, 5])
    whole, pieces = model(batch), list(model.pieces(batch, steps))
    assert [piece.nats.shape[1] for piece in pieces[:-1]] == [steps] * (len(pieces) - 1)
    torch.testing.assert_close(torch.cat([piece.nats for piece in pieces], dim=1), whole.nats)
    for name, term in whole.terms.items():
        torch.testing.assert_close(torch.cat([piece.terms[name] for piece in pieces], dim=1), term)


@every_pair
def test_a_record_shorter_than_a_piece_has_the_gradient_that_it_had(
    make: Callable[..., Any], encoder: str, head: str
) -> None:
    data, model = build(make, encoder, head)
    batch = batch_of(data, [0, 1, 2, 3, 4, 5])
    short = (batch.lengths <= 5).nonzero().flatten()
    assert 0 < len(short) < 6
    gradients = []
    for losses in ([model(batch)], model.pieces(batch, 5)):
        model.zero_grad()
        for loss in losses:
            loss.nats[short].sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("encoder", ["stacked-lstm", "window-lstm"])
def test_gradients_end_where_a_piece_begins(make: Callable[..., Any], encoder: str) -> None:
    data, model = build(make, encoder, "gmm-bernoulli")
    batch = batch_of(data, [int(np.argmax(data.lengths_of(np.arange(6))))])
    points, steps = batch.points.requires_grad_(), 4
    _, second, *_ = model.pieces(batch, steps)
    second.nats.sum().backward()
    reached = points.grad[0].any(dim=1).tolist()
    assert reached == [False] * (steps - 1) + [True] * (steps + 1) + [False] * (len(reached) - 2 * steps)
    points.grad = None
    model(batch).nats[:, steps : 2 * steps].sum().backward()
    assert points.grad[0, : 2 * steps].any(dim=1).all()


@every_pair
def test_padding_changes_nothing_and_gets_no_gradient(make: Callable[..., Any], encoder: str, head: str) -> None:
    data, model = build(make, encoder, head)
    batch = batch_of(data, [0, 1, 2])
    junk = torch.cat([batch.points, batch.points.flip(0, 1)], dim=1)
    longest = batch.points.shape[1]
    valid = torch.arange(junk.shape[1]) < batch.lengths.unsqueeze(1)
    padded = batch._replace(
        points=torch.where(valid.unsqueeze(-1), torch.nn.functional.pad(batch.points, (0, 0, 0, longest)), junk)
    )
    gradients = []
    for each in (batch, padded):
        model.zero_grad()
        loss = model(each)
        loss.nats.sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        torch.testing.assert_close(loss.nats[:, :longest], model(batch).nats)
        assert not loss.nats[~valid[:, : loss.nats.shape[1]]].any()
    torch.testing.assert_close(*gradients)


@every_pair
def test_stepping_gives_the_numbers_of_the_full_pass(make: Callable[..., Any], encoder: str, head: str) -> None:
    data, model = build(make, encoder, head)
    record = int(data.lengths_of(np.arange(6)).argmax())
    batch = batch_of(data, [record])
    targets = model.normalise(batch.points)
    context = model.context(batch)
    state, seen, nats = model.encoder.start(1, context), torch.zeros(1, 1, model.input_size, dtype=torch.double), []
    for t in range(targets.shape[1]):
        features, state, _ = model.encoder(seen, torch.ones(1, dtype=torch.long), state, context)
        nats.append(-model.head(features).log_prob(targets[:, t : t + 1]))
        seen = model.inputs(targets[:, t : t + 1])
    torch.testing.assert_close(torch.cat(nats, dim=1), model(batch).nats)


@every_pair
def test_gradients_reach_every_parameter(make: Callable[..., Any], encoder: str, head: str) -> None:
    data, model = build(make, encoder, head)
    model(batch_of(data, [0, 1, 2, 3, 4, 5])).nats.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@every_pair
def test_the_first_point_is_scored_from_the_null_input(make: Callable[..., Any], encoder: str, head: str) -> None:
    data, model = build(make, encoder, head)
    batch = batch_of(data, [0, 1, 2])
    null = torch.zeros(3, 1, model.input_size, dtype=torch.double)
    context = model.context(batch)
    features = model.encoder(null, torch.ones(3, dtype=torch.long), model.encoder.start(3, context), context).features
    first = model.head(features).log_prob(model.normalise(batch.points[:, :1]))
    torch.testing.assert_close(model.log_prob(batch)[:, :1], first)


@every_pair
def test_a_later_point_does_not_change_an_earlier_loss(make: Callable[..., Any], encoder: str, head: str) -> None:
    data, model = build(make, encoder, head)
    record = int(data.lengths_of(np.arange(6)).argmax())
    batch = batch_of(data, [record])
    before = model(batch).nats[0]
    for t in range(len(before)):
        points = batch.points.clone()
        points[0, t] = (points[0, t] + 1) % 2
        after = model(batch._replace(points=points)).nats[0]
        assert torch.equal(after[:t], before[:t])
        assert after[t] != before[t]
        remembered = encoder != "memoryless"
        assert t + 1 == len(before) or (after[t + 1] != before[t + 1]) == remembered


@every_pair
def test_terms_add_up_to_the_loss(make: Callable[..., Any], encoder: str, head: str) -> None:
    data, model = build(make, encoder, head)
    loss = model(batch_of(data, [0, 1, 2]))
    torch.testing.assert_close(sum(loss.terms.values()), loss.nats)


@every_pair
def test_raw_units_differ_by_the_log_jacobian(make: Callable[..., Any], encoder: str, head: str) -> None:
    data, model = build(make, encoder, head)
    batch = batch_of(data, [0, 1, 2])
    valid = torch.arange(batch.points.shape[1]) < batch.lengths.unsqueeze(1)
    difference = model.log_prob(batch) - model.log_prob(batch, units="raw")
    torch.testing.assert_close(difference, valid * torch.tensor(np.log(data.std).sum()), rtol=1e-6, atol=1e-6)


@every_pair
def test_a_saved_model_gives_equal_numbers(make: Callable[..., Any], tmp_path: Path, encoder: str, head: str) -> None:
    data, model = build(make, encoder, head)
    model.float().save(tmp_path / "model.safetensors")
    again = SequenceModel.load(tmp_path / "model.safetensors")
    batch = collate(data, np.arange(6))
    assert torch.equal(again(batch).nats, model(batch).nats)
    assert torch.equal(again.log_prob(batch, "raw"), model.log_prob(batch, "raw"))
    text = "ab" if model.encoder.takes_text else None
    drawn = [each.sample(2, steps=5, text=text, seed=3) for each in (model, again)]
    for mine, theirs in zip(*drawn, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert again.columns == data.columns
    assert (again.mean, again.std) == (data.mean.tolist(), data.std.tolist())
    assert (again.alphabet, again.origin) == (" ab", {"dataset": "made", "synthetic": True, "record_name": "record"})
    assert {part: component.describe() for part, component in again.components.items()} == {
        part: component.describe() for part, component in model.components.items()
    }


def test_weights_saved_in_half_are_half_the_size_and_near(make: Callable[..., Any], small: Any, tmp_path: Path) -> None:
    model = small(data := make())
    model.encoder.register_buffer("count", torch.tensor(2**53 + 1))
    full, half = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    model.save(full)
    model.save(half, dtype=torch.float16)
    assert load_file(half)["encoder.count"] == 2**53 + 1
    del model.encoder.count
    model.save(half, dtype=torch.float16)
    assert {weights.dtype for weights in load_file(half).values()} == {torch.float16}
    loaded = seqdens.SequenceModel.load(half)
    assert {weights.dtype for weights in loaded.parameters()} == {torch.float32}
    batch = seqdens.collate(data, data.split("train"))
    torch.testing.assert_close(loaded(batch).nats, model(batch).nats, rtol=0, atol=1e-2)
    with torch.no_grad():
        next(model.parameters())[0, 0] = 1e5
    with pytest.raises(UsageError, match=r"encoder.* has values beyond the range of torch.float16"):
        model.save(half, dtype=torch.float16)
    assert {weights.dtype for weights in load_file(half).values()} == {torch.float16}


def test_other_units_are_refused(make: Callable[..., Any], small: Callable[..., Any]) -> None:
    data = make()
    with pytest.raises(UsageError, match="units is 'pixels', but must be 'normalised' or 'raw'"):
        small(data).log_prob(collate(data, np.arange(2)), units="pixels")


# The paper


@pytest.mark.parametrize(("options", "parameters"), [({}, 3_368_121), ({"hidden_size": 900, "layers": 1}, 3_366_121)])
def test_the_paper_s_networks_have_their_number_of_weights(options: dict[str, int], parameters: int) -> None:
    model = SequenceModel(
        INK, seqdens.encoder("stacked-lstm", **options), seqdens.head("gmm-bernoulli"), mean=[0, 0], std=[1, 1]
    )
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def paper_loss(model: SequenceModel, offsets: np.ndarray) -> np.ndarray:
    """Nats of each point by Eqs 7-11, 16-26 of Graves (2013), for one record of raw offsets, in float64."""
    points = offsets.astype(np.float64)
    points[:, :2] = (points[:, :2] - model.mean) / model.std
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
    layers, components = len(model.encoder.layers), model.head.components
    size = weights["encoder.layers.0.peepholes"].shape[1]
    h, c = np.zeros((layers, size)), np.zeros((layers, size))
    x, losses = np.zeros(3), []
    for target in points:
        below = np.zeros(0)
        for layer in range(layers):
            w_x, w_h, peephole, bias = (
                weights[f"encoder.layers.{layer}.{name}"]
                for name in ("input_weight", "recurrent_weight", "peepholes", "bias")
            )
            z_i, z_f, z_c, z_o = np.split(w_x @ np.concatenate([x, below]) + w_h @ h[layer] + bias, 4)
            i = sigmoid(z_i + peephole[0] * c[layer])
            f = sigmoid(z_f + peephole[1] * c[layer])
            c[layer] = f * c[layer] + i * np.tanh(z_c)
            o = sigmoid(z_o + peephole[2] * c[layer])
            below = h[layer] = o * np.tanh(c[layer])
        y = weights["head.output.weight"] @ h.ravel() + weights["head.output.bias"]
        pi, mu_1, mu_2, s_1, s_2, r, e = np.split(y, components * np.arange(1, 7))
        pi, s_1, s_2, rho = np.exp(pi) / np.exp(pi).sum(), np.exp(s_1), np.exp(s_2), np.tanh(r)
        z_1, z_2 = (target[0] - mu_1) / s_1, (target[1] - mu_2) / s_2
        z = z_1**2 + z_2**2 - 2 * rho * z_1 * z_2
        normal = np.exp(-z / (2 * (1 - rho**2))) / (2 * np.pi * s_1 * s_2 * np.sqrt(1 - rho**2))
        end = sigmoid(e[0])
        losses.append(-np.log(pi @ normal) - np.log(end if target[2] else 1 - end))
        x = target
    return np.array(losses)


def test_the_loss_is_the_paper_s(make: Callable[..., Any]) -> None:
    data = make(train=8, longest=30)
    torch.manual_seed(1)
    encoder = seqdens.encoder("stacked-lstm", hidden_size=7, layers=3)
    model = SequenceModel.for_data(data, encoder, seqdens.head("gmm-bernoulli", components=4, sigma_floor=0.0))
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.4)
    nats = model(collate(data, np.arange(8))).nats.detach().numpy()
    for record, length in enumerate(data.lengths_of(np.arange(8))):
        np.testing.assert_allclose(nats[record, :length], paper_loss(model, data.offsets(record)), rtol=1e-4, atol=1e-4)


def test_a_run_without_a_whole_epoch_names_its_last_weights(model: SequenceModel, tmp_path: Path) -> None:
    model.save(tmp_path / "run" / "last.safetensors")
    with pytest.raises(DataError, match=r"no epoch of .*run has ended.*name .*last\.safetensors"):
        SequenceModel.load(tmp_path / "run")


@pytest.mark.parametrize(("part", "wanted"), [("encoder", "Encoded"), ("head", "Distribution")])
def test_what_a_component_must_not_return_is_told_with_its_owner(
    make: Callable[..., Any], small: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, part: str, wanted: str
) -> None:
    data = make()
    model = small(data)
    component = getattr(model, part)
    monkeypatch.setattr(component, "forward", lambda *inputs: (1, 2))
    name = model.components[part].name
    with pytest.raises(SeqdensError, match=rf"forward of '{name}' \(.+\) returns tuple, but must return {wanted}\."):
        model(collate(data, np.array([0])))


def test_texts_are_read_in_the_model_s_own_alphabet(make: Callable[..., Any], small: Callable[..., Any]) -> None:
    model = small(make(texts=("abc",)), encoder="window-lstm")
    data, same = make(texts=("b", "cb"), seed=1), make(texts=("b", "cb", "a"), seed=1)
    assert (data.alphabet, same.alphabet, model.characters) == ("bc", "abc", "abc")
    losses = [model(collate(each, np.arange(2), model.characters)).nats for each in (data, same)]
    assert torch.equal(*losses)
    found = measure(model, data)
    assert found.nats_per_point == pytest.approx(measure(model, data, batch_size=1).nats_per_point)
    with pytest.raises(UsageError, match="character 'z' cannot be written, the alphabet is 'abc'"):
        measure(model, make(texts=("z",)))


def test_data_without_texts_cannot_be_learnt_to_be_written(make: Callable[..., Any], small: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="made has no texts, but encoder window-lstm learns to write them"):
        small(make(texts=("",)), encoder="window-lstm")
    some = make(texts=("a", "", "b"))
    with pytest.raises(DataError, match="4 of 14 records of made have no text, such as train-1, but encoder"):
        small(some, encoder="window-lstm")
    model = small(make(), encoder="window-lstm")
    for each in (Trainer(epochs=1, device="cpu").fit, measure):
        with pytest.raises(DataError, match="such as train-1"):
            each(model, some)
