"""The contracts: they pass sound components that somebody registered, and each catches what it is there for."""

import itertools
import math
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seqdens
from seqdens import (
    Column,
    DataError,
    Encoded,
    Experiment,
    Record,
    Skipped,
    Source,
    Stepper,
    UsageError,
    components,
)
from seqdens.testing import DatasetContract, EncoderContract, ExperimentContract, HeadContract

VALUE, TOKEN, PEN = Column("value", "real"), Column("token", "category", 4), Column("pen", "binary")
THREE = tuple(Column(name, "real") for name in "xyz")
FAILURES = (AssertionError, pytest.fail.Exception)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "_registered", [])
    seqdens.register("encoders", "running-sum", RunningSum)
    seqdens.register("encoders", "writes-sums", Writes)
    seqdens.register("heads", "independent", Independent)
    seqdens.register("datasets", "numbers", Numbers)
    seqdens.register("experiments", "counting", COUNTING)


def violates(
    contract: type, part: str, component: Any, test: str, *arguments: Any, error: Any = FAILURES, says: str = ""
) -> None:
    """That test of a contract fails for `component`, under the name "broken", in words that begin with `says`."""
    seqdens.register(f"{part}s", "broken", component)
    attributes = {part: property(lambda self: getattr(seqdens, part)("broken")), "column_sets": ((VALUE, TOKEN),)}
    with pytest.raises(error, match=f"^{re.escape(says)}"):
        getattr(type("Broken", (contract,), attributes)(), test)(*arguments)


# Encoders


class RunningSum(seqdens.Encoder):
    """The sum of all inputs so far, projected and squashed.

    Options:
        size: numbers of a step
    """

    def __init__(self, input_size: int, context_size: int = 0, *, size: int = 4) -> None:
        super().__init__()
        if size < 1 or context_size:
            raise UsageError(f"size {size} and context_size {context_size} of running-sum must be above 0, and 0.")
        self.output_size = size
        self.project = nn.Linear(input_size, size)

    def start(self, batch_size: int, context: Any = None) -> dict[str, Tensor]:
        return {"sum": self.project.bias.new_zeros(batch_size, self.output_size)}

    def forward(self, inputs: Tensor, lengths: Tensor, state: dict[str, Tensor], context: Any = None) -> Encoded:
        valid = torch.arange(inputs.shape[1]) < lengths.unsqueeze(1)
        added = torch.where(valid.unsqueeze(2), self.project(inputs), 0)
        sums = state["sum"].unsqueeze(1) + added.cumsum(1)
        return Encoded(sums.tanh(), {"sum": sums[:, -1]}, {})


class TestRunningSum(EncoderContract):
    encoder = property(lambda self: seqdens.encoder("running-sum", size=3))
    impossible = (("size", 0),)


class LooksAhead(RunningSum):
    def forward(self, inputs: Tensor, *others: Any) -> Encoded:
        return super().forward(torch.cat([inputs[:, 1:], inputs[:, :1]], dim=1), *others)


class IgnoresLengths(RunningSum):
    def forward(self, inputs: Tensor, lengths: Tensor, *others: Any) -> Encoded:
        return super().forward(inputs, torch.full_like(lengths, inputs.shape[1]), *others)


class Forgets(RunningSum):
    def forward(self, inputs: Tensor, lengths: Tensor, state: Any, context: Any = None) -> Encoded:
        return super().forward(inputs, lengths, self.start(len(inputs)), context)


class KeepsTheWrongRecords(RunningSum):
    class Wrong(Stepper):
        def keep(self, records: Tensor) -> None:
            super().keep(records.sort().values)

    def stepper(self, state: Any, context: Any = None) -> Stepper:
        return self.Wrong(self, state, context)


class ForgetsInInt8(RunningSum):
    precisions = ("float32", "bf16", "int8")

    def stepper(self, state: Any, context: Any = None, *, int8: bool = False) -> Stepper:
        return self.Forgetful(self, state, context) if int8 else Stepper(self, state, context)

    class Forgetful(Stepper):
        def __call__(self, inputs: Tensor) -> Tensor:
            self.state = self.encoder.start(len(inputs), self.context)
            return super().__call__(inputs)


class SeesNeighbours(RunningSum):
    def forward(self, inputs: Tensor, *others: Any) -> Encoded:
        return super().forward(inputs - inputs.mean(0), *others)


class ReadsPadding(RunningSum):
    def forward(self, inputs: Tensor, *others: Any) -> Encoded:
        encoded = super().forward(inputs, *others)
        return encoded._replace(features=encoded.features + inputs[:, -1:, :1].sin())


class SpoilsPadding(RunningSum):
    def forward(self, inputs: Tensor, lengths: Tensor, *others: Any) -> Encoded:
        encoded = super().forward(inputs, lengths, *others)
        valid = torch.arange(inputs.shape[1]) < lengths.unsqueeze(1)
        return encoded._replace(features=encoded.features.masked_fill(~valid.unsqueeze(2), torch.nan))


class DropsOut(RunningSum):
    def forward(self, *arguments: Any) -> Encoded:
        encoded = super().forward(*arguments)
        return encoded._replace(features=nn.functional.dropout(encoded.features))


class WritesIntoItsState(RunningSum):
    def forward(self, inputs: Tensor, lengths: Tensor, state: Any, context: Any = None) -> Encoded:
        encoded = super().forward(inputs, lengths, state, context)
        return encoded._replace(state={"sum": state["sum"].copy_(encoded.state["sum"].detach())})


class WritesIntoItsInputs(RunningSum):
    def forward(self, inputs: Tensor, *others: Any) -> Encoded:
        return super().forward(inputs.mul_(2), *others)


