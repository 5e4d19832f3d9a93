"""The assembled model: what every encoder and head must meet in it, the paper's equations, sampling, files."""

import json
import math
import pickle
import random
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

import seqdens
from seqdens import components
from seqdens.batches import Batch, collate
from seqdens.components import registry
from seqdens.datasets.base import SEQUENCE_END, STROKE_END, Column, X, Y
from seqdens.encoders.base import Encoded, Encoder
from seqdens.errors import DataError, UsageError
from seqdens.model import Noise, SequenceModel
from seqdens.registry import options_of

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
    state, seen, nats = model.encoder.start(1), torch.zeros(1, 1, model.input_size, dtype=torch.double), []
    for t in range(targets.shape[1]):
        features, state, _ = model.encoder(seen, torch.ones(1, dtype=torch.long), state)
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
    features = model.encoder(null, torch.ones(3, dtype=torch.long), model.encoder.start(3)).features
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
        assert t + 1 == len(before) or after[t + 1] != before[t + 1]


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
    for mine, theirs in zip(model.sample(2, steps=5, seed=3), again.sample(2, steps=5, seed=3), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert again.columns == data.columns
    assert (again.mean, again.std) == (data.mean.tolist(), data.std.tolist())
    assert (again.alphabet, again.origin) == (" ab", {"dataset": "made", "synthetic": True})
    assert {part: component.describe() for part, component in again.components.items()} == {
        part: component.describe() for part, component in model.components.items()
    }


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


# Sampling


@pytest.fixture
def model(make: Callable[..., Any], small: Callable[..., Any]) -> SequenceModel:
    return small(make())


@pytest.fixture
def signer(make: Callable[..., Any], small: Callable[..., Any]) -> SequenceModel:
    """A model of records that end by themselves, about every fifth point."""
    model = small(make((X, Y, STROKE_END, SEQUENCE_END)))
    with torch.no_grad():
        model.head.output.bias[-1] = -1.4
    return model


def assert_alike(some: list[np.ndarray], others: list[np.ndarray]) -> None:
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_a_record_is_drawn_alike_in_any_company(model: SequenceModel, signer: SequenceModel) -> None:
    for each in (model, signer):
        eight = each.sample(8, steps=80, seed=5)
        assert_alike(each.sample(1, steps=80, seed=5), eight[:1])
        assert_alike(each.sample(3, steps=80, seed=5), eight[:3])
        assert not np.allclose(eight[0][:1], eight[1][:1])


def test_samples_have_the_stated_shape_and_units(model: SequenceModel) -> None:
    records = model.sample(3, steps=70, seed=0)
    assert [(record.shape, record.dtype) for record in records] == [((70, 3), np.float32)] * 3
    assert set(np.unique([record[:, 2] for record in records])) == {0, 1}


def test_fewer_steps_draw_the_beginning(model: SequenceModel) -> None:
    assert_alike([model.sample(1, steps=130, seed=5)[0][:10]], model.sample(1, steps=10, seed=5))


def test_streaming_gives_the_points_of_sample(signer: SequenceModel) -> None:
    streamed = np.stack(list(signer.stream(4, steps=40, seed=2)), axis=1)
    assert streamed.shape[0] == 4
    for record, drawn in zip(streamed, signer.sample(4, steps=40, seed=2), strict=True):
        np.testing.assert_array_equal(record[: len(drawn)], drawn)
        assert np.isnan(record[len(drawn) :]).all()


def test_a_seed_repeats_and_none_varies(model: SequenceModel) -> None:
    def draw(seed: int | None) -> np.ndarray:
        return model.sample(1, steps=3, seed=seed)[0]

    np.testing.assert_array_equal(draw(7), draw(7))
    drawn = [draw(seed) for seed in (7, 8, 2**63 - 1, 2**63 - 2, None, None)]
    assert len({record.tobytes() for record in drawn}) == 6


def test_each_seed_record_and_step_has_its_own_noise() -> None:
    def noise(seed: int, steps: int = 70) -> np.ndarray:
        source = Noise(seed, 3, 2)
        return np.stack([source.draw() for _ in range(steps)])

    drawn = np.stack([noise(seed) for seed in (0, 1, 2**62)])
    assert drawn.shape == (3, 70, 3, 2)
    assert ((drawn >= 0) & (drawn < 1)).all()
    assert len(np.unique(drawn)) > 0.99 * drawn.size
    assert abs(drawn.mean() - 0.5) < 0.04


def test_a_sequence_end_stops_its_record_alone(signer: SequenceModel) -> None:
    records = signer.sample(8, steps=200, seed=1)
    assert len({len(record) for record in records}) > 2
    for record in records:
        assert record[-1, 3] == 1
        assert not record[:-1, 3].any()
    assert len(list(signer.stream(8, steps=200, seed=1))) == max(map(len, records))


def test_an_encoder_that_has_finished_stops_its_record_alone(
    model: SequenceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(100))

    def finished(state: Any, context: Any) -> torch.Tensor:
        return torch.tensor([next(steps) >= 4, False])

    whole = model.sample(2, steps=9, seed=0)
    monkeypatch.setattr(model.encoder, "finished", finished)
    assert_alike(model.sample(2, steps=9, seed=0), [whole[0][:5], whole[1]])


def test_a_prime_is_read_first(model: SequenceModel) -> None:
    prime = np.array([[10, -3, 0], [4, 40, 1], [-7, 0.5, 0]])
    state, seen, noise = model.encoder.start(2), torch.zeros(2, 1, 3), Noise(9, 2, model.head.noise_size)
    expected = []
    with torch.no_grad():
        for t in range(3 + 6):
            features, state, _ = model.encoder(seen, torch.ones(2, dtype=torch.long), state)
            if t < 3:
                seen = model.normalise(torch.tensor(prime[t], dtype=torch.float32)).expand(2, 1, 3)
            else:
                seen = model.head(features).sample(torch.from_numpy(noise.draw()).unsqueeze(1))
                expected.append((seen * model.scale + model.shift)[:, 0].numpy())
            if t == 2:
                features, state, _ = model.encoder(seen, torch.ones(2, dtype=torch.long), state)
                seen = model.head(features).sample(torch.from_numpy(noise.draw()).unsqueeze(1))
                expected.append((seen * model.scale + model.shift)[:, 0].numpy())
    drawn = model.sample(2, steps=7, prime=prime, seed=9)
    assert_alike(drawn, list(np.stack(expected, axis=1)))
    assert not np.allclose(drawn[0], model.sample(1, steps=7, seed=9)[0])
    assert_alike(
        model.sample(2, steps=7, prime=prime.astype(int), seed=9),
        model.sample(2, steps=7, prime=prime.astype(int).astype(float), seed=9),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count is 0, but must be at least 1"),
        ({"count": -2}, "count is -2"),
        ({"steps": 0}, "steps is 0"),
        ({"bias": -0.1}, "bias is -0.1, but must be at least 0"),
        ({"bias": math.nan}, "bias is nan"),
        ({"bias": math.inf}, "bias is inf, but must be at least 0 and at most"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is 9223372036854775808, but must be at least 0 and at most"),
        ({"prime": np.zeros((4, 2))}, r"prime is float64 \(4, 2\), but must be numbers \(T, 3\).*x, y, stroke_end"),
        ({"prime": np.zeros((0, 3))}, r"T at least 1"),
        ({"prime": np.zeros(3)}, r"prime is float64 \(3,\)"),
        ({"prime": np.array([["a", "b", "c"]])}, "prime is <U1"),
        ({"prime": np.array([[0, np.inf, 0]])}, "column 'y' of prime must hold finite"),
        ({"prime": np.array([[0, 0, 0.5]])}, "column 'stroke_end' of prime must hold whole numbers from 0 to 1"),
    ],
)
def test_silly_arguments_are_refused(model: SequenceModel, arguments: dict[str, Any], message: str) -> None:
    for draw in (model.sample, model.stream):
        with pytest.raises(UsageError, match=message):
            draw(**arguments)


def test_a_prime_of_unknown_categories_is_refused(model: SequenceModel) -> None:
    model.columns = (*model.columns[:2], Column("token", "category", 3))
    with pytest.raises(UsageError, match="column 'token' of prime must hold whole numbers from 0 to 2"):
        model.sample(prime=np.array([[0, 0, 3]]))


def test_sampling_leaves_modes_and_random_numbers_as_they_were(model: SequenceModel) -> None:
    for training in (True, False):
        model.train(training)
        model.head.train(not training)
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        model.sample(2, steps=3)
        stream = model.stream(2, steps=3)
        next(stream)
        stream.close()
        assert (model.training, model.encoder.training, model.head.training) == (training, training, not training)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]
        assert not torch.is_inference_mode_enabled()


