"""The transformer: what a step depends on, ragged batches, the cache and its cost, training and sampling."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from seqdens_transformer import Transformer
from seqdens_transformer.transformer import rotate, rotation_of
from torch import Tensor

import seqdens
from seqdens.testing import EncoderContract

LENGTHS = st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=3).filter(any), min_size=1, max_size=4)


@pytest.fixture(autouse=True)
def _in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is installed, this package alone."""
    monkeypatch.setenv("SEQDENS_PLUGINS", "seqdens-transformer")


class TestContract(EncoderContract):
    window = 0
    impossible = (
        ("hidden_size", 0),
        ("hidden_size", 10),
        ("layers", -1),
        ("heads", 0),
        ("heads", 4),
        ("feedforward", 0.0),
        ("feedforward", math.inf),
        ("window", -1),
    )

    @property
    def encoder(self) -> Any:
        return seqdens.encoder("transformer", hidden_size=12, layers=2, heads=3, window=self.window)


class TestContractWithAWindow(TestContract):
    window = 3


def encoder(**options: float) -> Transformer:
    torch.manual_seed(0)
    return Transformer(3, **({"hidden_size": 12, "layers": 2, "heads": 3} | options)).double()


def points(batch: int, steps: int) -> Tensor:
    return torch.randn(batch, steps, 3, generator=torch.Generator().manual_seed(batch), dtype=torch.float64)


def encode(
    model: Transformer, inputs: Tensor, lengths: list[int] | None = None, state: seqdens.State | None = None
) -> seqdens.Encoded:
    given = lengths or [inputs.shape[1]] * len(inputs)
    return model(inputs, torch.tensor(given), model.start(len(inputs)) if state is None else state)


