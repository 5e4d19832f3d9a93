"""Drawing from a model: what a draw depends on, where records end, primes, and what is refused."""

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import seqdens
from seqdens import sampling
from seqdens.datasets.base import SEQUENCE_END, STROKE_END, Column, X, Y
from seqdens.encoders.base import Context, Encoder, Stepper
from seqdens.errors import UsageError
from seqdens.model import SequenceModel
from seqdens.sampling import Noise


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
        return np.concatenate([source.draw() for _ in range(steps)], axis=1).swapaxes(0, 1)

    drawn = np.stack([noise(seed) for seed in (0, 1, 2**62)])
    assert drawn.shape == (3, 70, 3, 2)
    assert ((drawn >= 0) & (drawn < 1)).all()
    assert len(np.unique(drawn)) > 0.99 * drawn.size
    assert abs(drawn.mean() - 0.5) < 0.04


def test_noise_goes_on_for_the_records_that_are_kept() -> None:
    whole, kept, records = Noise(3, 4, 2), Noise(3, 4, 2), torch.arange(4)
    keep = {1: [3, 1], 70: [1]}  # step: which, of those that there are
    for step in range(140):
        if step in keep:
            kept.keep(torch.tensor(keep[step]))
            records = records[keep[step]]
        assert torch.equal(kept.draw(), whole.draw()[records])


def test_a_sequence_end_stops_its_record_alone(signer: SequenceModel) -> None:
    records = signer.sample(8, steps=200, seed=1)
    assert len({len(record) for record in records}) > 2
    for record in records:
        assert record[-1, 3] == 1
        assert not record[:-1, 3].any()
    assert len(list(signer.stream(8, steps=200, seed=1))) == max(map(len, records))


@pytest.mark.parametrize("count", [2, 20])
def test_an_encoder_that_has_finished_stops_its_record_alone(
    model: SequenceModel, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    steps = iter(range(100))

    def finished(state: Any, context: Any) -> torch.Tensor:
        return torch.arange(len(state["hidden"])) == (0 if next(steps) == 4 else -1)

    whole = model.sample(count, steps=9, seed=0)
    monkeypatch.setattr(model.encoder, "finished", finished)
    assert_alike(model.sample(count, steps=9, seed=0), [whole[0][:5], *whole[1:]])


def test_records_that_end_leave_the_batch_and_the_others_as_they_are(
    signer: SequenceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    signer.head.output.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))

    def draw(leaving: float) -> list[np.ndarray]:
        sizes.clear()
        monkeypatch.setattr(sampling, "LEAVING", leaving)
        return signer.sample(40, steps=100, seed=3)

    staying = draw(math.inf)
    lengths = [len(record) for record in staying]
    going = [sum(length > step for length in lengths) for step in range(max(lengths))]
    assert sizes == [40] * len(going)
    assert_alike(draw(0), staying)
    assert sizes == going
    assert_alike(draw(1 / 8), staying)
    assert sizes != going
    assert all(left > 7 / 8 * size for left, size in zip(going, sizes, strict=True))


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
                seen = model.head(features).sample(noise.draw())
                expected.append((seen * model.scale + model.shift)[:, 0].numpy())
            if t == 2:
                features, state, _ = model.encoder(seen, torch.ones(2, dtype=torch.long), state)
                seen = model.head(features).sample(noise.draw())
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
    modes: list[bool] = []
    for module in (model.encoder, model.head.output):
        module.register_forward_pre_hook(lambda module, inputs: modes.append(module.training))
    model.train().sample(1, steps=2, prime=np.zeros((2, 3)))
    assert len(modes) == 1 + 2 * 2  # the prime; and two steps of both
    assert not any(modes)
    assert all(module.training for module in model.modules())


def test_while_a_stream_waits_modes_are_as_they_were(model: SequenceModel) -> None:
    first, second = model.train().stream(1, steps=4, seed=1), model.stream(1, steps=4, seed=2)
    for points in (first, second, first, second, first, first):
        next(points)
        assert all(module.training for module in model.modules())
    first.close()
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8"])
def test_in_every_precision_the_head_has_the_full_one(model: SequenceModel, precision: str) -> None:
    seen: list[tuple[torch.dtype, bool]] = []
    model.head.output.register_forward_pre_hook(
        lambda module, inputs: seen.append((inputs[0].dtype, torch.is_autocast_enabled("cpu")))
    )
    expected = model.sample(2, steps=4, seed=0)
    alone = model.sample(2, steps=4, seed=0, precision=precision)
    with torch.autocast("cpu", torch.bfloat16):
        within = model.sample(2, steps=4, seed=0, precision=precision)
        assert torch.is_autocast_enabled("cpu")
    assert seen == [(torch.float32, False)] * 12
    for record, same, other in zip(alone, within, expected, strict=True):
        np.testing.assert_array_equal(record, same)
        np.testing.assert_allclose(record, other, rtol=0.1, atol=0.1 * max(model.std))
        assert (precision == "float32") == np.array_equal(record, other)


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8"])
def test_in_every_precision_streams_are_samples(model: SequenceModel, precision: str) -> None:
    streamed = np.stack(list(model.stream(3, steps=20, seed=5, precision=precision)), axis=1)
    for record, other in zip(streamed, model.sample(3, steps=20, seed=5, precision=precision), strict=True):
        np.testing.assert_array_equal(record, other)