def test_sampling_is_in_evaluation_mode(model: SequenceModel) -> None:
    model.encoder.register_forward_pre_hook(lambda module, inputs: modes.append(module.training))
    modes: list[bool] = []
    model.train().sample(1, steps=2, prime=np.zeros((2, 3)))
    assert modes == [False, False, False]


def constant(model: SequenceModel) -> Any:
    """The model's distribution once its features count for nothing."""
    with torch.no_grad():
        model.head.output.weight.zero_()
        return model.head(torch.zeros(1, 1, model.head.input_size))


def test_samples_have_the_moments_of_the_head(model: SequenceModel) -> None:
    torch.manual_seed(2)
    with torch.no_grad():
        model.head.output.bias.normal_(0, 0.7)
    distribution = constant(model)
    drawn = np.concatenate(model.sample(200, steps=100, seed=0)).astype(np.float64)
    weights, means, sigmas = (
        part[0, 0].double().numpy() for part in (distribution.weights, distribution.means, distribution.sigmas)
    )
    mean = means @ weights
    std = np.sqrt((sigmas**2 + means**2) @ weights - mean**2)
    end = distribution.mean()[0, 0, 2].item()
    np.testing.assert_allclose(distribution.mean()[0, 0, :2], mean, rtol=1e-5)
    error = 5 / np.sqrt(len(drawn))
    normalised = (drawn[:, :2] - model.mean) / model.std
    np.testing.assert_allclose(normalised.mean(0), mean, atol=error * std.max())
    np.testing.assert_allclose(normalised.std(0), std, rtol=2 * error)
    assert abs(drawn[:, 2].mean() - end) < error / 2


