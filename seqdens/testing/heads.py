"""The contract of a head.

B sequences, T steps, F features, D columns of a point, N draws. Targets are in normalised units, as in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from seqdens.components import encoder
from seqdens.datasets.base import Column
from seqdens.errors import DataError, UsageError
from seqdens.heads.base import Distribution, Head
from seqdens.registry import Component, one_line
from seqdens.testing.components import ComponentContract, check_sentence, refused
from seqdens.testing.densities import cover, waves
from seqdens.testing.models import check_saved_model

FEATURES = 4
DRAWS = 2**16
EXTREME = 8.0  # of a feature
BELOW_ONE = 1 - 2.0**-24
ROUNDING = 2.0**-10  # half of what bfloat16 leaves off 1

Columns = tuple[Column, ...]


def columns_of(*kinds: str) -> Columns:
    """Columns a, b, ... of these kinds; a category has three values."""
    sizes = {"category": 3}
    return tuple(Column(name, kind, sizes.get(kind, 1)) for name, kind in zip("abcd", kinds, strict=False))  # type: ignore[arg-type]


TRIED = (
    *[columns_of(kind) for kind in ("real", "binary", "category")],
    *[columns_of(*kinds) for kinds in (("real", "real"), ("binary", "real"), ("category", "real"))],
    columns_of("category", "binary"),
    columns_of("real", "category", "binary"),
    (Column("a", "real"), Column("b", "binary"), Column("b", "binary")),
    (Column("a", "category", 3), Column("a", "category", 2)),
)


class HeadContract(ComponentContract):
    """A head: a density over the columns that integrates to one, and draws that follow it.

    >>> import seqdens
    >>> from seqdens import Column
    >>> class TestGMMBernoulli(HeadContract):
    ...     head = seqdens.head("gmm-bernoulli", components=3)
    ...     column_sets = ((Column("x", "real"), Column("y", "real"), Column("stroke_end", "binary")),)
    >>> TestGMMBernoulli().test_density_integrates_to_one(TestGMMBernoulli.column_sets[0], seed=0)

    The tests run for each of `column_sets`, columns that the head models; small ones, since a density is integrated
    over all their values. `tolerance` is how far an integral, or a mean of draws, may be from what it should be.
    """

    kind: ClassVar[str] = "heads"
    head: Component
    column_sets: Sequence[Columns]
    tolerance: float = 0.01

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "columns" in metafunc.fixturenames:
            names = ["-".join(column.name for column in columns) for columns in self.column_sets]
            metafunc.parametrize("columns", self.column_sets, ids=names)

    @property
    def component(self) -> Component:
        return self.head

    def wired(self, folder: Path) -> tuple[int, Columns]:
        return FEATURES, self.column_sets[0]

    def build(self, columns: Columns, seed: int = 0) -> Head:
        """The head, untrained, in float64 and evaluation mode."""
        torch.manual_seed(seed)
        head: Head = self.head.build(FEATURES, columns)
        return head.double().eval()

    def distribution(self, columns: Columns, repeated: int = 0, seed: int = 0) -> Distribution:
        """The head's distributions for features at random (2, 5, F), or for those of one step, `repeated` (1, N, F).

        The latter are small, so that no density is so narrow that an integral would miss it.
        """
        one = 0.5 * random(1, 1, FEATURES, seed=seed)
        features = one.expand(-1, repeated, -1) if repeated else random(2, 5, FEATURES)
        return self.build(columns).requires_grad_(False)(features)

    def noise(self, columns: Columns, *shape: int, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(*shape, self.build(columns).noise_size, generator=generator, dtype=torch.float64)

    def test_forward_gives_a_distribution(self, columns: Columns) -> None:
        found = self.build(columns)(random(2, 5, FEATURES))
        assert isinstance(found, Distribution), (
            f"{self.name}: forward must return a seqdens.Distribution, not {type(found).__name__}"
        )

    def test_terms_are_named(self, columns: Columns) -> None:
        terms = self.distribution(columns).terms(values_of(columns, 2, 5))
        assert isinstance(terms, dict), f"{self.name}: terms must return a dict of tensors, not {type(terms).__name__}"

    def test_its_noise_is_a_whole_number(self, columns: Columns) -> None:
        size = getattr(self.build(columns), "noise_size", None)
        assert isinstance(size, int) and size > 0, (  # noqa: PT018
            f"{self.name}: noise_size is {size!r}, but must be how many uniform numbers a draw takes, at least 1"
        )

    def test_its_noise_is_enough_for_a_draw(self, columns: Columns) -> None:
        dist, noise = self.distribution(columns), self.noise(columns, 2, 5)
        try:
            dist.sample(noise)
        except Exception as error:
            pytest.fail(
                f"{self.name}: a draw from {noise.shape[-1]} uniform numbers (its noise_size) raises {one_line(error)}"
            )

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
    def test_everything_keeps_its_shape_and_precision(self, columns: Columns, dtype: torch.dtype) -> None:
        dist = self.build(columns).to(dtype)(random(2, 5, FEATURES).to(dtype))
        targets = values_of(columns, 2, 5).to(dtype)
        densities = {"log_prob": dist.log_prob(targets)} | dist.terms(targets)
        points = {"draws": dist.sample(self.noise(columns, 2, 5).to(dtype))} | dist.predictions()
        assert torch.equal(points["mean"], dist.mean()), f"{self.name}: the prediction 'mean' is not its mean"
        shapes = dict.fromkeys(densities, (2, 5)) | dict.fromkeys(points, (2, 5, len(columns)))
        for name, value in (densities | points).items():
            wanted, found = (shapes[name], dtype), (tuple(value.shape), value.dtype)
            assert found == wanted, f"{self.name}: {name} is {found}, but must be {wanted}"
            assert value.isfinite().all(), f"{self.name}: {name} is not finite"

    def test_terms_add_up_to_the_log_density(self, columns: Columns) -> None:
        dist, targets = self.distribution(columns), values_of(columns, 2, 5)
        self.close(sum(dist.terms(targets).values()), dist.log_prob(targets), "its terms do not add up to log_prob")

    @pytest.mark.parametrize("seed", [0, 1])
    def test_density_integrates_to_one(self, columns: Columns, seed: int) -> None:
        self.check_integral(columns, seed)

    def check_integral(self, columns: Columns, seed: int = 0) -> None:
        everywhere = cover(columns)
        dist = self.distribution(columns, len(everywhere.places), seed)
        integral = everywhere.integral(dist.log_prob(everywhere.places.unsqueeze(0))[0].exp()).item()
        assert integral == pytest.approx(1, abs=self.tolerance), (
            f"{self.name}: the density integrates to {integral:.6g}, not 1, over {columns}"
        )

    @pytest.mark.parametrize("seed", [0, 1])
    def test_draws_follow_the_density(self, columns: Columns, seed: int) -> None:
        everywhere = cover(columns)
        density = self.distribution(columns, len(everywhere.places), seed).log_prob(everywhere.places.unsqueeze(0))[0]
        expected = everywhere.integral(density.exp().unsqueeze(1) * waves(columns, everywhere.places))
        found = waves(columns, self.draws(columns, seed)).mean(0)
        assert (found - expected).abs().max() <= self.tolerance + 4 * DRAWS**-0.5, (
            f"{self.name}: draws and density disagree"
        )

    def draws(self, columns: Columns, seed: int, bias: float = 0.0) -> Tensor:
        """Many draws (N, D) of one distribution."""
        noise = self.noise(columns, 1, DRAWS, seed=seed)
        return self.distribution(columns, DRAWS, seed).sample(noise, bias)[0]

    @pytest.mark.parametrize("seed", [0, 1])
    def test_mean_is_that_of_the_draws(self, columns: Columns, seed: int) -> None:
        """Of real and binary columns: that of a category means nothing."""
        counted = [index for index, column in enumerate(columns) if column.kind != "category"]
        drawn = self.draws(columns, seed)[:, counted]
        mean = self.distribution(columns, 1, seed).mean()[0, 0, counted]
        deviation = (drawn - mean).square().mean(0).sqrt()
        off = (drawn.mean(0) - mean).abs() > self.tolerance + 5 * DRAWS**-0.5 * deviation
        for index in off.nonzero().flatten().tolist():
            pytest.fail(
                f"{self.name}: the mean of column {columns[counted[index]].name!r} is {mean[index]:.4g}, "
                f"but that of its draws is {drawn[:, index].mean():.4g}"
            )

    def test_draws_are_values_of_their_columns(self, columns: Columns) -> None:
        drawn = self.draws(columns, seed=0)
        for column, values in zip(columns, drawn.unbind(1), strict=True):
            assert values.isfinite().all(), f"{self.name}: draws are not finite in {column}"
            assert column.states is None or set(values.unique().tolist()) <= set(range(column.states)), (
                f"{self.name}: draws are no values of {column}"
            )

    def test_draws_are_a_function_of_their_own_noise(self, columns: Columns) -> None:
        dist, noise = self.distribution(columns), self.noise(columns, 2, 5)
        expected = dist.sample(noise)
        torch.manual_seed(1)
        assert torch.equal(dist.sample(noise.clone()), expected), (
            f"{self.name}: draws depend on something else than their noise"
        )
        changed = noise.clone()
        changed[1, 2] = 1 - changed[1, 2]
        elsewhere = torch.ones(2, 5, dtype=torch.bool)
        elsewhere[1, 2] = False
        assert torch.equal(dist.sample(changed)[elsewhere], expected[elsewhere]), (
            f"{self.name}: draws depend on the noise of others"
        )
        assert not torch.equal(dist.sample(self.noise(columns, 2, 5, seed=1)), expected), (
            f"{self.name}: the noise changes nothing"
        )

    @pytest.mark.parametrize("bias", [0.0, 0.5])
    def test_a_drawer_draws_what_sample_does(self, columns: Columns, bias: float) -> None:
        head, features = self.build(columns).float(), random(50, FEATURES).float()
        noise = torch.rand(50, head.noise_size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found = head.drawer(bias)(features, noise)
            wanted = head(features.unsqueeze(1)).sample(noise.unsqueeze(1), bias).squeeze(1)
        assert found.shape == wanted.shape, f"{self.name}: drawer draws {found.shape}, but must draw {wanted.shape}"
        assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-3), (
            f"{self.name}: drawer draws other points than sample"
        )

    @pytest.mark.parametrize("noise", [0.0, BELOW_ONE])
    def test_draws_at_the_ends_of_the_noise_are_finite(self, columns: Columns, noise: float) -> None:
        head = self.build(columns).float()
        drawn = head(random(2, 5, FEATURES).float()).sample(torch.full((2, 5, head.noise_size), noise))
        assert drawn.isfinite().all(), f"{self.name}: the draw from noise of {noise} is not finite"

    def test_a_bias_draws_what_is_more_probable(self, columns: Columns) -> None:
        """Surely of real columns; states may be equally probable, and binaries need no bias (Graves 2013)."""
        dist = self.distribution(columns, DRAWS)
        fair, *biased = (dist.log_prob(self.draws(columns, 0, bias).unsqueeze(0)).mean() for bias in (0.0, 0.5, 5.0))
        assert min(biased) >= fair - self.tolerance, f"{self.name}: a bias makes draws less probable"
        if any(column.kind == "real" for column in columns):
            assert biased[-1] > fair + self.tolerance, (
                f"{self.name}: a bias of 5 makes draws no more probable: does sample use it?"
            )

    def test_a_step_is_predicted_from_its_features_alone(self, columns: Columns) -> None:
        head, features, targets = self.build(columns), random(2, 5, FEATURES), values_of(columns, 2, 5)
        together = head(features).log_prob(targets)
        alone = head(features[1:, 2:3]).log_prob(targets[1:, 2:3])
        self.close(alone, together[1:, 2:3], "the density of a step depends on features of others")

    def test_gradients_reach_every_parameter(self, columns: Columns) -> None:
        head = self.build(columns)
        head(random(2, 5, FEATURES)).log_prob(values_of(columns, 2, 5)).sum().backward()
        for name, parameter in head.named_parameters():
            assert parameter.grad is not None, f"{self.name}: no gradient reaches {name}"
            assert parameter.grad.isfinite().all(), f"{self.name}: the gradient of {name} is not finite"
            assert parameter.grad.any(), f"{self.name}: no gradient reaches {name}"

    @pytest.mark.parametrize("size", [EXTREME, -EXTREME])
    def test_extreme_features_give_finite_losses_and_gradients(self, columns: Columns, size: float) -> None:
        head = self.build(columns).float()
        features = torch.full((2, 5, FEATURES), size) * random(2, 5, FEATURES).sign().float()
        log_prob = head(features.requires_grad_()).log_prob(values_of(columns, 2, 5).float())
        assert log_prob.isfinite().all(), f"{self.name}: features of +-{EXTREME} give a density that is not finite"
        log_prob.sum().backward()
        assert features.grad is not None, f"{self.name}: no gradient reaches the features"
        for name, tensor in {"the features": features, **dict(head.named_parameters())}.items():
            assert tensor.grad is None or tensor.grad.isfinite().all(), (
                f"{self.name}: features of +-{EXTREME} give a gradient of {name} that is not finite"
            )

    def test_standard_deviations_are_those_of_the_real_columns(self, columns: Columns) -> None:
        head = self.build(columns)
        sigmas = head(random(2, 5, FEATURES)).sigmas_at(values_of(columns, 2, 5))
        if sigmas is not None:
            shape = (2, 5, sum(column.kind == "real" for column in columns))
            assert sigmas.shape == shape, f"{self.name}: sigmas_at is {tuple(sigmas.shape)}, but must be {shape}"
            assert sigmas.isfinite().all(), f"{self.name}: sigmas_at is not finite"
            assert (sigmas >= head.sigma_floor).all(), f"{self.name}: sigmas_at is below sigma_floor"

    def test_missing_values_are_marginalised_or_refused(self, columns: Columns) -> None:
        """NaN in one real column: the density of the others, or an error that names the column."""
        head, features = self.build(columns), 0.5 * random(1, 1, FEATURES)
        for index, column in enumerate(columns):
            if column.kind != "real":
                continue
            point = values_of(columns, 1, 1)
            point[..., index] = torch.nan
            try:
                found = head(features).log_prob(point)
            except DataError as error:
                check_sentence(str(error), self.name, column.name)
                continue
            others = cover(columns, fixed=point[0, 0])
            joint = head(features.expand(1, len(others.places), -1)).log_prob(others.places.unsqueeze(0))[0]
            assert found.exp().item() == pytest.approx(others.integral(joint.exp()).item(), abs=self.tolerance), (
                f"{self.name}: where {column.name!r} is missing, the density is not that of the other columns"
            )
            found.sum().backward()
            assert all(one.grad.isfinite().all() for one in head.parameters() if one.grad is not None), (
                f"{self.name}: where {column.name!r} is missing, gradients are not finite"
            )
            head.zero_grad()

    @pytest.mark.parametrize("others", TRIED, ids=lambda columns: "-".join(column.kind for column in columns))
    def test_any_columns_are_modelled_or_refused(self, others: Columns) -> None:
        """Whatever its author thought of: what a head does not refuse must be a density."""
        try:
            self.head.build(FEATURES, others)
        except UsageError as error:
            check_sentence(str(error), self.name)
        else:
            self.check_integral(others)

    def test_no_columns_are_refused(self) -> None:
        with refused(self.name):
            self.head.build(FEATURES, ())

    def test_a_state_dict_holds_all_there_is(self, columns: Columns) -> None:
        head, other = self.build(columns), self.build(columns, seed=1)
        other.load_state_dict(head.state_dict())
        features, targets = random(2, 5, FEATURES), values_of(columns, 2, 5)
        assert torch.equal(other(features).log_prob(targets), head(features).log_prob(targets)), (
            f"{self.name}: the density depends on something that is not in the state dict"
        )

    def test_it_works_in_inference_mode(self, columns: Columns) -> None:
        head, features, targets = self.build(columns), random(2, 5, FEATURES), values_of(columns, 2, 5)
        with torch.inference_mode():
            found = head(features).log_prob(targets)
        self.close(found, head(features).log_prob(targets), "the density is another in inference mode")

    def test_it_works_under_autocast(self, columns: Columns) -> None:
        head, features = self.build(columns).float(), random(2, 5, FEATURES).float()
        targets = values_of(columns, 2, 5).float()
        with torch.autocast("cpu", torch.bfloat16):
            dist = head(features)
            densities = {"log_prob": dist.log_prob(targets)} | dist.terms(targets)
        for name, value in densities.items():
            assert value.dtype in (torch.float32, torch.float64), (
                f"{self.name}: {name!r} is {value.dtype} under autocast, but must be float32: convert what layers give"
            )
        fault = "the density under autocast is another than without"
        self.close(densities["log_prob"], head(features).log_prob(targets), fault, rtol=0.05, atol=0.1)

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_under_autocast_the_density_integrates_to_one(self, columns: Columns, seed: int) -> None:
        """As well as without: rounded parameters still make a density, rounded densities do not."""
        head, everywhere = self.build(columns, seed).float(), cover(columns)
        places = everywhere.places.float().unsqueeze(0)
        features = 0.5 * random(1, 1, FEATURES, seed=seed).float().expand(-1, places.shape[1], -1)
        expected = everywhere.integral(head(features).log_prob(places)[0].double().exp()).item()
        with torch.autocast("cpu", torch.bfloat16):
            log_prob = head(features).log_prob(places)[0]
        found = everywhere.integral(log_prob.double().exp()).item()
        assert found == pytest.approx(expected, abs=ROUNDING), (
            f"{self.name}: under autocast the density integrates to {found:.6g}, without to {expected:.6g}: "
            "convert what layers give to float32"
        )

    def test_a_saved_model_gives_equal_numbers(self, columns: Columns, tmp_path: Path) -> None:
        check_saved_model(columns, encoder("memoryless"), self.head, tmp_path)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def values_of(columns: Columns, *shape: int) -> Tensor:
    """Points (..., D) at random, of unit variance or any state."""
    generator: Any = torch.Generator().manual_seed(0)
    return torch.stack(
        [
            torch.randn(shape, generator=generator, dtype=torch.float64)
            if column.states is None
            else torch.randint(column.states, shape, generator=generator).double()
            for column in columns
        ],
        dim=-1,
    )