class ReturnsATuple(RunningSum):
    def forward(self, *arguments: Any) -> Any:
        return tuple(super().forward(*arguments))


class HasNoSize(RunningSum):
    def __init__(self, input_size: int, context_size: int = 0) -> None:
        super().__init__(input_size)
        self.size = self.output_size
        del self.output_size

    def start(self, batch_size: int, context: Any = None) -> dict[str, Tensor]:
        return {"sum": self.project.bias.new_zeros(batch_size, self.size)}


class StartsWithATensor(RunningSum):
    def start(self, batch_size: int, context: Any = None) -> Any:
        return super().start(batch_size)["sum"]


class Idles(RunningSum):
    def __init__(self, input_size: int, context_size: int = 0) -> None:
        super().__init__(input_size)
        self.unused = nn.Linear(2, 2)


class HidesANumber(RunningSum):
    def __init__(self, input_size: int, context_size: int = 0) -> None:
        super().__init__(input_size)
        self.hidden = torch.randn(1).item()

    def forward(self, inputs: Tensor, *others: Any) -> Encoded:
        return super().forward(inputs * self.hidden, *others)


class StacksRecordsLast(RunningSum):
    def start(self, batch_size: int, context: Any = None) -> dict[str, Tensor]:
        return {"sum": super().start(batch_size)["sum"].T}

    def forward(self, inputs: Tensor, lengths: Tensor, state: Any, context: Any = None) -> Encoded:
        encoded = super().forward(inputs, lengths, {"sum": state["sum"].T}, context)
        return encoded._replace(state={"sum": encoded.state["sum"].T})


class StaysOnTheProcessor(RunningSum):
    def start(self, batch_size: int, context: Any = None) -> dict[str, Tensor]:
        return {"sum": torch.zeros(batch_size, self.output_size, dtype=self.project.bias.dtype)}


class DiffersUnderAutocast(RunningSum):
    def forward(self, *arguments: Any) -> Encoded:
        encoded = super().forward(*arguments)
        scale = 2 if torch.is_autocast_enabled("cpu") else 1
        return encoded._replace(features=scale * encoded.features)


class FinishedBeforeItStarts(RunningSum):
    def finished(self, state: Any, context: Any) -> Tensor:
        return ~super().finished(state, context)


class MissaysItsSize(RunningSum):
    def __init__(self, input_size: int, context_size: int = 0) -> None:
        super().__init__(input_size, size=3)
        self.project = nn.Linear(input_size, 4)

    def start(self, batch_size: int, context: Any = None) -> dict[str, Tensor]:
        return {"sum": self.project.bias.new_zeros(batch_size, 4)}


class InfersDifferently(RunningSum):
    def forward(self, *arguments: Any) -> Encoded:
        encoded = super().forward(*arguments)
        scale = 2 if torch.is_inference_mode_enabled() else 1
        return encoded._replace(features=scale * encoded.features)


class TakesNoTextBluntly(RunningSum):
    def __init__(self, input_size: int, context_size: int = 0) -> None:
        if context_size:
            raise NotImplementedError
        super().__init__(input_size)


class Writes(RunningSum):
    """What its text adds up to, in every feature."""

    takes_text = True

    def __init__(self, input_size: int, context_size: int = 1) -> None:
        super().__init__(input_size)

    def forward(self, inputs: Tensor, lengths: Tensor, state: Any, context: Any = None) -> Encoded:
        encoded = super().forward(inputs, lengths, state)
        return encoded._replace(features=encoded.features + self.read(context).to(inputs).sin().view(-1, 1, 1))

    def read(self, context: Any) -> Tensor:
        places = torch.arange(context.text.shape[1], device=context.text.device)
        return torch.where(places < context.lengths.unsqueeze(1), context.text, 0).sum(1)


class TestWrites(EncoderContract):
    encoder = property(lambda self: seqdens.encoder("writes-sums"))


class DoesNotRead(Writes):
    def read(self, context: Any) -> Tensor:
        return torch.zeros(len(context.text))


class ReadsUnasked(Writes):
    takes_text = False

    def read(self, context: Any) -> Tensor:
        return super().read(context) if context else torch.zeros(1)


class ReadsThePaddingOfTexts(Writes):
    def read(self, context: Any) -> Tensor:
        return context.text.sum(1)


class EndsWithThePaddingOfTexts(Writes):
    def finished(self, state: Any, context: Any) -> Tensor:
        return context.text.sum(1) > 12