def test_a_large_bias_draws_the_heaviest_mean(model: SequenceModel) -> None:
    with torch.no_grad():
        model.head.output.bias[0] = 0.5
    distribution = constant(model)
    expected = distribution.heaviest_mean()[0, 0, :2] * model.scale[:2] + model.shift[:2]
    for bias in (60.0, 1e6):
        drawn = model.sample(2, steps=4, bias=bias, seed=0)
        np.testing.assert_allclose(np.concatenate(drawn)[:, :2], expected.expand(8, 2), rtol=1e-3, atol=1e-3)


def test_a_model_in_float64_draws_the_same(model: SequenceModel) -> None:
    single = model.sample(2, steps=5, prime=np.ones((2, 3)), seed=0)
    assert_alike(model.double().sample(2, steps=5, prime=np.ones((2, 3)), seed=0), single)


# Files


def test_a_run_folder_stands_for_its_best_weights(model: SequenceModel, tmp_path: Path) -> None:
    model.save(tmp_path / "run" / "best.safetensors")
    assert SequenceModel.load(tmp_path / "run").columns == model.columns


@pytest.mark.parametrize("place", ["nowhere.safetensors", "."])
def test_missing_weights_are_said_to_be_missing(tmp_path: Path, place: str) -> None:
    with pytest.raises(DataError, match=r"there are no weights at .*safetensors; a run writes"):
        SequenceModel.load(tmp_path / place)


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_a_pickle_is_not_unpickled(tmp_path: Path) -> None:
    path, mark = tmp_path / "best.safetensors", tmp_path / "exploded"
    for write in (lambda: path.write_bytes(pickle.dumps(Bomb(mark))), lambda: torch.save({"a": Bomb(mark)}, path)):
        write()
        with pytest.raises(DataError, match="is no seqdens model"):
            SequenceModel.load(path)
        assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()


