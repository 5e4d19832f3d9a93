"""Every implementation of the layer with the window, held to the reference (test_window) in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqdens.encoders import recurrence
from seqdens.encoders.base import Context, Stepper
from seqdens.encoders.recurrence import Read, compiled
from seqdens.encoders.window_lstm import WindowLSTM, _Stepper

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}  # of the norm of a result in float64
PRECISIONS = [torch.float32, torch.bfloat16]


HELD = [HealthCheck.function_scoped_fixture]  # the level stays what it is for all examples


def operands(
    steps: int, batch: int, size: int, alphabet: int = 7, longest: int = 9, components: int = 3, width: int = 3
) -> tuple[list[Tensor], Tensor]:
    """Those that want gradients, ordinary float32 numbers in float64; ragged texts, on which the window advances."""
    generator = torch.Generator().manual_seed(steps + batch + size)
    bound = size**-0.5
    shapes_and_scales = (
        ((steps, batch, width), 1.0),
        ((4 * size, width + alphabet), bound),
        ((4 * size, size), bound),
        ((3, size), 0.3),
        ((4 * size,), 0.3),
        ((3 * components, size), bound),
        ((3 * components,), 0.3),
        ((batch, size), 0.5),
        ((batch, size), 1.0),
        ((batch, alphabet), 0.5),
        ((batch, components), 0.5),
    )
    draws = [scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape, scale in shapes_and_scales]
    draws[6] += torch.tensor([1 / components, 0.6, 2 * longest / (3 * steps)]).log().repeat_interleave(components)
    draws[-1].abs_()
    texts = torch.randint(alphabet, (batch, longest + 1), generator=generator)
    lengths = torch.randint(1, longest, (batch, 1), generator=generator, dtype=torch.long) if longest > 1 else 1
    exact = [draw.float().double().requires_grad_() for draw in draws]
    return exact, texts.where(torch.arange(longest + 1) < lengths, alphabet)


def single(wanting: list[Tensor]) -> list[Tensor]:
    return [each.detach().float().requires_grad_() for each in wanting]


def run(wanting: list[Tensor], texts: Tensor, limits: tuple[float, float], implementation: str, dtype: Any) -> Read:
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        return recurrence.window_lstm(*wanting, texts, *limits, implementation)


def results(
    wanting: list[Tensor],
    texts: Tensor,
    limits: tuple[float, float],
    implementation: str,
    dtype: torch.dtype,
    used: tuple[int, ...] = (0, 1, 2, 3),
) -> list[Tensor]:
    """What is read, and the gradients of a weighted sum of those parts of it that are `used`."""
    read = run(wanting, texts, limits, implementation, dtype)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(part.shape, generator=generator, dtype=torch.float64) for part in read[:4]]
    loss = torch.stack([(weights[each] * read[each]).sum() for each in used]).sum()
    return [*read, *torch.autograd.grad(loss, wanting)]


def assert_near(found: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
        assert (one - other).norm() <= tolerance * other.norm(), number


SIZES = [  # steps, sequences, cells, characters, places, Gaussians, inputs
    (1, 4, 5, 1, 1, 1, 1),
    (5, 2, 16, 16, 15, 1, 3),
    (6, 3, 33, 17, 16, 10, 3),
    (12, 17, 48, 40, 30, 16, 7),
    (9, 33, 20, 90, 60, 17, 3),
    (20, 26, 100, 57, 24, 10, 3),
]


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("limits", [(0.0, 0.0), (0.2, 0.1), (10.0, 10.0)])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_implementation_is_near_float64(
    implementation: str, dtype: torch.dtype, limits: tuple[float, float], sizes: tuple[int, ...]
) -> None:
    exact, texts = operands(*sizes)
    found = results(single(exact), texts, limits, implementation, dtype)
    assert [each.dtype for each in found] == [dtype, *[torch.float32] * (len(found) - 1)]
    assert_near(found, results(exact, texts, limits, "reference", torch.float64), TOLERANCE[dtype])


@pytest.mark.usefixtures("level")
@settings(deadline=None, suppress_health_check=HELD, max_examples=30)
@given(
    steps=st.integers(1, 12),
    batch=st.integers(1, 20),
    size=st.integers(1, 40),
    alphabet=st.integers(1, 90),
    longest=st.integers(1, 60),
    components=st.integers(1, 10),
    limits=st.sampled_from([(0.0, 0.0), (0.1, 0.0), (0.0, 0.1), (3.0, 3.0)]),
)
def test_any_size_is_near_float64(
    steps: int, batch: int, size: int, alphabet: int, longest: int, components: int, limits: tuple[float, float]
) -> None:
    exact, texts = operands(steps, batch, size, alphabet, longest, components)
    wanted = results(exact, texts, limits, "reference", torch.float64)
    found = results(single(exact), texts, limits, "cpu", torch.float32)
    # of all together, since the sum of a few numbers, as a gradient of one cell is, may cancel to next to nothing
    assert_near([torch.cat([*map(torch.flatten, found)])], [torch.cat([*map(torch.flatten, wanted)])], 1e-4)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("at_once", [1, 2**8, 2**10])
def test_in_how_many_parts_derivatives_are_found_changes_little(
    dtype: torch.dtype, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, texts = operands(11, 3, 20)
    monkeypatch.setattr(compiled, "AT_ONCE", at_once)
    wanted = results(exact, texts, (0.5, 0.5), "reference", torch.float64)
    assert_near(results(single(exact), texts, (0.5, 0.5), "cpu", dtype), wanted, TOLERANCE[dtype])


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("used", range(4))
def test_gradients_of_one_output_alone(dtype: torch.dtype, used: int) -> None:
    exact, texts = operands(6, 5, 20)
    wanted = results(exact, texts, (1.0, 1.0), "reference", torch.float64, (used,))
    assert_near(results(single(exact), texts, (1.0, 1.0), "cpu", dtype, (used,)), wanted, TOLERANCE[dtype])


@pytest.mark.usefixtures("level")
def test_clipping_changes_the_gradients_of_all_weights() -> None:
    exact, texts = operands(12, 3, 20)
    free, clipped = (results(single(exact), texts, limits, "cpu", torch.float32) for limits in ((0.0, 0.0), (0.2, 0.1)))
    for one, other in zip(free[6:12], clipped[6:12], strict=True):
        assert (one - other).norm() > 0.1 * one.norm()


@pytest.mark.usefixtures("level")
def test_weights_that_have_changed_are_used_as_they_are() -> None:
    exact, texts = operands(9, 2, 20)
    given = single(exact)
    changes: tuple[Callable[[Tensor], object], ...] = (
        Tensor.neg_,
        lambda weight: weight.mul_(0.5),
        lambda weight: weight.set_(weight * 2),
    )
    for weight, change in zip((given[1], given[2], given[5]), changes, strict=True):
        with torch.no_grad():
            change(weight)
        wanted = results(given, texts, (0.0, 0.0), "reference", torch.float32)
        assert_near(results(given, texts, (0.0, 0.0), "cpu", torch.float32), wanted, 1e-5)


@pytest.mark.usefixtures("level")
def test_inputs_of_any_layout_are_read_as_they_are() -> None:
    exact, texts = operands(6, 5, 20, alphabet=16)
    given = single(exact)
    wanted = results(given, texts, (1.0, 1.0), "cpu", torch.float32)
    for index, each in enumerate(given):
        if each.dim() > 1:
            turned = each.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
            found = results([*given[:index], turned, *given[index + 1 :]], texts, (1.0, 1.0), "cpu", torch.float32)
            assert_near(found, wanted, TOLERANCE[torch.float32])
    found = results(given, texts.T.contiguous().T, (1.0, 1.0), "cpu", torch.float32)
    assert_near(found, wanted, TOLERANCE[torch.float32])


@pytest.mark.usefixtures("level")
def test_derivatives_of_any_layout_are_read_as_they_are() -> None:
    exact, texts = operands(6, 5, 20)
    given = single(exact)
    read = run(given, texts, (1.0, 1.0), "cpu", torch.float32)[:4]
    straight = [torch.randn_like(part) for part in read]
    turned = [each.permute(2, 1, 0).contiguous().permute(2, 1, 0) for each in straight]
    found, wanted = (torch.autograd.grad(read, given, each, retain_graph=True) for each in (turned, straight))
    assert_near([*found], [*wanted], TOLERANCE[torch.float32])


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_the_number_of_threads_changes_next_to_nothing(dtype: torch.dtype) -> None:
    exact, texts = operands(8, 20, 90)
    before, outcomes = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outcomes.append(results(single(exact), texts, (1.0, 1.0), "cpu", dtype))
    finally:
        torch.set_num_threads(before)
    for outcome in outcomes[1:]:
        assert_near(outcome, outcomes[0], 1e-6)


@pytest.mark.usefixtures("level")
def test_backward_twice_gives_the_same_and_leaves_operands_as_they_were() -> None:
    exact, texts = operands(6, 3, 20)
    given = single(exact)
    before = [each.detach().clone() for each in (*given, texts)]
    loss = sum(part.square().sum() for part in run(given, texts, (1.0, 1.0), "cpu", torch.float32)[:4])
    first = torch.autograd.grad(loss, given, retain_graph=True)
    assert all(torch.equal(*pair) for pair in zip(first, torch.autograd.grad(loss, given), strict=True))
    assert all(torch.equal(*pair) for pair in zip((*given, texts), before, strict=True))


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_hidden_and_stays_in_its_record(
    implementation: str, dtype: torch.dtype, bad: float
) -> None:
    exact, texts = operands(8, 5, 40)
    given, others = single(exact), [0, 1, 3, 4]
    given[0].data[3, 2, 1] = bad
    found = results(given, texts, (1.0, 1.0), implementation, dtype)
    for part in found[:5]:
        assert part[:3].isfinite().all()
        assert part[:, others].isfinite().all()
    if bad != bad:
        assert all(found[part][3:, 2].isnan().all() for part in (0, 1, 3, 4))
        assert found[2][3:, 2].isnan().any(1).all()
        assert not any(gradient.isfinite().all() for gradient in found[6:12])


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("used", range(4))
def test_a_derivative_that_is_not_a_number_stays_in_its_record(used: int) -> None:
    exact, texts = operands(8, 5, 40)
    given = single(exact)
    texts[2, 0] = 0
    part = run(given, texts, (1.0, 1.0), "cpu", torch.float32)[used]
    incoming = torch.ones_like(part)
    incoming[5, 2, 0] = float("nan")
    d_inputs, d_h0 = torch.autograd.grad(part, (given[0], given[7]), incoming)
    assert d_inputs[:, [0, 1, 3, 4]].isfinite().all()
    assert d_inputs[6:].isfinite().all()
    assert d_h0[2].isnan().all()


@pytest.mark.usefixtures("level")
def test_a_character_that_is_none_of_the_alphabet_is_refused() -> None:
    exact, texts = operands(2, 2, 5)
    for bad in (-1, 8):
        texts[0, 0] = bad
        with pytest.raises(IndexError, match="not one of the 7"):
            run(single(exact), texts, (0.0, 0.0), "cpu", torch.float32)


def encoder(recurrence: str, size: int, layers: int, components: int = 3, alphabet: int = 7) -> WindowLSTM:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": size, "layers": layers, "window_components": components}
    made = WindowLSTM(3, alphabet, recurrence=recurrence, **sizes)
    with torch.no_grad():
        made.window.bias[-components:] = -1.0
    return made


def context(batch: int, longest: int, alphabet: int = 7) -> Context:
    generator = torch.Generator().manual_seed(batch)
    lengths = torch.randint(1, longest + 1, (batch,), generator=generator)
    return Context(torch.randint(alphabet, (batch, longest), generator=generator), lengths)


def follow(made: WindowLSTM, text: Context, inputs: Tensor, dtype: torch.dtype) -> tuple[Stepper, list[Tensor]]:
    """A stepper after all `inputs` (T, B, F), and of each step the features and what is finished."""
    found = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        stepper = made.stepper(made.start(inputs.shape[1], text), text)
        for x in inputs:
            found += [stepper(x), stepper.finished()]
    return stepper, found


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(
    ("layers", "batch", "size", "alphabet", "longest", "components"),
    [(1, 1, 5, 1, 1, 1), (3, 1, 40, 7, 5, 3), (2, 17, 33, 40, 16, 17), (3, 33, 100, 90, 40, 10)],
)
def test_its_steps_are_the_reference_s_in_float64(
    dtype: torch.dtype, layers: int, batch: int, size: int, alphabet: int, longest: int, components: int
) -> None:
    inputs, text = (
        torch.randn(6, batch, 3, generator=torch.Generator().manual_seed(0)),
        context(batch, longest, alphabet),
    )
    exact = encoder("reference", size, layers, components, alphabet).double()
    expected, wanted = follow(exact, text, inputs.double(), torch.float64)
    stepper, found = follow(encoder("cpu", size, layers, components, alphabet), text, inputs, dtype)
    assert isinstance(stepper, _Stepper)
    assert not isinstance(expected, _Stepper)
    assert_near(found[::2], wanted[::2], TOLERANCE[dtype])
    assert stepper.state.keys() == expected.state.keys()
    assert_near([stepper.state[name] for name in expected.state], [*expected.state.values()], TOLERANCE[dtype])
    if dtype == torch.float32:
        assert all(torch.equal(*pair) for pair in zip(found[1::2], wanted[1::2], strict=True))


@pytest.mark.usefixtures("level")
def test_a_stepper_knows_what_is_finished_from_the_beginning_to_far_behind_the_text() -> None:
    made, text = encoder("cpu", 20, 2), context(9, 6)
    stepper = made.stepper(made.start(9, text), text)
    assert not stepper.finished().any()
    finished = []
    with torch.inference_mode():
        for x in torch.randn(40, 9, 3, generator=torch.Generator().manual_seed(0)):
            stepper(x)
            finished.append(stepper.finished())
            assert torch.equal(finished[-1], made.finished(stepper.state, text))
        assert 0 < torch.stack(finished).sum() < 360
        stepper.keep(torch.tensor([5, 1]))
        assert torch.equal(stepper.finished(), finished[-1][[5, 1]])
        stepper.state["kappa"] += 1e4
        stepper(x[[5, 1]])
    assert stepper.finished().all()


@pytest.mark.usefixtures("level")
def test_a_step_keeps_what_is_not_finite_in_its_record_and_what_it_was_given() -> None:
    made, text = encoder("cpu", 40, 2), context(5, 6)
    inputs = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    inputs[0, 2, 1] = float("nan")
    given = made.start(5, text)
    before = {name: value.clone() for name, value in given.items()}
    with torch.inference_mode():
        stepper = made.stepper(given, text)
        features = torch.stack([stepper(x) for x in inputs])
    assert features[:, 2].isnan().all()
    assert features[:, [0, 1, 3, 4]].isfinite().all()
    assert not stepper.finished()[2]
    assert all(torch.equal(given[name], before[name]) for name in given)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_steps_of_other_sizes_in_between_change_nothing(dtype: torch.dtype) -> None:
    def both() -> list[Tensor]:
        sizes = ((20, 2, 3), (90, 3, 20))
        made = [
            (encoder("cpu", size, layers), context(batch, 5), torch.ones(3, batch, 3)) for size, layers, batch in sizes
        ]
        return [each for given in made for each in follow(*given, dtype)[1]]

    assert all(torch.equal(*pair) for pair in zip(both(), both(), strict=True))