@pytest.mark.parametrize(
    ("encoder", "test", "arguments"),
    [
        (DoesNotRead, "test_a_text_is_heeded_where_one_is_taken", ()),
        (ReadsUnasked, "test_a_text_is_heeded_where_one_is_taken", ()),
        (ReadsThePaddingOfTexts, "test_what_stands_in_a_text_s_padding_changes_nothing", ()),
        (EndsWithThePaddingOfTexts, "test_what_stands_in_a_text_s_padding_changes_nothing", ()),
        (LooksAhead, "test_features_do_not_depend_on_later_inputs", ()),
        (IgnoresLengths, "test_each_record_of_a_ragged_batch_is_as_if_alone", ([5, 2, 4],)),
        (IgnoresLengths, "test_a_ragged_batch_goes_on_where_each_record_was", ()),
        (IgnoresLengths, "test_padding_changes_nothing", ()),
        (Forgets, "test_stepping_equals_the_full_pass", (1,)),
        (Forgets, "test_stepping_equals_the_full_pass", (4,)),
        (Forgets, "test_its_stepper_goes_on_alike_and_keeps_records", ()),
        (KeepsTheWrongRecords, "test_its_stepper_goes_on_alike_and_keeps_records", ()),
        (ForgetsInInt8, "test_in_int8_it_stays_near_if_it_says_so", ()),
        (SeesNeighbours, "test_each_record_of_a_ragged_batch_is_as_if_alone", ([5, 2, 4],)),
        (SeesNeighbours, "test_records_of_a_state_can_be_selected", ()),
        (ReadsPadding, "test_padding_changes_nothing", ()),
        (SpoilsPadding, "test_features_of_padding_are_finite", ()),
        (DropsOut, "test_evaluation_is_deterministic", ()),
        (WritesIntoItsState, "test_states_stay_as_they_are", ()),
        (Idles, "test_gradients_reach_every_parameter", ()),
        (HidesANumber, "test_a_state_dict_holds_all_there_is", ()),
        (StacksRecordsLast, "test_states_are_named_tensors_with_the_batch_first", ()),
        (StaysOnTheProcessor, "test_states_are_named_tensors_with_the_batch_first", ()),
        (MissaysItsSize, "test_features_are_output_size_numbers_a_step", ()),
        (InfersDifferently, "test_it_works_in_inference_mode", ()),
        (DiffersUnderAutocast, "test_it_works_under_autocast", ()),
        (FinishedBeforeItStarts, "test_at_the_start_nothing_is_finished", ()),
    ],
)
def test_a_broken_encoder_is_caught(encoder: type, test: str, arguments: tuple[Any, ...]) -> None:
    violates(EncoderContract, "encoder", encoder, test, *arguments)


@pytest.mark.parametrize(
    ("encoder", "test", "says"),
    [
        (DropsOut, "test_evaluation_is_deterministic", "broken: forward gives other features for equal inputs"),
        (WritesIntoItsInputs, "test_inputs_stay_as_they_are", "broken: forward changes its inputs in place"),
        (
            ReturnsATuple,
            "test_features_are_output_size_numbers_a_step",
            "ReturnsATuple: forward must return seqdens.Encoded(features, state, extras), not tuple",
        ),
        (HasNoSize, "test_features_are_output_size_numbers_a_step", "broken: output_size is None"),
        (
            StartsWithATensor,
            "test_states_are_named_tensors_with_the_batch_first",
            "broken: start must return a dict of tensors, not Tensor",
        ),
        (LooksAhead, "test_features_do_not_depend_on_later_inputs", "broken: inputs from step 1 on change features"),
    ],
)
def test_a_broken_encoder_is_told_in_a_sentence(encoder: type, test: str, says: str) -> None:
    violates(EncoderContract, "encoder", encoder, test, says=says)


def test_changed_inputs_are_not_mistaken_for_a_look_ahead() -> None:
    seqdens.register("encoders", "writes", WritesIntoItsInputs)
    contract = type("Writes", (EncoderContract,), {"encoder": seqdens.encoder("writes")})()
    contract.test_features_do_not_depend_on_later_inputs()
    contract.test_evaluation_is_deterministic()


@pytest.mark.parametrize(
    ("contract", "first"),
    [
        (
            EncoderContract,
            [
                "test_features_are_output_size_numbers_a_step",
                "test_inputs_stay_as_they_are",
                "test_evaluation_is_deterministic",
            ],
        ),
        (
            HeadContract,
            [
                "test_forward_gives_a_distribution",
                "test_terms_are_named",
                "test_its_noise_is_a_whole_number",
                "test_its_noise_is_enough_for_a_draw",
            ],
        ),
    ],
)
def test_the_plainest_faults_are_told_first(contract: type, first: list[str]) -> None:
    """pytest runs a class in the order in which it is written."""
    assert [name for name in vars(contract) if name.startswith("test_")][: len(first)] == first


def test_a_text_must_be_refused_with_a_reason() -> None:
    test = "test_a_text_to_condition_on_is_taken_or_refused"
    says = "a UsageError or a DataError that names 'broken' and '57' must be raised, not "
    violates(EncoderContract, "encoder", TakesNoTextBluntly, test, says=says)


def test_a_model_that_is_read_again_must_be_the_same(tmp_path: Path) -> None:
    violates(EncoderContract, "encoder", HidesANumber, "test_a_saved_model_gives_equal_numbers", tmp_path)


# Options


class Undocumented(RunningSum):
    """Sums.
    Nothing about options."""

    def __init__(self, input_size: int, context_size: int = 0, *, size: int = 4) -> None:
        super().__init__(input_size, size=size)


class WronglyTyped(RunningSum):
    def __init__(self, input_size: int, context_size: int = 0, *, size: int = "4", more: Any = None) -> None:  # type: ignore[assignment]
        super().__init__(input_size)


class DocumentsAnother(RunningSum):
    """Sums.

    Options:
        width: numbers of a step, of which
            there: are some
    """


class Positional(RunningSum):
    def __init__(self, input_size: int, context_size: int = 0, channels: int = 4) -> None:
        super().__init__(input_size, size=channels)


class NoneForANumber(RunningSum):
    def __init__(self, input_size: int, context_size: int = 0, *, width: int = None) -> None:  # type: ignore[assignment]  # noqa: RUF013
        super().__init__(input_size)


class Crashes(RunningSum):
    def __init__(self, input_size: int, context_size: int = 0, *, size: int = 4, kind: Literal["a", "b"] = "a") -> None:
        super().__init__(input_size)
        self.scale, self.other = 1 / size, nn.Parameter(torch.zeros(size))


class TakesASet(RunningSum):
    def __init__(self, input_size: int, context_size: int = 0, *, sizes: frozenset[int] = frozenset({4})) -> None:
        super().__init__(input_size)


