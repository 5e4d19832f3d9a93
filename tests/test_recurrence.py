"""The LSTM layer: its equations, held to ordinary operations, and every implementation, held to these."""

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqdens import native
from seqdens.devices import autocast
from seqdens.encoders import recurrence
from seqdens.encoders.recurrence import Weights, choose, compiled
from seqdens.errors import UsageError

Operands = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


HELD = [HealthCheck.function_scoped_fixture]  # the level stays what it is for all examples


def peephole_recurrence(
    gates: Tensor, weight: Tensor, peepholes: Tensor, h0: Tensor, c0: Tensor, clip: float
) -> tuple[Tensor, Tensor]:
    """The reference, of gates that are projected already."""
    same, no_bias = torch.eye(gates.shape[2], dtype=gates.dtype), gates.new_zeros(gates.shape[2])
    return recurrence.peephole_lstm(gates, same, weight, peepholes, no_bias, h0, c0, clip, "reference")


def operands(steps: int, batch: int, size: int, seed: int = 0, scale: float = 1.0) -> Operands:
    """Random gates, weight, peepholes, h0 and c0, float64, that want gradients."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((steps, batch, 4 * size), (4 * size, size), (3, size), (batch, size), (batch, size))
    draws = (scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    gates, weight, peepholes, h0, c0 = (draw.requires_grad_() for draw in draws)
    return gates, weight, peepholes, h0, c0


def with_hooks(
    gates: Tensor, weight: Tensor, peepholes: Tensor, h0: Tensor, c0: Tensor, clip: float, seen: list[float]
) -> tuple[Tensor, Tensor]:
    """The same recurrence with ordinary operations, each pre-activation's derivative clamped by a hook.

    `seen` collects the largest derivative before it is clamped.
    """

    def clamped(derivative: Tensor) -> Tensor:
        seen.append(derivative.abs().max().item())
        return derivative.clamp(-clip, clip) if clip else derivative

    def hooked(x: Tensor) -> Tensor:
        x.register_hook(clamped)
        return x

    h, c, hidden, cells = h0, c0, [], []
    p_i, p_f, p_o = peepholes
    for z in gates:
        z_i, z_f, z_g, z_o = (z + h @ weight.T).chunk(4, dim=1)
        i = hooked(z_i + p_i * c).sigmoid()
        f = hooked(z_f + p_f * c).sigmoid()
        c = f * c + i * hooked(z_g + 0).tanh()
        h = hooked(z_o + p_o * c).sigmoid() * c.tanh()
        hidden.append(h)
        cells.append(c)
    return torch.stack(hidden), torch.stack(cells)


def gradients(run: Callable[..., tuple[Tensor, Tensor]], arguments: Operands, scale: float) -> list[Tensor]:
    """Outputs, and gradients of a weighted sum of hidden and cell states of all steps."""
    hidden, cells = run(*arguments)
    generator = torch.Generator().manual_seed(1)
    weights = scale * torch.randn(2, *hidden.shape, generator=generator, dtype=torch.float64)
    loss = (weights[0] * hidden + weights[1] * cells).sum()
    return [hidden, cells, *torch.autograd.grad(loss, arguments)]


@pytest.mark.parametrize("clip", [0.0, 1e9])
def test_gradcheck(clip: float) -> None:
    assert torch.autograd.gradcheck(lambda *given: peephole_recurrence(*given, clip), operands(4, 2, 3))


@settings(deadline=None, suppress_health_check=HELD, max_examples=25)
@given(steps=st.integers(1, 6), batch=st.integers(1, 4), size=st.integers(1, 5), clip=st.sampled_from([0.0, 0.3, 5.0]))
def test_equals_ordinary_operations_with_hooks(steps: int, batch: int, size: int, clip: float) -> None:
    arguments = operands(steps, batch, size, seed=steps)
    ours = gradients(lambda *given: peephole_recurrence(*given, clip), arguments, scale=4.0)
    reference = gradients(lambda *given: with_hooks(*given, clip, []), arguments, scale=4.0)
    for one, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_clipping_is_active_at_many_steps_and_changes_every_gradient() -> None:
    arguments = operands(12, 3, 4)
    seen: list[float] = []
    reference = gradients(lambda *given: with_hooks(*given, 0.5, seen), arguments, scale=20.0)
    assert sum(largest > 0.5 for largest in seen) > 24
    ours = gradients(lambda *given: peephole_recurrence(*given, 0.5), arguments, scale=20.0)
    unclipped = gradients(lambda *given: peephole_recurrence(*given, 0.0), arguments, scale=20.0)
    for one, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    for one, other in zip(ours[2:], unclipped[2:], strict=True):
        assert (one - other).abs().max() > 0.1
    assert ours[2].abs().max() == 0.5


def test_equals_torch_lstm_without_peepholes() -> None:
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(3, 5).double()
    inputs = torch.randn(7, 2, 3, dtype=torch.float64)
    h0, c0 = torch.randn(2, 1, 2, 5, dtype=torch.float64)
    expected, (_, last_cell) = lstm(inputs, (h0, c0))
    gates = inputs @ lstm.weight_ih_l0.T + lstm.bias_ih_l0 + lstm.bias_hh_l0
    no_peepholes = torch.zeros(3, 5, dtype=torch.float64)
    hidden, cells = peephole_recurrence(gates, lstm.weight_hh_l0, no_peepholes, h0[0], c0[0], 0.0)
    torch.testing.assert_close(hidden, expected)
    torch.testing.assert_close(cells[-1], last_cell[0])
    wanted = torch.autograd.grad(expected.square().sum(), [lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0])
    found = torch.autograd.grad(hidden.square().sum(), [lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0])
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("used", [0, 1])
def test_one_output_alone_has_gradients(used: int) -> None:
    arguments = operands(4, 2, 3)
    wanted = torch.autograd.grad(with_hooks(*arguments, 0.0, [])[used].sum(), arguments)
    found = torch.autograd.grad(peephole_recurrence(*arguments, 0.0)[used].sum(), arguments)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def test_backward_twice_gives_the_same() -> None:
    arguments = operands(4, 2, 3)
    loss = peephole_recurrence(*arguments, 1.0)[0].sum()
    first = torch.autograd.grad(loss, arguments, retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(loss, arguments), strict=True):
        assert torch.equal(one, other)


def test_operands_are_left_as_they_were() -> None:
    arguments = operands(3, 2, 3)
    before = [operand.detach().clone() for operand in arguments]
    peephole_recurrence(*arguments, 1.0)[0].sum().backward()
    for one, other in zip(arguments, before, strict=True):
        assert torch.equal(one, other)


def test_differentiable_once() -> None:
    arguments = operands(2, 1, 2)
    loss = peephole_recurrence(*arguments, 1.0)[0].square().sum()
    (gradient,) = torch.autograd.grad(loss, arguments[0], create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        gradient.sum().backward()


def test_inference_mode_gives_the_same() -> None:
    arguments = operands(3, 2, 3)
    with torch.inference_mode():
        hidden, cells = peephole_recurrence(*arguments, 1.0)
    expected = peephole_recurrence(*arguments, 1.0)
    assert torch.equal(hidden, expected[0])
    assert torch.equal(cells, expected[1])


def single_precision(arguments: Operands) -> list[Tensor]:
    return [operand.detach().float().requires_grad_() for operand in arguments]


TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}  # of the norm of a result in float64
PRECISIONS = [torch.float32, torch.bfloat16]


def layer(steps: int, batch: int, width: int, size: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Inputs, weights, peepholes, bias, h0 and c0 of an ordinary size, that want gradients."""
    generator = torch.Generator().manual_seed(steps + batch + size)
    bound = size**-0.5
    shapes_and_scales = (
        ((steps, batch, width), 1.0),
        ((4 * size, width), bound),
        ((4 * size, size), bound),
        ((3, size), 0.3),
        ((4 * size,), 0.3),
        ((batch, size), 0.5),
        ((batch, size), 1.0),
    )
    draws = (scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape, scale in shapes_and_scales)
    return [draw.to(dtype).requires_grad_() for draw in draws]


