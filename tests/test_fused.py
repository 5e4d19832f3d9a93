"""The mixture's log-density in C++, held to the ordinary operations of `gmm_bernoulli`."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqdens import native
from seqdens.datasets.base import SEQUENCE_END, STROKE_END, Column, X, Y
from seqdens.errors import UsageError
from seqdens.heads import fused
from seqdens.heads.gmm_bernoulli import GMMBernoulli, MixtureBernoulli

HELD = [HealthCheck.function_scoped_fixture]  # the level stays what it is for all examples


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def split(outputs: Tensor) -> list[Tensor]:
    """Weight logits, means, log sigmas and correlations of output numbers (B, T, 6 K)."""
    components = outputs.shape[-1] // 6
    weights, *parts = outputs.split([count * components for count in (1, 2, 2, 1)], -1)
    return [weights, *(part.unflatten(-1, (-1, components)) for part in parts)]


def distribution(weights: Tensor, means: Tensor, log_sigmas: Tensor, correlations: Tensor) -> MixtureBernoulli:
    return MixtureBernoulli((X, Y), weights, means, log_sigmas, correlations, binary_logits=weights[..., :0])


def reference(x: Tensor, *parts: Tensor) -> Tensor:
    return distribution(*parts)._log_joint(x).logsumexp(-1)


def found(outputs: Tensor, x: Tensor, dtype: torch.dtype, use_fused: bool = False) -> list[Tensor]:
    """Log-densities, and the derivatives of a sum of them with random weights."""
    leaf = outputs.to(dtype, copy=True).requires_grad_()
    log_densities = (fused.log_density if use_fused else reference)(x.to(dtype), *split(leaf))
    weights = random(*x.shape[:-1], seed=9).to(dtype)
    return [log_densities.detach().double(), torch.autograd.grad((log_densities * weights).sum(), leaf)[0].double()]


def error(numbers: Tensor, exact: Tensor) -> float:
    """The largest error, relative to the largest number."""
    return float((numbers - exact).abs().max() / exact.abs().max())


@pytest.mark.usefixtures("level")
@settings(deadline=None, suppress_health_check=HELD, max_examples=60)
@given(batch=st.integers(1, 3), steps=st.integers(1, 4), components=st.integers(1, 40), seed=st.integers(0, 99))
def test_equals_ordinary_operations(batch: int, steps: int, components: int, seed: int) -> None:
    outputs, x = random(batch, steps, 6 * components, seed=seed), random(batch, steps, 2, seed=seed + 1)
    for numbers, exact in zip(
        found(outputs, x, torch.float32, use_fused=True), found(outputs, x, torch.float64), strict=True
    ):
        torch.testing.assert_close(numbers, exact, rtol=1e-5, atol=1e-5 * exact.abs().max().item())


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("logit", [1.0, 1e4])
@pytest.mark.parametrize("far", [0.0, 0.1, 1e3, 1e10])
@pytest.mark.parametrize("r", [-20.0, -8.0, 0.0, 8.0, 20.0, 80.0])
@pytest.mark.parametrize("s", [-20.0, -7.0, 0.0, 7.0, 80.0])
def test_as_exact_as_ordinary_operations_at_extremes(s: float, r: float, far: float, logit: float) -> None:
    outputs, x = 0.3 * random(2, 4, 6 * 20), far * random(2, 4, 2, seed=1)
    outputs += torch.tensor([0.0, 0.0, 0.0, s, s, r]).repeat_interleave(20)
    outputs[..., :20] *= logit
    sides = (
        found(outputs, x, torch.float32, use_fused=True),
        found(outputs, x, torch.float32),
        found(outputs, x, torch.float64),
    )
    for numbers, ordinary, exact in zip(*sides, strict=True):
        known = ordinary.isfinite() & exact.isfinite()
        assert numbers[known].isfinite().all()
        if known.any():
            numbers, ordinary, exact = (side[known] for side in (numbers, ordinary, exact))
            assert error(numbers, exact) <= max(1e-5, 5 * error(ordinary, exact))


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("place", range(6))
def test_a_component_of_nan_makes_its_point_nan(place: int) -> None:
    outputs, x = random(1, 3, 6 * 20), random(1, 3, 2)
    outputs[0, 1, 20 * place + 18] = math.nan
    log_densities, derivatives = found(outputs, x, torch.float32, use_fused=True)
    assert log_densities.isnan().tolist() == [[False, True, False]]
    assert derivatives[0, 1].isnan().any()
    assert derivatives[0, ::2].isfinite().all()


@pytest.mark.usefixtures("level")
def test_a_component_of_no_weight_does_not_count() -> None:
    outputs, x = random(1, 3, 6 * 20), random(1, 3, 2)
    outputs[..., 4] = -math.inf
    log_densities, derivatives = found(outputs, x, torch.float32, use_fused=True)
    without = outputs.unflatten(-1, (6, 20))[..., torch.arange(20) != 4].flatten(-2)
    torch.testing.assert_close(log_densities, found(without, x, torch.float64)[0], rtol=1e-5, atol=1e-5)
    assert (derivatives.unflatten(-1, (6, 20))[..., 4] == 0).all()


@pytest.mark.usefixtures("level")
def test_any_layout() -> None:
    x, parts = random(4, 3, 2), [random(4, 3, *shape, seed=len(shape)) for shape in [(5,), (2, 5), (2, 5), (1, 5)]]
    expected = reference(x, *parts)
    turned = [part.transpose(0, 1).contiguous().transpose(0, 1) for part in parts]
    inside = [part.transpose(-1, -2).contiguous().transpose(-1, -2) for part in parts]
    for laid_out in (parts, turned, inside):
        torch.testing.assert_close(fused.log_density(x.mT.contiguous().mT, *laid_out), expected)
    one = [part[:1, :1].expand(4, 3, *part.shape[2:]) for part in parts]
    torch.testing.assert_close(fused.log_density(x, *one), reference(x, *one))
    assert fused.log_density(x[:0], *(part[:0] for part in parts)).shape == (0, 3)


@pytest.mark.usefixtures("level")
def test_threads_change_nothing() -> None:
    outputs, x = random(8, 50, 120), random(8, 50, 2)
    before = torch.get_num_threads()
    sides = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        sides.append(found(outputs, x, torch.float32, use_fused=True))
    torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*sides, strict=True))


@pytest.mark.usefixtures("level")
def test_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    x, parts = random(2, 3, 2), split(random(2, 3, 30))
    assert fused.possible(x, *parts)
    assert not fused.possible(x.double(), *(part.double() for part in parts))
    assert not fused.possible(x, parts[0].double(), *parts[1:])
    assert not fused.possible(random(2, 3, 3), *parts)
    assert not fused.possible(x.requires_grad_(), *parts)
    assert not fused.possible(random(1, 3, 2), *parts)  # which would have to be repeated
    monkeypatch.setattr(fused, "enabled", False)
    assert not fused.possible(x, *parts)


COLUMNS = [(X, Y), (X, Y, STROKE_END), (STROKE_END, Y, X, SEQUENCE_END)]


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("columns", COLUMNS, ids=lambda columns: "-".join(column.name for column in columns))
@pytest.mark.parametrize("bias", [0.0, 0.7, 50.0])
def test_draws_are_those_of_ordinary_operations(columns: tuple[Column, ...], bias: float) -> None:
    torch.manual_seed(0)
    head = GMMBernoulli(16, columns, components=5)
    features, noise = 3 * random(40, 3, 16), torch.rand(40, 3, head.noise_size)
    noise[0, 0], noise[1, 0] = 0, 1 - 2**-24
    with torch.inference_mode():
        assert fused.can_draw(features, head.sizes)
        found = head.sample(features, noise, bias)
        torch.testing.assert_close(found, head(features).sample(noise, bias), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("level")
def test_draws_of_other_noise_or_bias_are_refused() -> None:
    head = GMMBernoulli(16, (X, Y), components=5)
    features = random(3, 1, 16)
    with torch.inference_mode():
        for noise in (torch.rand(50, 1, 3), torch.rand(3, 1, 9)):
            with pytest.raises((RuntimeError, ValueError)):
                head.sample(features, noise)
        with pytest.raises(UsageError, match="bias is -1"):
            head.sample(features, torch.rand(3, 1, 3), -1)


@pytest.mark.usefixtures("level")
def test_where_draws_are_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    features, sizes = random(2, 1, 4), (5, 10, 10, 5, 1)
    assert not fused.can_draw(features, sizes)  # there may be gradients
    with torch.no_grad():
        assert fused.can_draw(features, sizes)
        assert not fused.can_draw(features.double(), sizes)
        assert not fused.can_draw(features, (5, 15, 15, 15, 1))
        with torch.autocast("cpu", torch.bfloat16):
            assert not fused.can_draw(features, sizes)
        monkeypatch.setattr(fused, "enabled", False)
        assert not fused.can_draw(features, sizes)


def refuse(*_: object) -> Sequence[str]:
    raise native.Unavailable("seqdens was installed without its compiled part.")


def test_without_the_library_ordinary_operations_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_levels", refuse)
    x, parts = random(2, 3, 2), split(random(2, 3, 30))
    assert not fused.possible(x, *parts)
    torch.testing.assert_close(distribution(*parts).terms(x)["real"], reference(x, *parts), rtol=0, atol=0)