class TakesAll(RunningSum):
    def __init__(self, input_size: int, context_size: int = 0, *, size: int = 4) -> None:
        super().__init__(input_size)


class Vague(RunningSum):
    def __init__(self, input_size: int, context_size: int = 0, *, size: int = 4) -> None:
        if size < 1:
            raise UsageError("too small")
        super().__init__(input_size)


@pytest.mark.parametrize(
    ("encoder", "test"),
    [
        (Undocumented, "test_its_docstring_begins_with_one_line"),
        (Undocumented, "test_every_option_is_documented"),
        (WronglyTyped, "test_values_of_other_types_are_refused"),
    ],
)
def test_options_that_a_user_cannot_know_are_caught(encoder: type, test: str) -> None:
    violates(EncoderContract, "encoder", encoder, test)


def test_a_documented_option_that_does_not_exist_is_caught() -> None:
    says = "broken: the docstring has an option 'width', but the constructor has not; known: size."
    violates(EncoderContract, "encoder", DocumentsAnother, "test_every_documented_option_exists", says=says)


def test_a_positional_option_is_caught(tmp_path: Path) -> None:
    says = "broken: channels must be keyword-only to be an option: put it after a `*`"
    violates(EncoderContract, "encoder", Positional, "test_options_are_keyword_only", tmp_path, says=says)


@pytest.mark.parametrize(
    ("encoder", "says"),
    [
        (WronglyTyped, "broken: the default of option 'size' is '4', but its type says int"),
        (NoneForANumber, "broken: the default of option 'width' is None, but its type says int"),
    ],
)
def test_a_default_of_another_type_is_caught(encoder: type, says: str) -> None:
    violates(EncoderContract, "encoder", encoder, "test_defaults_are_of_their_types", says=says)


def test_options_that_a_file_cannot_hold_are_caught() -> None:
    violates(EncoderContract, "encoder", TakesASet, "test_options_survive_being_written_down", error=UsageError)


@pytest.mark.parametrize("encoder", [Crashes, Vague])
def test_numbers_out_of_range_must_be_refused_in_a_sentence(tmp_path: Path, encoder: type) -> None:
    violates(EncoderContract, "encoder", encoder, "test_numbers_are_taken_or_refused", tmp_path)


@pytest.mark.parametrize(("encoder", "passes"), [(RunningSum, True), (TakesAll, False), (Vague, False)])
def test_values_said_to_be_impossible_must_be_refused(tmp_path: Path, encoder: type, passes: bool) -> None:
    class Broken(EncoderContract):
        impossible = (("size", -3),)

    if passes:
        TestRunningSum().test_impossible_values_are_refused(tmp_path)
    else:
        violates(Broken, "encoder", encoder, "test_impossible_values_are_refused", tmp_path)


class NotItself(EncoderContract):
    encoder = property(lambda self: seqdens.encoder("memoryless"))  # type: ignore[assignment]
    name = "running-sum"  # type: ignore[assignment]


def test_a_name_that_stands_for_another_is_caught() -> None:
    with pytest.raises(FAILURES):
        NotItself().test_it_is_found_by_its_name()


# Heads


class Factors(seqdens.Distribution):
    """A normal for a real column, probabilities for all others; a missing real value is left out."""

    spread = 1.0

    def __init__(self, columns: tuple[Column, ...], parts: list[Tensor]) -> None:
        self.columns, self.parts = columns, parts

    def terms(self, targets: Tensor) -> dict[str, Tensor]:
        return {
            f"{index}": self.normal(part, x) if column.kind == "real" else self.chosen(part, x)
            for index, (column, part, x) in enumerate(zip(self.columns, self.parts, targets.unbind(-1), strict=True))
        }

    def normal(self, part: Tensor, x: Tensor) -> Tensor:
        mean, log_sigma = part.unbind(-1)
        square = ((x.nan_to_num() - mean) * (-log_sigma).exp()).square()
        return torch.where(x.isnan(), 0.0, -0.5 * square - log_sigma - 0.5 * math.log(2 * math.pi))

    def chosen(self, part: Tensor, x: Tensor) -> Tensor:
        return part.log_softmax(-1).gather(-1, x.long().unsqueeze(-1)).squeeze(-1)

    def sample(self, noise: Tensor, bias: float = 0.0) -> Tensor:
        drawn = [
            self.draw_normal(part, u, bias) if column.kind == "real" else self.draw_chosen(part, u, bias)
            for column, part, u in zip(self.columns, self.parts, noise.unbind(-1), strict=True)
        ]
        return torch.stack(drawn, -1)

    def draw_normal(self, part: Tensor, u: Tensor, bias: float) -> Tensor:
        mean, log_sigma = part.unbind(-1)
        margin = torch.finfo(u.dtype).eps
        normal = math.sqrt(2) * torch.erfinv(2 * u.clamp(margin, 1 - margin) - 1)
        return mean + self.spread * (log_sigma - bias).exp() * normal

    def draw_chosen(self, part: Tensor, u: Tensor, bias: float) -> Tensor:
        cumulative = (part * (1 + bias)).softmax(-1).cumsum(-1)
        return (cumulative[..., :-1] <= u.unsqueeze(-1)).sum(-1).to(u.dtype)

    def mean(self) -> Tensor:
        return torch.stack(
            [
                part[..., 0] if column.kind == "real" else (part.softmax(-1) * torch.arange(part.shape[-1])).sum(-1)
                for column, part in zip(self.columns, self.parts, strict=True)
            ],
            -1,
        )


