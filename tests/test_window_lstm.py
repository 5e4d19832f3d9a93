"""Graves' synthesis network, beyond every encoder's contract (test_contracts) and its first layer (test_window)."""

import math

import pytest
import torch
from torch import Tensor

from seqdens.encoders.base import Context, Encoded
from seqdens.encoders.window_lstm import WindowLSTM
from seqdens.errors import UsageError

LETTERS = 4


def encoder(**options: int | float) -> WindowLSTM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 5, "layers": 2, "window_components": 3}
    return WindowLSTM(3, LETTERS, **(sizes | options)).double()


def points(batch: int, steps: int) -> Tensor:
    return torch.randn(batch, steps, 3, generator=torch.Generator().manual_seed(batch), dtype=torch.float64)


def context(*texts: list[int]) -> Context:
    ids = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
    return Context(ids, torch.tensor([len(text) for text in texts]))


def encode(model: WindowLSTM, inputs: Tensor, lengths: list[int], text: Context) -> Encoded:
    return model(inputs, torch.tensor(lengths), model.start(len(inputs), text), text)


def test_has_the_paper_s_number_of_weights() -> None:
    model = WindowLSTM(3, 57, hidden_size=400, layers=3, window_components=10)
    output = torch.nn.Linear(model.output_size, 121)
    assert sum(weight.numel() for part in (model, output) for weight in part.parameters()) == 3_653_751


def test_at_first_the_window_moves_along_the_text_as_a_pen_does() -> None:
    for size in (64, 400):
        model = WindowLSTM(3, 57, hidden_size=size, layers=1)
        text = Context(torch.arange(40).unsqueeze(0), torch.tensor([40]))
        encoded = encode(model.float(), points(1, 200).float(), [200], text)
        speed = encoded.state["kappa"] / 200
        assert ((speed > 0.02) & (speed < 0.08)).all()
        weights = encoded.extras["window"][0]
        assert weights[0].argmax() == 0
        assert weights[100].argmax() == pytest.approx(100 * speed.mean().item() - 1, abs=1.5)
        assert 0.2 < weights.sum(1).mean() < 5


def test_state_is_what_there_is_after_each_record_s_last_step() -> None:
    model, text = encoder(), context([0, 1, 2], [3], [1, 1])
    encoded = encode(model, points(3, 4), [4, 0, 2], text)
    shapes = {"hidden": (3, 2, 5), "cell": (3, 2, 5), "kappa": (3, 3), "window": (3, LETTERS)}
    assert {name: value.shape for name, value in encoded.state.items()} == shapes
    assert not any(value[1].any() for value in encoded.state.values())
    for record, last in ((0, 3), (2, 1)):
        assert torch.equal(encoded.state["hidden"][record].flatten(), encoded.features[record, last])
        assert torch.equal(encoded.state["kappa"][record], encoded.extras["kappa"][record, last])
        window = torch.zeros(LETTERS, dtype=torch.float64)
        for weight, character in zip(encoded.extras["window"][record, last], text.text[record], strict=True):
            window[character] += weight
        torch.testing.assert_close(encoded.state["window"][record], window)
    assert not encoded.extras["window"][1, :, 1:].any()
    assert not encoded.extras["window"][2, :, 2].any()


def test_the_second_layer_sees_the_window_of_its_step_and_the_first_that_of_the_step_before() -> None:
    model = encoder()
    one, other = (encode(model, points(1, 2), [2], context([character])).features for character in (0, 3))
    layers = [features[0].unflatten(1, (2, 5)) for features in (one, other)]
    changed = [(layers[0][step, layer] != layers[1][step, layer]).any().item() for step in (0, 1) for layer in (0, 1)]
    assert changed == [False, True, True, True]


@pytest.mark.parametrize("bias", [-1.0, 0.0])
def test_it_is_finished_where_the_place_after_the_text_weighs_more_than_all_in_it(bias: float) -> None:
    model, text = encoder(layers=1), context([0, 1, 2, 3], [2], [1, 3])
    with torch.no_grad():
        model.window.bias[-3:] = bias
    inputs, lengths = points(3, 12), [12, 12, 7]
    state, ends = model.start(3, text), [math.inf] * 3
    with torch.no_grad():
        for t in range(12):
            step = torch.tensor([int(t < length) for length in lengths])
            encoded = model(inputs[:, t : t + 1], step, state, text)
            state = encoded.state
            hidden = state["hidden"][:, 0]
            alpha, beta, _ = (hidden @ model.window.weight.T + model.window.bias).exp().chunk(3, dim=1)
            for record, length in enumerate(text.lengths.tolist()):
                phi = [
                    (alpha[record] * (-beta[record] * (state["kappa"][record] - u) ** 2).exp()).sum()
                    for u in range(1, length + 2)
                ]
                past = all(phi[-1] > each for each in phi[:-1])
                assert model.finished(state, text)[record] == past
                if past:
                    ends[record] = min(ends[record], t)
    assert ends[1] < ends[0]
    whole = encode(model, inputs, lengths, text).state
    assert torch.equal(model.finished(whole, text), model.finished(state, text))
    assert model.finished({name: value + 1e4 * (name == "kappa") for name, value in state.items()}, text).all()


def test_clips_derivatives_of_gates_and_of_the_window() -> None:
    def largest(**limits: float) -> dict[str, float]:
        model = encoder(**limits)
        encode(model, points(2, 6), [6, 6], context([0, 1], [3])).features.sum().mul(100).backward()
        return {name: weight.grad.abs().max().item() for name, weight in model.named_parameters()}

    free = largest(gate_clip=0.0, window_clip=0.0)
    window, gates = largest(gate_clip=0.0, window_clip=1e-3), largest(gate_clip=1e-3, window_clip=0.0)
    assert window["window.bias"] <= 1.001 * 2 * 6 * 1e-3 < free["window.bias"]
    assert window["layers.1.bias"] == pytest.approx(free["layers.1.bias"])
    assert all(gates[f"layers.{n}.bias"] <= 1.001 * 2 * 6 * 1e-3 < free[f"layers.{n}.bias"] for n in (0, 1))


def test_bf16_autocast_stays_near_float64() -> None:
    model, text = encoder(hidden_size=32, layers=3), context([0, 1, 2, 3, 0, 1], [3, 2, 1], [1])
    inputs = points(3, 40)
    exact = encode(model, inputs, [40] * 3, text)
    model.float()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encode(model, inputs.float(), [40] * 3, text)
    assert rounded.features.dtype == torch.bfloat16
    assert {value.dtype for value in rounded.state.values()} == {torch.float32}
    assert 1e-5 < (rounded.features - exact.features).abs().max() < 0.03
    torch.testing.assert_close(rounded.state["kappa"].double(), exact.state["kappa"], rtol=2e-3, atol=0)


def test_without_a_text_it_says_so() -> None:
    model = encoder()
    with pytest.raises(UsageError, match="window-lstm needs the text that is to be written"):
        model(points(1, 2), torch.tensor([2]), model.start(1))
    with pytest.raises(UsageError, match="window-lstm needs the text that is to be written"):
        model.finished(model.start(1), None)


def test_it_has_no_products_in_int8() -> None:
    model, text = encoder(), context([0])
    with pytest.raises(UsageError, match="WindowLSTM has no products in int8: use bf16 or float32"):
        model.stepper(model.start(1, text), text, int8=True)


@pytest.mark.parametrize(("sizes", "named"), [((0, 4), "input_size"), ((3, 0), "writes texts"), ((3,), "writes texts")])
def test_impossible_sizes_are_named(sizes: tuple[int, ...], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        WindowLSTM(*sizes)