def test_a_prime_is_read_in_int8(model: SequenceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError

    prime = np.zeros((4, 3))
    expected = model.sample(2, steps=1, prime=prime, seed=0)
    monkeypatch.setattr(model.encoder, "forward", refuse)
    for record, other in zip(model.sample(2, steps=1, prime=prime, seed=0, precision="int8"), expected, strict=True):
        np.testing.assert_allclose(record, other, rtol=0.1, atol=0.1 * max(model.std))


def test_only_an_encoder_that_has_int8_is_given_the_argument(
    model: SequenceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = model.sample(2, steps=4, seed=0)
    monkeypatch.setattr(type(model.encoder), "stepper", lambda self, state, context: Stepper(self, state, context))
    for record, other in zip(model.sample(2, steps=4, seed=0), expected, strict=True):
        np.testing.assert_allclose(record, other, rtol=1e-4, atol=1e-4)


def test_an_encoder_without_int8_says_so() -> None:
    memoryless = SequenceModel(
        (X, Y, STROKE_END), seqdens.encoder("memoryless"), seqdens.head("gmm-bernoulli"), mean=(0, 0), std=(1, 1)
    )
    with pytest.raises(UsageError, match="precision is 'int8', but must be one of float32, bf16 for encoder 'memoryl"):
        memoryless.sample(precision="int8")
    with pytest.raises(UsageError, match="precision is 'fp8', but must be one of float32, bf16"):
        memoryless.stream(precision="fp8")  # type: ignore[arg-type]


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


def test_a_text_is_needed_by_a_model_that_writes_and_refused_by_others(model: SequenceModel, writer: Any) -> None:
    with pytest.raises(UsageError, match="window-lstm writes a text: say which"):
        writer.sample(1)
    for given in ({"text": "a"}, {"prime_text": "a"}):
        with pytest.raises(UsageError, match="stacked-lstm takes no text: leave it out"):
            model.sample(1, **given)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"text": ""}, "there is no text to write"),
        ({"text": ["a", "b", "c"]}, "there are 3 texts for 2 records: give one for all, or one for each"),
        ({"text": "axé"}, "characters 'x' 'é' cannot be written, the alphabet is ' abcd'"),
        ({"text": "x", "unknown": "skip"}, "there is no text to write"),
        ({"text": "a", "unknown": "drop"}, "unknown is 'drop'"),
        ({"text": "a", "prime": np.zeros((1, 3))}, "belong together: give both, or neither"),
        ({"text": "a", "prime_text": "b"}, "belong together: give both, or neither"),
    ],
)
def test_texts_that_cannot_be_written_are_told(writer: SequenceModel, given: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        writer.sample(2, **given)


def test_every_record_writes_its_own_text_as_if_alone(writer: SequenceModel) -> None:
    texts = ["a", "bad cab dab", "ab", "d", "cad", "abcd abcd", "b", "dd", "a b", "c"]
    drawn = writer.sample(len(texts), text=texts, steps=300, seed=3)
    lengths = [len(record) for record in drawn]
    assert len(set(lengths)) > 4
    assert max(lengths) < 300
    for record, text in enumerate(texts):
        same = writer.sample(record + 1, text=text, steps=300, seed=3)[record]
        assert_alike([same], [drawn[record]])
    assert lengths[5] > lengths[2] > 0
    assert_alike(writer.sample(2, text="ab", seed=3), writer.sample(2, text=["ab", "ab"], seed=3))


def test_unknown_characters_are_skipped_or_replaced(writer: SequenceModel) -> None:
    plain = writer.sample(1, text="ab", seed=1)
    assert_alike(writer.sample(1, text="aéxb", unknown="skip", seed=1), plain)
    assert_alike(writer.sample(1, text="Áb", unknown="replace", seed=1), plain)


def test_it_goes_on_after_a_prime_with_the_text_after_its_text(writer: SequenceModel) -> None:
    """Held to a loop that reads the prime and its text, and a space, with the encoder alone."""
    prime = np.array([[3, 4, 0], [5, -6, 1], [2, 2, 0]], np.float32)
    drawn = writer.sample(1, text="cab", prime=prime, prime_text="bad", steps=1, seed=4)[0]
    ids = torch.tensor([[" abcd".index(each) for each in "bad cab"]])
    context = Context(ids, torch.tensor([7]))
    seen = writer.normalise(torch.from_numpy(prime)).unsqueeze(0)
    shifted = torch.cat([torch.zeros(1, 1, 3), seen], dim=1)
    with torch.no_grad():
        features = writer.encoder(shifted, torch.tensor([4]), writer.encoder.start(1, context), context).features
        point = writer.head(features[:, -1:]).sample(Noise(4, 1, writer.head.noise_size).draw())
    np.testing.assert_allclose(drawn[0], (point[0, 0] * writer.scale + writer.shift).numpy(), rtol=1e-4, atol=1e-4)
    other = writer.sample(1, text="cab", prime=prime, prime_text="d", steps=1, seed=4)[0]
    assert not np.allclose(drawn, other)


def test_without_steps_a_text_has_as_many_as_it_may_need(writer: SequenceModel, monkeypatch: Any) -> None:
    monkeypatch.setattr(type(writer.encoder), "finished", lambda self, state, context: torch.zeros(2, dtype=torch.bool))
    monkeypatch.setattr(type(writer.encoder), "stepper", Encoder.stepper)
    assert [len(record) for record in writer.sample(2, text=["a", "abc"], seed=1)] == [280, 280]
    assert [len(record) for record in writer.sample(2, text="ab", seed=1)] == [220, 220]


def test_a_long_text_stops_at_the_steps(writer: SequenceModel) -> None:
    (record,) = writer.sample(1, text="abcd " * 2000, steps=20, seed=0)
    assert len(record) == 20