class Independent(seqdens.Head):
    """Every column on its own: a normal or one probability a value."""

    factors: ClassVar[type[Factors]] = Factors

    def __init__(self, input_size: int, columns: tuple[Column, ...]) -> None:
        super().__init__(input_size, columns)
        if not columns:
            raise UsageError("independent needs a column, but has none; choose another data set.")
        self.noise_size = len(columns)
        self.sizes = [column.states or 2 for column in columns]
        self.output = nn.Linear(input_size, sum(self.sizes))

    def forward(self, features: Tensor) -> Factors:
        outputs = self.output(features)
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        return self.factors(self.columns, list(outputs.split(self.sizes, -1)))


class TestIndependent(HeadContract):
    head = property(lambda self: seqdens.head("independent"))
    column_sets = ((VALUE,), (TOKEN,), (VALUE, PEN, Column("other", "real")), THREE)


class IntegratesToTwo(Factors):
    def normal(self, part: Tensor, x: Tensor) -> Tensor:
        return super().normal(part, x) + math.log(2)


class DrawsTooWide(Factors):
    spread = 1.3


class DrawsTheLastValueTooOften(Factors):
    def draw_chosen(self, part: Tensor, u: Tensor, bias: float) -> Tensor:
        return super().draw_chosen(part, 1 - 0.9 * u, bias)


class MeansAnother(Factors):
    def mean(self) -> Tensor:
        return super().mean() + 0.1


class DrawsByItself(Factors):
    def sample(self, noise: Tensor, bias: float = 0.0) -> Tensor:
        return super().sample(torch.rand_like(noise), bias)


class SharesNoise(Factors):
    def sample(self, noise: Tensor, bias: float = 0.0) -> Tensor:
        return super().sample((noise + noise.sum()) % 1, bias)


class IgnoresNoise(Factors):
    def sample(self, noise: Tensor, bias: float = 0.0) -> Tensor:
        return super().sample(torch.full_like(noise, 0.4), bias)


class ReachesInfinity(Factors):
    def draw_normal(self, part: Tensor, u: Tensor, bias: float) -> Tensor:
        return super().draw_normal(part, u, bias) + u.log()


class DrawsBetweenValues(Factors):
    def draw_chosen(self, part: Tensor, u: Tensor, bias: float) -> Tensor:
        return super().draw_chosen(part, u, bias) + 0.5


class BiasedTheOtherWay(Factors):
    def sample(self, noise: Tensor, bias: float = 0.0) -> Tensor:
        return super().sample(noise, -bias)


class IgnoresBias(Factors):
    def sample(self, noise: Tensor, bias: float = 0.0) -> Tensor:
        return super().sample(noise)


class ReturnsATensor(Factors):
    def terms(self, targets: Tensor) -> Any:
        return sum(super().terms(targets).values())


class FillsMissingValuesIn(Factors):
    def normal(self, part: Tensor, x: Tensor) -> Tensor:
        return super().normal(part, x.nan_to_num())


class AddsSomething(Factors):
    def log_prob(self, targets: Tensor) -> Tensor:
        return super().log_prob(targets) + 1


class LeavesLogSpace(Factors):
    def normal(self, part: Tensor, x: Tensor) -> Tensor:
        return super().normal(part, x).exp().log()


class AveragesOverSteps(Factors):
    def normal(self, part: Tensor, x: Tensor) -> Tensor:
        return super().normal(part - part.mean(1, keepdim=True), x)


class LosesADimension(Factors):
    def mean(self) -> Tensor:
        return super().mean().squeeze(0)[..., 0]


class DeviatesBackwards(Factors):
    def sigmas_at(self, targets: Tensor) -> Tensor:
        return torch.stack([-part[..., 1].exp() for part in self.parts[:1]], -1)


class DoublesPrecision(Factors):
    def normal(self, part: Tensor, x: Tensor) -> Tensor:
        return super().normal(part, x).double()


def with_factors(factors: type[Factors]) -> type[Independent]:
    return type("Broken", (Independent,), {"factors": factors})


COLUMNS = (VALUE, TOKEN)


@pytest.mark.parametrize(
    ("factors", "test", "arguments"),
    [
        (IntegratesToTwo, "test_density_integrates_to_one", (COLUMNS, 0)),
        (IntegratesToTwo, "test_any_columns_are_modelled_or_refused", (COLUMNS,)),
        (DrawsTooWide, "test_draws_follow_the_density", (COLUMNS, 0)),
        (DrawsTheLastValueTooOften, "test_draws_follow_the_density", (COLUMNS, 0)),
        (DrawsTheLastValueTooOften, "test_mean_is_that_of_the_draws", ((VALUE, PEN), 0)),
        (MeansAnother, "test_mean_is_that_of_the_draws", (COLUMNS, 0)),
        (DrawsByItself, "test_draws_are_a_function_of_their_own_noise", (COLUMNS,)),
        (SharesNoise, "test_draws_are_a_function_of_their_own_noise", (COLUMNS,)),
        (IgnoresNoise, "test_draws_are_a_function_of_their_own_noise", (COLUMNS,)),
        (ReachesInfinity, "test_draws_at_the_ends_of_the_noise_are_finite", (COLUMNS, 0.0)),
        (DrawsBetweenValues, "test_draws_are_values_of_their_columns", (COLUMNS,)),
        (BiasedTheOtherWay, "test_a_bias_draws_what_is_more_probable", (COLUMNS,)),
        (FillsMissingValuesIn, "test_missing_values_are_marginalised_or_refused", (COLUMNS,)),
        (AddsSomething, "test_terms_add_up_to_the_log_density", (COLUMNS,)),
        (LeavesLogSpace, "test_extreme_features_give_finite_losses_and_gradients", (COLUMNS, 8.0)),
        (AveragesOverSteps, "test_a_step_is_predicted_from_its_features_alone", (COLUMNS,)),
        (DeviatesBackwards, "test_standard_deviations_are_those_of_the_real_columns", (COLUMNS,)),
        (LosesADimension, "test_everything_keeps_its_shape_and_precision", (COLUMNS, torch.float64)),
        (DoublesPrecision, "test_everything_keeps_its_shape_and_precision", (COLUMNS, torch.float32)),
    ],
)
def test_a_broken_distribution_is_caught(factors: type[Factors], test: str, arguments: tuple[Any, ...]) -> None:
    violates(HeadContract, "head", with_factors(factors), test, *arguments)