def test_a_file_cut_short_is_refused(model: SequenceModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model.save(path)
    whole = path.read_bytes()
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="is no seqdens model"):
            SequenceModel.load(path)


def rewritten(path: Path, **changes: Any) -> None:
    """Change the description in a weights file, keeping its weights."""
    with safetensors.safe_open(path, "pt") as file:
        described = json.loads(file.metadata()["seqdens"]) | changes
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    safetensors.torch.save_file(weights, path, {"seqdens": json.dumps(described)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "else"}, "is no seqdens model: its description has no format 'seqdens-model'"),
        ({"version": 99}, "has model format 99, this seqdens reads 1"),
        ({"columns": [["x", "real"]]}, "does not hold the model that it describes"),
        ({"columns": 3}, "does not hold the model that it describes"),
        ({"mean": [1.0]}, "does not hold the model that it describes"),
        ({"encoder": None}, "does not hold the model that it describes"),
        ({"encoder": {"provider": "someone", "options": {}}}, "does not hold the model that it describes"),
        (
            {"encoder": {"provider": "seqdens", "options": {"name": "stacked-lstm", "hidden_size": 9}}},
            "does not hold the model that it describes .*size mismatch",
        ),
        (
            {"encoder": {"provider": "seqdens", "options": {"name": "stacked-lstm", "hidden_size": 0}}},
            "does not hold the model that it describes .*hidden_size",
        ),
        (
            {"encoder": {"provider": "nice-lstm 1.4", "options": {"name": "nice"}}},
            "needs the encoder 'nice' of nice-lstm 1.4: there is no 'nice' among the encoders",
        ),
        (
            {"head": {"provider": "seqdens 9", "options": {"name": "gmm-bernoulli", "newer": 1}}},
            "needs the head 'gmm-bernoulli' of seqdens 9: .* has no option 'newer'",
        ),
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    model: SequenceModel, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "model.safetensors"
    model.save(path)
    rewritten(path, **changes)
    with pytest.raises(DataError, match=message):
        SequenceModel.load(path)


@pytest.mark.parametrize("metadata", [None, {}, {"other": "1"}, {"seqdens": "no JSON"}, {"seqdens": "[]"}])
def test_safetensors_of_others_are_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path, metadata)
    with pytest.raises(DataError, match="is no seqdens model"):
        SequenceModel.load(path)


class Tied(Encoder):
    """Two names for one weight."""

    def __init__(self, input_size: int, context_size: int = 0) -> None:
        super().__init__()
        self.output_size = input_size
        self.one = nn.Linear(input_size, input_size)
        self.two = nn.Linear(input_size, input_size)
        self.two.weight = self.one.weight

    def start(self, batch_size: int, context: Any = None) -> dict[str, torch.Tensor]:
        return {"nothing": torch.zeros(batch_size, 1)}

    def forward(self, inputs: Any, lengths: Any, state: Any, context: Any = None) -> Encoded:
        return Encoded(self.two(self.one(inputs).tanh()), state, {})


def test_a_plugin_s_model_with_tied_weights_is_saved_and_missed_by_name(
    make: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(components, "_registered", [])
    seqdens.register("encoders", "tied", Tied)
    model = SequenceModel.for_data(make(), seqdens.encoder("tied"), seqdens.head("gmm-bernoulli", components=2))
    path = tmp_path / "model.safetensors"
    model.save(path)
    assert_alike(SequenceModel.load(path).sample(2, steps=3, seed=0), model.sample(2, steps=3, seed=0))
    components._registered.clear()
    with pytest.raises(DataError, match="needs the encoder 'tied' of registered in code by"):
        SequenceModel.load(path)


def test_a_failing_save_keeps_the_old_file(
    model: SequenceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    model.save(path)
    before = path.read_bytes()

    def full(path: Path, content: bytes) -> None:
        path.write_text("half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="No space left on device"):
        model.save(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.glob("*model*")] == ["model.safetensors"]
    assert not list(tmp_path.glob(".*"))