def assert_near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("width", "layers", "feedforward"), [(128, 4, 4.0), (96, 3, 4.0), (60, 1, 2.0)])
def test_has_as_many_weights_as_the_formula(width: int, layers: int, feedforward: float) -> None:
    model = Transformer(3, hidden_size=width, layers=layers, heads=2, feedforward=feedforward)
    inner = -(-2 * feedforward * width // 3)
    block = 4 * width**2 + 3 * width * inner + 2 * width
    assert sum(weight.numel() for weight in model.parameters()) == (3 + 1) * width + layers * block + width


def test_blocks_add_little_at_first() -> None:
    for block in encoder(hidden_size=48).layers:
        for weight in (block.attention_output.weight, block.feedforward_output.weight):
            assert 0.08 < weight.abs().max() * weight.shape[1] ** 0.5 <= 0.1


@pytest.mark.parametrize("window", [0, 2])
def test_a_step_depends_on_all_it_sees_and_on_nothing_else(window: int) -> None:
    model = encoder(window=window)
    inputs = points(1, 8).requires_grad_()
    features = encode(model, inputs).features
    for t in range(8):
        (gradient,) = torch.autograd.grad(features[0, t].square().sum(), inputs, retain_graph=True)
        first = max(0, t - 2 * (window - 1)) if window else 0  # two layers
        assert gradient[0].any(dim=1).tolist() == [first <= step <= t for step in range(8)]


def test_with_a_window_a_layer_sees_as_if_nothing_had_been_before() -> None:
    model = encoder(window=3, layers=1)
    inputs = points(2, 9)
    whole = encode(model, inputs).features
    for t in range(9):
        assert_near(whole[:, t], encode(model, inputs[:, max(0, t - 2) : t + 1]).features[:, -1])


def test_a_window_over_all_steps_is_as_none() -> None:
    inputs, wide, unlimited = points(2, 5), encoder(window=5), encoder()
    assert_near(encode(wide, inputs).features, encode(unlimited, inputs).features)


@settings(deadline=None, max_examples=60)
@given(passes=LENGTHS, window=st.integers(0, 5), layers=st.integers(1, 2))
def test_ragged_passes_equal_each_record_in_one(passes: list[list[int]], window: int, layers: int) -> None:
    model = encoder(window=window, layers=layers)
    state = model.start(3)
    inputs, features = ([Tensor([]).double().reshape(0, size)] * 3 for size in (3, 12))
    for number, lengths in enumerate(passes):
        steps = points(3, max(lengths)) + number
        encoded = encode(model, steps, lengths, state)
        state = encoded.state
        assert state["length"].tolist() == np.sum(passes[: number + 1], axis=0).tolist()
        for record, length in enumerate(lengths):
            inputs[record] = torch.cat([inputs[record], steps[record, :length]])
            features[record] = torch.cat([features[record], encoded.features[record, :length]])
    for one, found in zip(inputs, features, strict=True):
        if len(one):
            assert_near(found, encode(model, one.unsqueeze(0)).features[0])


@pytest.mark.parametrize("window", [0, 4])
def test_steps_after_a_ragged_batch_go_on_from_each_record_s_own_last(window: int) -> None:
    model = encoder(window=window)
    inputs, lengths = points(3, 20), [9, 1, 5]
    state = encode(model, inputs[:, :9], lengths).state
    expected = [encode(model, inputs[i : i + 1, :n]).state for i, n in enumerate(lengths)]
    for t in range(9, 20):
        step = encode(model, inputs[:, t : t + 1], state=state)
        state = step.state
        for record in range(3):
            alone = encode(model, inputs[record : record + 1, t : t + 1], state=expected[record])
            expected[record] = alone.state
            assert_near(step.features[record], alone.features[0])


def test_records_of_a_state_can_be_selected_and_stepped_from_twice() -> None:
    model = encoder()
    inputs = points(3, 7)
    state = encode(model, inputs[:, :4], [4, 2, 3]).state
    chosen = {name: value[[2, 0]] for name, value in state.items()}
    whole = encode(model, inputs[[2, 0], 4:], state=chosen).features
    encode(model, inputs[:, :1], state=state)
    assert_near(encode(model, inputs[:, 4:], state=state).features[[2, 0]], whole)


def test_padding_changes_nothing() -> None:
    model = encoder()
    inputs = points(3, 5)
    for value in (1e300, float("nan")):
        disturbed = inputs.clone()
        disturbed[0, 2:] = disturbed[1] = value
        found, expected = encode(model, disturbed, [2, 0, 5]), encode(model, inputs, [2, 0, 5])
        assert torch.equal(found.features, expected.features)
        assert expected.features.isfinite().all()
        for name, kept in expected.state.items():
            assert torch.equal(found.state[name], kept)
        wanted = torch.autograd.grad(expected.features[0, :2].sum(), list(model.parameters()))
        gradients = torch.autograd.grad(found.features[0, :2].sum(), list(model.parameters()))
        assert all(torch.equal(one, other) for one, other in zip(gradients, wanted, strict=True))


def test_a_record_of_no_steps_among_others_has_finite_gradients() -> None:
    model = encoder(window=2)
    state = encode(model, points(2, 3), [0, 3]).state
    encode(model, points(2, 2), [2, 0], state).features.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


@settings(deadline=None, max_examples=20)
@given(query=st.integers(0, 900), key=st.integers(0, 900), shift=st.integers(0, 5000))
def test_rotary_scores_depend_on_the_relative_position_alone(query: int, key: int, shift: int) -> None:
    x, y = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def score(p: int, q: int) -> float:
        turned = [rotate(z, rotation_of(torch.tensor([[at]]), 16, z.dtype)) for z, at in ((x, p), (y, q))]
        assert_near(turned[0].norm(), x.norm())
        return float((turned[0] * turned[1]).sum())

    assert score(query, key) == pytest.approx(score(query + shift, key + shift), abs=1e-9)
    assert score(0, 1) != pytest.approx(score(0, 2), abs=1e-3)


def test_where_a_sequence_starts_does_not_matter() -> None:
    model = encoder()
    inputs = points(2, 6)
    late = model.start(2) | {"length": torch.tensor([1000, 70])}
    assert_near(encode(model, inputs, state=late).features, encode(model, inputs).features)


def test_order_matters() -> None:
    model = encoder()
    inputs = points(1, 4)
    swapped = inputs[:, [1, 0, 2, 3]]
    assert (encode(model, inputs).features - encode(model, swapped).features)[0, 3].abs().max() > 1e-3


def test_a_step_computes_one_position_and_appends_it() -> None:
    model = encoder()
    sizes: list[int] = []
    for block in model.layers:
        block.register_forward_pre_hook(lambda module, arguments: sizes.append(arguments[0].shape[1]))
    state = encode(model, points(2, 5)).state
    for t in range(1, 4):
        sizes.clear()
        state = encode(model, points(2, 1), state=state).state
        assert sizes == [1, 1]
        assert state["positions"].shape == (2, 5 + t)
        assert all(
            state[f"{part}.{layer}"].shape == (2, 5 + t, 3, 4) for part in ("keys", "values") for layer in (0, 1)
        )


def test_a_window_bounds_the_cache() -> None:
    model = encoder(window=4)
    state = encode(model, points(3, 30), [30, 2, 11]).state
    sizes = []
    for _ in range(20):
        state = encode(model, points(3, 1), state=state).state
        sizes.append(state["positions"].shape[1])
    assert max(sizes[4:]) == 8
    assert min(sizes[4:]) == 4


def test_gradients_reach_the_past_through_the_state() -> None:
    model = encoder()
    inputs = points(2, 4).requires_grad_()
    state = encode(model, inputs, [4, 2]).state
    features = encode(model, points(2, 1), state=state).features
    (gradient,) = torch.autograd.grad(features[:, :, 0].sum(), inputs)
    assert gradient.any(dim=2).tolist() == [[True] * 4, [True, True, False, False]]


def test_bf16_autocast_stays_near_float64() -> None:
    model = encoder(hidden_size=32, heads=2)
    inputs = points(3, 20)
    exact = encode(model, inputs).features
    model.float()
    with torch.autocast("cpu", torch.bfloat16):
        start = encode(model, inputs[:, :15].float())
        rounded = encode(model, inputs[:, 15:].float(), state=start.state)
    assert {value.dtype for value in rounded.state.values()} == {torch.long, torch.float32}
    assert rounded.features.dtype == torch.float32
    error = (torch.cat([start.features, rounded.features], dim=1) - exact).abs().max()
    assert 1e-5 < error < 0.05


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ((0,), {}, "input_size of transformer is 0, but must be at least 1"),
        ((3,), {"heads": 0}, "heads of transformer is 0, but must be at least 1"),
        ((3,), {"hidden_size": 10, "heads": 4}, "hidden_size of transformer is 10, .*multiple of 8"),
        ((3,), {"feedforward": math.inf}, "feedforward of transformer is inf, but must be positive"),
        ((3,), {"window": -1}, "window of transformer is -1, but must be positive, or 0"),
        ((3, 57), {}, "context_size is 57, but transformer takes no text"),
    ],
)
def test_impossible_options_are_named(sizes: tuple[int, ...], options: dict[str, float], message: str) -> None:
    with pytest.raises(seqdens.UsageError, match=message):
        Transformer(*sizes, **options)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> seqdens.Prepared:
    """A few lines of the embedded data set."""
    monkeypatch.setenv("SEQDENS_CACHE", str(tmp_path))
    return seqdens.load("hershey", lines=6, writers=3)