class IdleHead(Independent):
    def __init__(self, input_size: int, columns: tuple[Column, ...]) -> None:
        super().__init__(input_size, columns)
        self.unused = nn.Linear(2, 2)


class NoNoise(Independent):
    def __init__(self, input_size: int, columns: tuple[Column, ...]) -> None:
        super().__init__(input_size, columns)
        self.noise_size = 2.0  # type: ignore[assignment]


class ForgetsItsNoise(Independent):
    def __init__(self, input_size: int, columns: tuple[Column, ...]) -> None:
        super().__init__(input_size, columns)
        del self.noise_size


class TooLittleNoise(Independent):
    def __init__(self, input_size: int, columns: tuple[Column, ...]) -> None:
        super().__init__(input_size, columns)
        self.noise_size = 1


class GivesParts(Independent):
    def forward(self, features: Tensor) -> Any:
        return super().forward(features), {}


class StaysInHalfPrecision(Independent):
    def forward(self, features: Tensor) -> Factors:
        return self.factors(self.columns, list(self.output(features).split(self.sizes, -1)))


class RoundsItsDensity(Independent):
    class factors(Factors):
        def normal(self, part: Tensor, x: Tensor) -> Tensor:
            return super().normal(part, x) - 2.0**-9 * torch.is_autocast_enabled("cpu")


class ForgetsTheBias(Independent):
    def drawer(self, bias: float = 0.0) -> Callable[[Tensor, Tensor], Tensor]:
        return super().drawer(0.0)


class Careless(Independent):
    """Loses the term of a column whose name there is twice, and takes no columns at all."""

    def __init__(self, input_size: int, columns: tuple[Column, ...]) -> None:
        super().__init__(input_size, columns or (VALUE,))

    class factors(Factors):
        def terms(self, targets: Tensor) -> dict[str, Tensor]:
            names = (column.name for column in self.columns)
            return dict(zip(names, super().terms(targets).values(), strict=True))


@pytest.mark.parametrize(
    ("head", "test", "arguments"),
    [
        (IdleHead, "test_gradients_reach_every_parameter", (COLUMNS,)),
        (NoNoise, "test_its_noise_is_a_whole_number", (COLUMNS,)),
        (Careless, "test_any_columns_are_modelled_or_refused", ((PEN, PEN),)),
        (Careless, "test_no_columns_are_refused", ()),
        (ForgetsTheBias, "test_a_drawer_draws_what_sample_does", (COLUMNS, 0.5)),
    ],
)
def test_a_broken_head_is_caught(head: type, test: str, arguments: tuple[Any, ...]) -> None:
    violates(HeadContract, "head", head, test, *arguments)


@pytest.mark.parametrize(
    ("head", "test", "arguments", "says"),
    [
        (
            GivesParts,
            "test_forward_gives_a_distribution",
            (COLUMNS,),
            "broken: forward must return a seqdens.Distribution, not tuple",
        ),
        (
            with_factors(ReturnsATensor),
            "test_terms_are_named",
            (COLUMNS,),
            "broken: terms must return a dict of tensors, not Tensor",
        ),
        (ForgetsItsNoise, "test_its_noise_is_a_whole_number", (COLUMNS,), "broken: noise_size is None, but must be"),
        (
            TooLittleNoise,
            "test_its_noise_is_enough_for_a_draw",
            (COLUMNS,),
            "broken: a draw from 1 uniform numbers (its noise_size) raises ValueError",
        ),
        (
            with_factors(IgnoresBias),
            "test_a_bias_draws_what_is_more_probable",
            (COLUMNS,),
            "broken: a bias of 5 makes draws no more probable: does sample use it?",
        ),
        (
            with_factors(MeansAnother),
            "test_mean_is_that_of_the_draws",
            (COLUMNS, 0),
            "broken: the mean of column 'value' is ",
        ),
        (
            with_factors(LeavesLogSpace),
            "test_extreme_features_give_finite_losses_and_gradients",
            (COLUMNS, 8.0),
            "broken: features of +-8.0 give a density that is not finite",
        ),
        (
            StaysInHalfPrecision,
            "test_it_works_under_autocast",
            ((TOKEN,),),
            "broken: 'log_prob' is torch.bfloat16 under autocast, but must be float32",
        ),
        (
            StaysInHalfPrecision,
            "test_under_autocast_the_density_integrates_to_one",
            ((VALUE,), 0),
            "broken: under autocast the density integrates to ",
        ),
        (
            RoundsItsDensity,
            "test_under_autocast_the_density_integrates_to_one",
            (COLUMNS, 0),
            "broken: under autocast the density integrates to 0.998",
        ),
    ],
)
def test_a_broken_head_is_told_in_a_sentence(head: type, test: str, arguments: tuple[Any, ...], says: str) -> None:
    violates(HeadContract, "head", head, test, *arguments, says=says)


def test_states_alone_need_no_bias() -> None:
    seqdens.register("heads", "unbiased", with_factors(IgnoresBias))
    contract = type("Unbiased", (HeadContract,), {"head": seqdens.head("unbiased")})()
    contract.test_a_bias_draws_what_is_more_probable((TOKEN, PEN))


