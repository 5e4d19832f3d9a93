"""Graves' layers, beyond what every encoder is tested for (test_contracts)."""

import pytest
import torch
from torch import Tensor

from seqdens.devices import Int8Products
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


def test_state_is_what_every_layer_holds_after_each_record_s_last_step() -> None:
    model = encoder(layers=3)
    encoded = encode(model, points(3, 4), [4, 0, 2])
    assert encoded.extras == {}
    assert {name: value.shape for name, value in encoded.state.items()} == {"hidden": (3, 3, 5), "cell": (3, 3, 5)}
    for record, last in ((0, 3), (2, 1)):
        assert torch.equal(encoded.state["hidden"][record].flatten(), encoded.features[record, last])
    assert not any(value[1].any() for value in encoded.state.values())
    after = model(points(3, 3), torch.tensor([0, 3, 0]), encoded.state).state
    for name, value in encoded.state.items():
        assert torch.equal(after[name][[0, 2]], value[[0, 2]])
        assert not torch.equal(after[name][1], value[1])


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
    assert (rounded.features.dtype, rounded.state["cell"].dtype) == (torch.bfloat16, torch.float32)
    assert 1e-5 < (rounded.features - exact).abs().max() < 0.02


@pytest.mark.parametrize(("sizes", "named"), [((0,), "input_size"), ((3, 57), "takes no text")])
def test_impossible_sizes_are_named(sizes: tuple[int, ...], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        StackedLSTM(*sizes)


def test_int8_is_near_float32_for_ragged_lengths_and_has_no_derivatives() -> None:
    model, inputs, lengths = encoder(hidden_size=40).float(), points(3, 6).float(), [6, 0, 3]
    with torch.no_grad():
        expected = encode(model, inputs, lengths)
        with Int8Products():
            found = encode(model, inputs, lengths)
    for record, length in enumerate(lengths):
        torch.testing.assert_close(
            found.features[record, :length], expected.features[record, :length], rtol=0, atol=0.02
        )
    for name, value in found.state.items():
        torch.testing.assert_close(value, expected.state[name], rtol=0, atol=0.02)
    assert not torch.equal(found.features[0], expected.features[0])
    with Int8Products(), pytest.raises(UsageError, match=r"int8 have no derivatives: use them within torch\.no_grad"):
        encode(model, inputs, lengths)