@pytest.fixture
def model(data: seqdens.Prepared) -> seqdens.SequenceModel:
    torch.manual_seed(0)
    part = seqdens.encoder("transformer", hidden_size=16, layers=2, heads=2)
    return seqdens.SequenceModel.for_data(data, part, seqdens.head("gmm-bernoulli", components=2))


def test_training_lowers_the_loss(data: seqdens.Prepared, model: seqdens.SequenceModel) -> None:
    history = seqdens.Trainer(epochs=4, optimiser="adam", learning_rate=3e-3, batch_size=1, device="cpu").fit(
        model, data
    )
    losses = [metrics["train_nats_per_point"] for metrics in history]
    assert losses[-1] < losses[0] - 0.5


class Uncached(Transformer):
    """Reads everything again at every step."""

    def start(self, batch_size: int, context: seqdens.Context | None = None) -> seqdens.State:
        return {"read": self.input.weight.new_zeros(batch_size, 0, self.input.in_features)}

    def forward(
        self, inputs: Tensor, lengths: Tensor, state: seqdens.State, context: seqdens.Context | None = None
    ) -> seqdens.Encoded:
        read = torch.cat([state["read"], inputs], dim=1)
        whole = super().forward(read, lengths * 0 + read.shape[1], super().start(len(read)))
        return seqdens.Encoded(whole.features[:, -inputs.shape[1] :], {"read": read}, {})


@pytest.mark.parametrize("primed", [False, True])
def test_draws_are_those_of_reading_everything_again(
    data: seqdens.Prepared, model: seqdens.SequenceModel, primed: bool
) -> None:
    with torch.no_grad():
        model.head.output.weight *= 5  # so that what was read matters
    prime = data.offsets(0)[:30] if primed else None
    drawn = model.sample(3, steps=20, prime=prime, seed=1)
    weights = model.encoder.state_dict()
    model.encoder = Uncached(3, hidden_size=16, layers=2, heads=2)
    model.encoder.load_state_dict(weights)
    for one, other in zip(drawn, model.sample(3, steps=20, prime=prime, seed=1), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-2)


def test_a_prime_matters(data: seqdens.Prepared, model: seqdens.SequenceModel) -> None:
    one, other = (model.sample(1, steps=3, prime=data.offsets(line)[:30], seed=1)[0] for line in (0, 1))
    assert not np.allclose(one, other)