# Data sets


class Numbers(seqdens.Dataset):
    """Whole numbers, one record a file and line, and whether each is even.

    Options:
        scale: factor of the numbers
    """

    columns = (VALUE, PEN)

    def __init__(self, root: Path | None = None, *, scale: int = 1) -> None:
        if root is None:
            raise UsageError("numbers needs --data DIR: a folder of text files.")
        if scale < 1:
            raise UsageError(f"scale of numbers is {scale}, but must be at least 1.")
        self.root, self.scale = root, scale

    def sources(self) -> list[Source]:
        paths = sorted(self.root.glob("*.txt"))
        if not paths:
            raise DataError(f"{self.root} holds no text files; name a folder that does.")
        return [Source(path.stem, (path,)) for path in paths]

    def read(self, source: Source) -> Iterator[Record | Skipped]:
        try:
            for line, text in enumerate(source.paths[0].read_text().splitlines(), 1):
                yield Record(f"{source.name}-{line}", self.points([int(number) for number in text.split()]))
        except (OSError, ValueError) as error:
            yield Skipped(str(source.paths[0]), " ".join(str(error).split()))

    def points(self, numbers: list[int]) -> np.ndarray:
        return np.array([(self.scale * number, number % 2 == 0) for number in numbers])


def write_numbers(root: Path) -> None:
    for name in ("one", "two"):
        (root / f"{name}.txt").write_text("1 2 3 4 5 6 7\n2 4 8 16\n")


class NumbersContract(DatasetContract):
    def make_files(self, root: Path) -> None:
        write_numbers(root)


class TestNumbers(NumbersContract):
    dataset = property(lambda self: seqdens.dataset("numbers", scale=3))
    impossible = (("scale", 0),)


class ReadsAtRandom(Numbers):
    def points(self, numbers: list[int]) -> np.ndarray:
        return super().points(numbers) * (np.random.randint(1, 1000), 1)


