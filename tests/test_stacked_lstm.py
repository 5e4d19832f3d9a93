"""Graves' layers, beyond what every encoder is tested for (test_contracts)."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from seqdens.encoders.base import Encoded, apply_encoder
from seqdens.encoders.stacked_lstm import StackedLSTM
from seqdens.errors import UsageError


def encoder(**options: Any) -> StackedLSTM:
    torch.manual_seed(0)
    return StackedLSTM(3, **({"hidden_size": 5, "layers": 2} | options)).double()


def points(batch: int, steps: int) -> Tensor:
    return torch.randn(batch, steps, 3, generator=torch.Generator().manual_seed(batch), dtype=torch.float64)


def encode(model: StackedLSTM, inputs: Tensor, lengths: list[int]) -> Encoded:
    return model(inputs, torch.tensor(lengths), model.start(len(inputs)))


def in_int8(model: StackedLSTM, inputs: Tensor, lengths: list[int]) -> Encoded:
    return apply_encoder(model, inputs, torch.tensor(lengths), model.start(len(inputs)), int8=True)


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
        found = in_int8(model, inputs, lengths)
    for record, length in enumerate(lengths):
        torch.testing.assert_close(
            found.features[record, :length], expected.features[record, :length], rtol=0, atol=0.02
        )
    for name, value in found.state.items():
        torch.testing.assert_close(value, expected.state[name], rtol=0, atol=0.02)
    assert not torch.equal(found.features[0], expected.features[0])
    with pytest.raises(UsageError, match=r"int8 have no derivatives: use them within torch\.no_grad"):
        in_int8(model, inputs, lengths)


@pytest.mark.parametrize("enabled", [False, True])
def test_int8_goes_before_autocast(enabled: bool) -> None:
    model, inputs = encoder(hidden_size=40).float(), points(3, 6).float()
    with torch.no_grad():
        expected = in_int8(model, inputs, [6, 6, 6])
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found = in_int8(model, inputs, [6, 6, 6])
    assert torch.equal(found.features, expected.features)


def stepped(model: StackedLSTM, inputs: Tensor, change: Callable[[StackedLSTM], object]) -> Tensor:
    """Features of steps, the model changed after the first."""
    with torch.no_grad():
        stepper, features = model.stepper(model.start(len(inputs))), []
        for t, seen in enumerate(inputs.unbind(1)):
            features.append(stepper(seen))
            if t == 0:
                change(model)
    return torch.stack(features, dim=1)


def move(model: StackedLSTM) -> None:
    """Other memory for every weight, and other numbers where it was."""
    for weight in model.parameters():
        before, weight.data = weight.data, weight.data.clone()
        before.fill_(5.0)


def change_all(model: StackedLSTM) -> None:
    for weight in model.parameters():
        weight.data.add_(1.0)


@pytest.mark.parametrize("recurrence", ["reference", "auto"])
@pytest.mark.parametrize("change", [move, change_all, StackedLSTM.double])
def test_a_stepper_does_not_see_what_becomes_of_the_weights(
    recurrence: str, change: Callable[[StackedLSTM], object]
) -> None:
    model, inputs = encoder(hidden_size=20, recurrence=recurrence).float(), points(2, 5).float()
    expected = encode(model, inputs, [5, 5]).features
    torch.testing.assert_close(stepped(model, inputs, change), expected, rtol=1e-4, atol=1e-5)


class Halved(StackedLSTM):
    def forward(self, *given: Any) -> Encoded:
        encoded = super().forward(*given)
        return encoded._replace(features=0.5 * encoded.features)


class Wrapped(torch.nn.Module):
    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor, *states: Tensor) -> Any:
        return self.layer(0.5 * inputs, *states)


def wrap(model: StackedLSTM) -> None:
    model.layers[1] = Wrapped(model.layers[1])


def hook(model: StackedLSTM) -> None:
    model.layers[0].register_forward_pre_hook(lambda module, given: (0.5 * given[0], *given[1:]))


def hook_whole(model: StackedLSTM) -> None:
    model.register_forward_hook(lambda module, given, encoded: encoded._replace(features=0.5 * encoded.features))


@pytest.mark.parametrize("change", [wrap, hook, hook_whole, None])
def test_what_is_added_to_it_counts_in_every_step(change: Callable[[StackedLSTM], None] | None) -> None:
    torch.manual_seed(0)
    model = (StackedLSTM if change else Halved)(3, hidden_size=20, layers=2)
    if change:
        change(model)
    inputs = points(2, 5).float()
    expected = encode(model, inputs, [5, 5]).features
    torch.testing.assert_close(stepped(model, inputs, lambda model: None), expected)
    with torch.no_grad(), pytest.raises(UsageError, match="int8 pass by what was added"):
        in_int8(model, inputs, [5, 5])


@pytest.mark.parametrize("wrong", ["inputs", "hidden", "cell"])
def test_a_stepper_refuses_other_shapes(wrong: str) -> None:
    model = encoder(hidden_size=20).float()
    state, inputs = model.start(4), torch.zeros(4, 3)
    if wrong == "inputs":
        inputs = torch.zeros(3, 3)
    else:
        state[wrong] = state[wrong][:1]
    with torch.no_grad(), pytest.raises((ValueError, RuntimeError)):
        model.stepper(state)(inputs)


def test_weights_that_do_not_belong_together_are_refused() -> None:
    model, inputs = encoder(hidden_size=20).float(), points(2, 3).float()
    model.layers[1].peepholes.data = model.layers[1].peepholes.data.double()
    with pytest.raises(ValueError, match=r"weights of one layer are torch\.float32, torch\.float32, torch\.float64"):
        encode(model, inputs, [3, 3])
    model.layers[1].peepholes.data = torch.zeros(3, 10)
    with pytest.raises(ValueError, match=r"peepholes are \(3, 10\), but must be \(3, 20\)"):
        model.stepper(model.start(2))
