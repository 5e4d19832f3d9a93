import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqdens.encoders.base import Encoded
from seqdens.encoders.stacked_lstm import StackedLSTM
from seqdens.errors import UsageError


def encoder(**options: int | float) -> StackedLSTM:
    torch.manual_seed(0)
    return StackedLSTM(3, **({"hidden_size": 5, "layers": 2} | options)).double()


def points(batch: int, steps: int) -> Tensor:
    return torch.randn(batch, steps, 3, generator=torch.Generator().manual_seed(batch), dtype=torch.float64)


def encode(model: StackedLSTM, inputs: Tensor, lengths: list[int]) -> Encoded:
    return model(inputs, torch.tensor(lengths), model.start(len(inputs)))


@pytest.mark.parametrize(
    ("options", "alone", "with_output"),
    [({}, 3_222_800, 3_368_121), ({"hidden_size": 900, "layers": 1}, 3_257_100, 3_366_121)],
)
def test_has_the_paper_s_number_of_weights(options: dict[str, int], alone: int, with_output: int) -> None:
    model = StackedLSTM(3, **options)
    output = torch.nn.Linear(model.output_size, 121)
    assert sum(weight.numel() for weight in model.parameters()) == alone
    assert alone + sum(weight.numel() for weight in output.parameters()) == with_output


@pytest.mark.parametrize(("hidden_size", "bound"), [(400, 0.1), (16, 0.25)])
def test_weights_are_drawn_from_the_stated_range(hidden_size: int, bound: float) -> None:
    for weight in StackedLSTM(3, hidden_size=hidden_size, layers=1).parameters():
        assert 0.8 * bound < weight.abs().max() <= bound


@settings(deadline=None, max_examples=20)
@given(
    lengths=st.lists(st.integers(0, 7), min_size=1, max_size=4).filter(any),
    hidden_size=st.integers(1, 6),
    layers=st.integers(1, 3),
)
def test_ragged_batch_equals_each_record_alone(lengths: list[int], hidden_size: int, layers: int) -> None:
    model = encoder(hidden_size=hidden_size, layers=layers)
    inputs = points(len(lengths), max(lengths))
    together = encode(model, inputs, lengths)
    assert together.features.shape == (len(lengths), max(lengths), model.output_size)
    assert together.extras == {}
    for record, length in enumerate(lengths):
        if length == 0:
            assert not any(value[record].any() for value in together.state.values())
            continue
        alone = encode(model, inputs[record : record + 1, :length], [length])
        torch.testing.assert_close(together.features[record, :length], alone.features[0])
        for name, value in together.state.items():
            assert value.shape == (len(lengths), layers, hidden_size)
            torch.testing.assert_close(value[record], alone.state[name][0])


def test_no_steps_leave_the_given_state() -> None:
    model = encoder()
    state = encode(model, points(2, 4), [4, 4]).state
    after = model(points(2, 3), torch.tensor([0, 3]), state).state
    for name in state:
        assert torch.equal(after[name][0], state[name][0])
        assert not torch.equal(after[name][1], state[name][1])


def test_stepping_equals_the_full_pass() -> None:
    model = encoder(layers=3)
    inputs = points(2, 6)
    whole = encode(model, inputs, [6, 6])
    state, features = model.start(2), []
    for t in range(6):
        step = model(inputs[:, t : t + 1], torch.ones(2, dtype=torch.long), state)
        state = step.state
        features.append(step.features)
    torch.testing.assert_close(torch.cat(features, dim=1), whole.features)
    torch.testing.assert_close(state, whole.state)


def test_state_can_be_selected_and_saved() -> None:
    model = encoder()
    inputs = points(3, 5)
    state = encode(model, inputs[:, :3], [3, 3, 3]).state
    chosen = {name: value[[2, 0]].clone() for name, value in state.items()}
    continued = model(inputs[[2, 0], 3:], torch.tensor([2, 2]), chosen)
    torch.testing.assert_close(continued.features, encode(model, inputs, [5, 5, 5]).features[[2, 0], 3:])


def test_padding_changes_nothing_before_it() -> None:
    model = encoder()
    inputs = points(2, 5)
    disturbed = inputs.clone()
    disturbed[0, 2:] = 1e30
    found, expected = encode(model, disturbed, [2, 5]), encode(model, inputs, [2, 5])
    assert torch.equal(found.features[0, :2], expected.features[0, :2])
    assert torch.equal(found.features[1], expected.features[1])
    for name, value in expected.state.items():
        assert torch.equal(found.state[name], value)
    wanted = torch.autograd.grad(expected.features[0, :2].sum(), list(model.parameters()))
    assert all(
        torch.equal(one, other)
        for one, other in zip(
            torch.autograd.grad(found.features[0, :2].sum(), list(model.parameters())), wanted, strict=True
        )
    )


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("hidden_from_it", [slice(0, 3), slice(3, 8)], ids=["input", "layer below"])
def test_every_layer_sees_the_input_and_the_layer_below(layer: int, hidden_from_it: slice) -> None:
    model = encoder(layers=3)
    with torch.no_grad():
        model.layers[layer].input_weight[:, hidden_from_it] = 0
    inputs = points(1, 1).requires_grad_()
    features = encode(model, inputs, [1]).features.unflatten(2, (3, 5))
    (gradient,) = torch.autograd.grad(features[:, :, layer].sum(), inputs)
    assert (gradient != 0).all()


def test_gradients_reach_all_parameters_through_features_and_state() -> None:
    for part in ("features", "hidden", "cell"):
        model = encoder()
        out = encode(model, points(2, 4), [4, 2])
        (out.features if part == "features" else out.state[part]).square().sum().backward()
        for name, weight in model.named_parameters():
            assert weight.grad is not None, (part, name)
            assert weight.grad.any() or (part == "cell" and "1.peepholes" in name), (part, name)


def test_clips_derivatives() -> None:
    model, unclipped = encoder(gate_clip=1e-3), encoder(gate_clip=0.0)
    for one in (model, unclipped):
        encode(one, points(2, 4), [4, 4]).features.sum().backward()
    largest = [max(weight.grad.abs().max().item() for weight in one.parameters()) for one in (model, unclipped)]
    assert largest[0] < 0.1 < largest[1]


def test_bf16_autocast_stays_near_float64() -> None:
    model = encoder(hidden_size=32)
    inputs = points(3, 20)
    exact = encode(model, inputs, [20] * 3).features
    model.float()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encode(model, inputs.float(), [20] * 3)
    assert rounded.features.dtype == rounded.state["cell"].dtype == torch.float32
    assert 1e-5 < (rounded.features - exact).abs().max() < 0.02


def test_works_in_inference_mode() -> None:
    model = encoder()
    with torch.inference_mode():
        found = encode(model, points(2, 3), [3, 1]).features
    assert torch.equal(found, encode(model, points(2, 3), [3, 1]).features)


def test_never_finishes() -> None:
    model = encoder()
    assert model.finished(model.start(3), None).tolist() == [False] * 3


@pytest.mark.parametrize(
    ("sizes", "options", "named"),
    [
        ((0,), {}, "input_size"),
        ((3,), {"hidden_size": 0}, "hidden_size"),
        ((3,), {"layers": -1}, "layers"),
        ((3,), {"gate_clip": -1.0}, "gate_clip"),
        ((3, 57), {}, "takes no text"),
    ],
)
def test_impossible_options_are_named(sizes: tuple[int, ...], options: dict[str, float], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        StackedLSTM(*sizes, **options)