class CountsItsReadings(Numbers):
    readings = 0

    def points(self, numbers: list[int]) -> np.ndarray:
        self.readings += 1
        return np.add(super().points(numbers), (self.readings // 3, 0))


class ReadsLessLater(Numbers):
    left = 2

    def read(self, source: Source) -> Iterator[Record | Skipped]:
        records = list(super().read(source))
        yield from records[: self.left]
        self.left = 1


class Shuffles(Numbers):
    orders = itertools.cycle([1, -1])

    def sources(self) -> list[Source]:
        return super().sources()[:: next(self.orders)]


class RepeatsNames(Numbers):
    def sources(self) -> list[Source]:
        return [source for source in super().sources() for _ in range(2)]


class BreaksItsColumns(Numbers):
    def points(self, numbers: list[int]) -> np.ndarray:
        return super().points(numbers) * (1, 2)


class RepeatsIds(Numbers):
    def read(self, source: Source) -> Iterator[Record | Skipped]:
        return (Record("same", item.points) for item in super().read(source) if isinstance(item, Record))


class TrainsOnNothing(Numbers):
    def read(self, source: Source) -> Iterator[Record | Skipped]:
        return (Record(item.id, item.points, "test") for item in super().read(source) if isinstance(item, Record))


class HoldsAFunction(Numbers):
    def __init__(self, root: Path | None = None, *, scale: int = 1) -> None:
        super().__init__(root)
        self.function = lambda: None


class DropsWhatIsDamaged(Numbers):
    def read(self, source: Source) -> Iterator[Record | Skipped]:
        return (item for item in super().read(source) if isinstance(item, Record))


class GivesUp(Numbers):
    def sources(self) -> list[Source]:
        damaged = any(b"\0" in path.read_bytes() for path in self.root.glob("*.txt"))
        return [] if damaged else super().sources()


class ColumnsOfOneName(Numbers):
    columns = (VALUE, Column("value", "binary"))


class SaysNothing(Numbers):
    record_name = ""


class TakesAnyFolder(Numbers):
    def sources(self) -> list[Source]:
        return [Source(path.stem, (path,)) for path in sorted(self.root.glob("*.txt"))]


class NeedsNothing(Numbers):
    def __init__(self, root: Path | None = None) -> None:
        super().__init__(root or Path())


class GoesOn(Numbers):
    columns = (VALUE, Column("end", "binary", role="sequence_end"))


class ChangesItsVersion(Numbers):
    versions = itertools.count(1)

    @property
    def reader_version(self) -> int:  # type: ignore[override]
        return next(self.versions)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    write_numbers(tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("dataset", "test"),
    [
        (ReadsAtRandom, "test_reading_again_gives_equal_records"),
        (Shuffles, "test_sources_have_names_and_an_order_of_their_own"),
        (RepeatsNames, "test_sources_have_names_and_an_order_of_their_own"),
        (BreaksItsColumns, "test_records_keep_to_their_columns"),
        (GoesOn, "test_records_keep_to_their_columns"),
        (RepeatsIds, "test_records_say_whose_they_are"),
        (TrainsOnNothing, "test_records_say_whose_they_are"),
        (ColumnsOfOneName, "test_columns_are_told_apart"),
        (SaysNothing, "test_what_it_says_of_itself"),
        (DropsWhatIsDamaged, "test_a_damaged_file_costs_only_itself"),
        (GivesUp, "test_a_damaged_file_costs_only_itself"),
        (DropsWhatIsDamaged, "test_a_file_that_is_gone_since_it_was_listed_is_skipped"),
    ],
)
def test_a_broken_data_set_is_caught(root: Path, dataset: type, test: str) -> None:
    violates(NumbersContract, "dataset", dataset, test, root)


@pytest.mark.parametrize("dataset", [ReadsAtRandom, CountsItsReadings])
def test_a_record_that_differs_is_named(root: Path, dataset: type) -> None:
    test, says = "test_reading_again_gives_equal_records", "broken: record 'one-1' differs when it is read again"
    violates(NumbersContract, "dataset", dataset, test, root, says=says)


def test_a_record_that_is_gone_is_named(root: Path) -> None:
    test, says = "test_reading_again_gives_equal_records", "broken: record 'one-2' differs when it is read again"
    violates(NumbersContract, "dataset", ReadsLessLater, test, root, says=says)


def test_a_data_set_that_cannot_go_to_another_process_is_caught(root: Path) -> None:
    errors = (pickle.PicklingError, AttributeError)
    violates(NumbersContract, "dataset", HoldsAFunction, "test_reading_again_gives_equal_records", root, error=errors)


@pytest.mark.parametrize("name", ["nowhere", "empty", "file"])
def test_a_data_set_that_takes_any_folder_is_caught(tmp_path: Path, name: str) -> None:
    test = "test_a_folder_that_is_not_its_own_is_refused"
    violates(NumbersContract, "dataset", TakesAnyFolder, test, tmp_path, name)


def test_a_data_set_that_does_not_say_what_it_needs_is_caught() -> None:
    violates(NumbersContract, "dataset", NeedsNothing, "test_without_a_folder_it_says_what_it_needs")


def test_a_data_set_that_is_prepared_again_and_again_is_caught(root: Path, tmp_path: Path) -> None:
    violates(NumbersContract, "dataset", ChangesItsVersion, "test_it_is_read_once", root, tmp_path)


def test_prepared_data_that_are_not_the_records_are_caught(root: Path, tmp_path: Path) -> None:
    test = "test_prepared_offsets_give_the_points_back"
    violates(NumbersContract, "dataset", ReadsAtRandom, test, root, tmp_path)


def test_shards_that_are_not_the_whole_are_caught(root: Path, tmp_path: Path) -> None:
    test, says = "test_shards_make_up_the_whole", "broken: in 2 shards it has other points and statistics"
    violates(NumbersContract, "dataset", ReadsAtRandom, test, root, tmp_path, 2, says=says)


# Experiments

COUNTING = Experiment(
    summary="Numbers by a running sum.",
    dataset={"name": "numbers"},
    encoder={"name": "running-sum"},
    head={"name": "independent"},
    training={"optimiser": "adam", "learning_rate": 0.01},
    sampling={"count": 2, "steps": 5},
    presets={"large": {"encoder": {"size": 32}}},
)


class CountingContract(ExperimentContract):
    def make_files(self, root: Path) -> None:
        write_numbers(root)


class TestCounting(CountingContract):
    experiment = "counting"


def declared(**changes: Any) -> Experiment:
    return Experiment(**(COUNTING.describe() | changes))


@pytest.mark.parametrize(
    ("experiment", "test"),
    [
        (declared(summary="two\nlines"), "test_it_says_what_it_is"),
        (declared(own_preset="quick"), "test_it_says_what_it_is"),
    ],
)
def test_a_declaration_that_does_not_hold_together_is_caught(experiment: Experiment, test: str) -> None:
    seqdens.register("experiments", "broken", experiment)
    with pytest.raises(FAILURES):
        getattr(type("Broken", (CountingContract,), {"experiment": "broken"})(), test)()


@pytest.mark.parametrize(
    "presets",
    [
        {"large": {"encoder": {"sise": 32}}},
        {"none": {"encoder": {"size": 0}}},
        {"bad": {"training": {"optimiser": "x"}}},
    ],
)
def test_a_preset_that_cannot_be_built_is_caught(root: Path, presets: Any) -> None:
    seqdens.register("experiments", "broken", declared(presets=presets))
    with pytest.raises(UsageError):
        type("Broken", (CountingContract,), {"experiment": "broken"})().test_every_preset_can_be_built(root)


def test_a_configuration_that_a_file_cannot_hold_is_caught(tmp_path: Path) -> None:
    seqdens.register("encoders", "of-a-set", TakesASet)
    seqdens.register("experiments", "broken", declared(encoder={"name": "of-a-set"}, presets={}))
    with pytest.raises(TypeError):
        type("Broken", (CountingContract,), {"experiment": "broken"})().test_a_configuration_says_all_of_it(tmp_path)


def test_a_run_that_does_not_learn_is_caught(root: Path, tmp_path: Path) -> None:
    seqdens.register("experiments", "broken", declared(training={"optimiser": "SGD", "learning_rate": 1e-30}))
    with pytest.raises(FAILURES, match="does not learn"):
        type("Broken", (CountingContract,), {"experiment": "broken"})().test_a_small_run_learns_and_draws(
            root, tmp_path
        )


# The module


@pytest.mark.parametrize("contract", [EncoderContract, HeadContract, DatasetContract, ExperimentContract])
def test_every_test_of_a_contract_is_seen_to_fail_here(contract: type) -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert [
        name
        for name in dir(contract)
        if name.startswith("test_") and f'{name}"' not in here and f".{name}(" not in here
    ] == []


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_without_pytest_a_sentence_says_what_to_install() -> None:
    done = python("import sys; sys.modules['pytest'] = None; import seqdens.testing")
    assert 'ImportError: seqdens.testing needs pytest: pip install "seqdens[test]".' in done.stderr


def test_users_need_no_pytest() -> None:
    done = python("import seqdens, seqdens.cli, sys; sys.exit('pytest' in sys.modules)")
    assert done.returncode == 0, done.stderr