def results(
    given: list[Tensor], clip: float, implementation: str, dtype: torch.dtype, used: str = "hc"
) -> list[Tensor]:
    """Hidden and cell states, and the gradients of a weighted sum of those in `used`."""
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        hidden, cells = recurrence.peephole_lstm(*given, clip, implementation)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(2, *hidden.shape, generator=generator, dtype=torch.float64)
    parts = {"h": (weights[0] * hidden).sum(), "c": (weights[1] * cells).sum()}
    loss = sum(parts[each] for each in used)
    return [hidden, cells, *torch.autograd.grad(loss, given)]


def assert_near(found: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).norm() <= tolerance * other.norm()


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("clip", [0.0, 0.5, 10.0])
@pytest.mark.parametrize(
    ("steps", "batch", "width", "size"),
    [(1, 1, 1, 1), (1, 64, 3, 40), (4, 3, 7, 33), (9, 1, 3, 16), (12, 17, 51, 48), (40, 33, 5, 100), (7, 26, 403, 400)],
)
def test_every_implementation_is_near_float64(
    implementation: str, dtype: torch.dtype, clip: float, steps: int, batch: int, width: int, size: int
) -> None:
    exact = layer(steps, batch, width, size)
    given = [each.detach().float().requires_grad_() for each in exact]
    found = results(given, clip, implementation, dtype)
    assert (found[0].dtype, found[1].dtype) == (dtype, torch.float32)
    assert {each.dtype for each in found[2:]} == {torch.float32}
    assert_near(found, results(exact, clip, "reference", torch.float64), TOLERANCE[dtype])


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("at_once", [1, 2**8, 2**10])
def test_in_how_many_parts_derivatives_are_found_changes_little(
    dtype: torch.dtype, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = layer(11, 3, 4, 20)
    given = [each.detach().float().requires_grad_() for each in exact]
    monkeypatch.setattr(compiled, "AT_ONCE", at_once)
    assert_near(results(given, 0.5, "cpu", dtype), results(exact, 0.5, "reference", torch.float64), TOLERANCE[dtype])


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("used", ["h", "c"])
def test_gradients_of_one_output_alone(dtype: torch.dtype, used: str) -> None:
    exact = layer(6, 5, 3, 20)
    given = [each.detach().float().requires_grad_() for each in exact]
    wanted = results(exact, 1.0, "reference", torch.float64, used)
    assert_near(results(given, 1.0, "cpu", dtype, used), wanted, TOLERANCE[dtype])


@pytest.mark.usefixtures("level")
@settings(deadline=None, suppress_health_check=HELD, max_examples=25)
@given(st.integers(1, 12), st.integers(1, 40), st.integers(1, 40), st.integers(1, 70), st.sampled_from([0.0, 0.1, 3.0]))
def test_any_size_is_near_float64(steps: int, batch: int, width: int, size: int, clip: float) -> None:
    exact = layer(steps, batch, width, size)
    given = [each.detach().float().requires_grad_() for each in exact]
    wanted = results(exact, clip, "reference", torch.float64)
    found = results(given, clip, "cpu", torch.float32)
    # of all together, since the sum of a few numbers, as a gradient of one cell is, may cancel to next to nothing
    assert_near([torch.cat([*map(torch.flatten, found)])], [torch.cat([*map(torch.flatten, wanted)])], 1e-5)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_clipping_clips_what_travels(dtype: torch.dtype) -> None:
    given = layer(12, 3, 4, 20, torch.float32)
    given[0] = torch.zeros(12, 3, 4, requires_grad=True)
    with torch.no_grad():
        given[1].zero_()[:4].copy_(torch.eye(4))  # the inputs' derivatives are those of four pre-activations
    scale = 50.0
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        hidden, _ = recurrence.peephole_lstm(*given, 0.5, "cpu")
    (found,) = torch.autograd.grad(scale * hidden.sum(), given[0])
    assert found.abs().max() == 0.5
    assert (found.abs() == 0.5).sum() > 20


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_step_by_step_is_the_whole(implementation: str, dtype: torch.dtype) -> None:
    inputs, *weights, h, c = layer(9, 5, 3, 40, torch.float32)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        whole, cells = recurrence.peephole_lstm(inputs, *weights, h, c, 0.0, implementation)
        for t in range(len(inputs)):
            hidden, cell = recurrence.peephole_lstm(inputs[t : t + 1], *weights, h, c, 0.0, implementation)
            h, c = hidden[0], cell[0]
            assert_near([h, c], [whole[t], cells[t]], TOLERANCE[dtype])


@pytest.mark.usefixtures("level")
def test_weights_that_have_changed_are_used_as_they_are() -> None:
    given = layer(9, 2, 3, 20, torch.float32)
    _, input_weight, weight, *_ = given
    for change in (lambda: weight.mul_(0.5), lambda: input_weight.neg_(), lambda: weight.set_(weight + 1)):
        with torch.no_grad():
            change()
        wanted = results(given, 0.0, "reference", torch.float32)
        assert_near(results(given, 0.0, "cpu", torch.float32), wanted, 1e-5)


@pytest.mark.usefixtures("level")
def test_inputs_of_any_layout_are_read_as_they_are() -> None:
    given = layer(6, 5, 8, 20, torch.float32)
    wanted = results(given, 1.0, "cpu", torch.float32)
    for index, each in enumerate(given):
        if each.dim() > 1:
            turned = each.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
            found = results([*given[:index], turned, *given[index + 1 :]], 1.0, "cpu", torch.float32)
            assert_near(found, wanted, TOLERANCE[torch.float32])


@pytest.mark.usefixtures("level")
def test_the_number_of_threads_changes_nothing() -> None:
    given = layer(8, 20, 3, 90, torch.float32)
    before, outcomes = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with torch.no_grad():
                outcomes.append(recurrence.peephole_lstm(*given, 0.0, "cpu"))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(outcomes[0] * 2, outcomes[1] + outcomes[2], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("level")
def test_backward_twice_and_operands_left_as_they_were() -> None:
    given = layer(6, 2, 3, 20, torch.float32)
    before = [each.detach().clone() for each in given]
    loss = recurrence.peephole_lstm(*given, 1.0, "cpu")[0].square().sum()
    first = torch.autograd.grad(loss, given, retain_graph=True)
    assert all(torch.equal(*pair) for pair in zip(first, torch.autograd.grad(loss, given), strict=True))
    assert all(torch.equal(*pair) for pair in zip(given, before, strict=True))


STEP_PRECISIONS = [torch.float32, torch.bfloat16, torch.int8]


def stack(layers: int, batch: int, width: int, size: int) -> tuple[list[Weights], list[Tensor]]:
    """Weights of layers, each of which sees the one below, and inputs, hidden and cell states; float64."""
    draw = [[each.detach() for each in layer(1, batch, width + size * (at > 0), size)] for at in range(layers)]
    hidden, cells = (torch.stack([each[part] for each in draw], dim=1) for part in (5, 6))
    return [Weights(*each[1:5]) for each in draw], [draw[0][0][0], hidden.tanh(), cells]


def stepped(
    weights: list[Weights], given: list[Tensor], dtype: torch.dtype, implementation: str, steps: int = 3
) -> list[Tensor]:
    """Hidden and cell states after each step, with equal inputs."""
    inputs, *states = given
    found = []
    with autocast(torch.device("cpu"), "bf16" if dtype == torch.bfloat16 else "float32"):
        step = recurrence.stepping(weights, inputs.shape[1], implementation, int8=dtype == torch.int8)
        for _ in range(steps):
            states = [*step(inputs, *states)]
            found += states
    return found


def single(weights: list[Weights], given: list[Tensor]) -> tuple[list[Weights], list[Tensor]]:
    return [Weights(*(each.float() for each in one)) for one in weights], [each.float() for each in given]


@pytest.mark.parametrize("dtype", STEP_PRECISIONS)
@pytest.mark.parametrize(
    ("layers", "batch", "width", "size"),
    [(1, 4, 1, 5), (3, 1, 3, 40), (2, 3, 7, 33), (2, 12, 3, 16), (3, 17, 51, 48), (1, 33, 5, 100), (3, 64, 3, 400)],
)
def test_every_implementation_steps_near_float64(
    implementation: str, dtype: torch.dtype, layers: int, batch: int, width: int, size: int
) -> None:
    weights, given = stack(layers, batch, width, size)
    exact = torch.int8 if dtype == torch.int8 else torch.float64  # int8 has whole numbers, whoever multiplies them
    wanted = stepped(weights, given, exact, "reference")
    found = stepped(*single(weights, given), dtype, implementation)
    assert {each.shape for each in found} == {(batch, layers, size)}
    assert_near(found, wanted, 2e-2 if dtype != torch.float32 else TOLERANCE[dtype])


@pytest.mark.parametrize("size", [20, 400])
def test_int8_is_near_what_it_stands_for(size: int) -> None:
    weights, given = stack(3, 5, 3, size)
    found = stepped(weights, given, torch.int8, "reference")
    assert_near(found, stepped(weights, given, torch.float64, "reference"), 5e-2)
    assert not torch.equal(found[-1], stepped(weights, given, torch.float64, "reference")[-1])


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", STEP_PRECISIONS)
def test_steps_of_other_sizes_in_between_change_nothing(dtype: torch.dtype) -> None:
    small, large = (single(*stack(layers, batch, 3, size)) for layers, batch, size in ((2, 3, 20), (3, 20, 90)))
    first = [stepped(*each, dtype, "cpu") for each in (small, large)]
    again = [stepped(*each, dtype, "cpu") for each in (small, large)]
    for one, other in zip([*first[0], *first[1]], [*again[0], *again[1]], strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", STEP_PRECISIONS)
def test_a_step_keeps_what_is_not_finite_in_its_record(dtype: torch.dtype) -> None:
    weights, given = single(*stack(2, 5, 3, 40))
    given[0][2, 1] = float("nan")
    for each in stepped(weights, given, dtype, "cpu"):
        assert each[2].isnan().all()
        assert each[[0, 1, 3, 4]].isfinite().all()


def test_what_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    single, double = torch.float32, torch.float64
    assert choose("reference", "cpu", single, single) == "reference"
    assert choose("auto", "cpu", double, double) == "reference"
    assert choose("auto", "meta", single, single) == "reference"
    with pytest.raises(UsageError, match=r"recurrence 'cpu' cannot be used: weights are torch\.float64 on cpu"):
        choose("cpu", "cpu", double, double)
    with pytest.raises(UsageError, match=r"no recurrence 'cpus'; did you mean 'cpu'\? known: auto, cpu, reference"):
        choose("cpus", "cpu", single, single)


def refuse(*_: object) -> Sequence[str]:
    raise native.Unavailable("seqdens was installed without its compiled part.")


def test_without_the_library_it_is_said_once_and_the_reference_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_levels", refuse)
    recurrence._warn.cache_clear()
    with pytest.warns(UserWarning, match="runs as plain torch operations, which is slower: seqdens was installed with"):
        assert choose("auto", "cpu", torch.float32, torch.float32) == "reference"
    assert choose("auto", "cpu", torch.float32, torch.float32) == "reference"
    with pytest.raises(UsageError, match=r"recurrence 'cpu' cannot be used: seqdens was installed without its compile"):
        choose("cpu", "cpu", torch.float32, torch.float32)
    recurrence._warn.cache_clear()


@pytest.mark.usefixtures("library")
def test_without_a_level_for_bf16_it_is_the_reference_s(hold: Callable[[str], None]) -> None:
    hold("generic")
    recurrence._warn.cache_clear()
    with pytest.warns(UserWarning, match="none of amx, avx512_bf16 for products in bf16, and SEQDENS_LEVEL is 'generi"):
        assert choose("auto", "cpu", torch.float32, torch.bfloat16) == "reference"
    with pytest.raises(UsageError, match="use precision float32"):
        choose("cpu", "cpu", torch.float32, torch.bfloat16)
    recurrence._warn.cache_clear()


def test_products_keep_their_precision_where_bf16_is_not_asked_for() -> None:
    single, double = layer(5, 2, 3, 4, torch.float32), layer(5, 2, 3, 4)
    plain, plain64 = (recurrence.peephole_lstm(*given, 1.0)[0] for given in (single, double))
    with torch.autocast("cpu", torch.float16):
        assert torch.equal(recurrence.peephole_lstm(*single, 1.0)[0], plain)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(recurrence.peephole_lstm(*double, 1.0)[0], plain64)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_hidden_and_stays_in_its_record(
    implementation: str, dtype: torch.dtype, bad: float
) -> None:
    given = layer(8, 5, 3, 40, torch.float32)
    given[0].data[3, 2, 1] = bad
    found = results(given, 1.0, implementation, dtype)
    others = [0, 1, 3, 4]
    assert all(each.isfinite().all() for each in (found[0][:3], found[0][:, others], found[1][:, others]))
    if bad != bad:
        assert found[0][3:, 2].isnan().all()
        assert not all(gradient.isfinite().all() for gradient in found[2:])
