"""The contract of an encoder.

B sequences, T steps, F numbers of a step. States are compared by what follows from them: how an encoder keeps
its past is its own affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from seqdens.components import head
from seqdens.datasets.base import STROKE_END, X, Y
from seqdens.encoders.base import Context, Encoded, Encoder, State, apply_encoder
from seqdens.model import takes_text
from seqdens.registry import Component
from seqdens.testing.components import ComponentContract, refused
from seqdens.testing.models import check_saved_model

INPUTS, CHARACTERS = 3, 7
RAGGED = ([5, 2, 4], [0, 3, 1, 6], [1, 7, 7], [4, 0])


class EncoderContract(ComponentContract):
    """An encoder: causal, stepwise, indifferent to padding, and without memory but in its state.

    >>> import seqdens
    >>> class TestStackedLSTM(EncoderContract):
    ...     encoder = seqdens.encoder("stacked-lstm", hidden_size=5, layers=2)
    ...     impossible = (("hidden_size", 0), ("gate_clip", -1.0))
    >>> TestStackedLSTM().test_stepping_equals_the_full_pass(chunk=1)

    One that takes text is given one with every record, of another length each.
    Numbers are compared in `dtype`, to the precision that `torch.testing.assert_close` takes for it.
    """

    kind: ClassVar[str] = "encoders"
    encoder: Component
    dtype: torch.dtype = torch.float64

    @property
    def component(self) -> Component:
        return self.encoder

    @property
    def context_size(self) -> int:
        return CHARACTERS if takes_text(self.encoder) else 0

    def wired(self, folder: Path) -> tuple[int, int]:
        return INPUTS, self.context_size

    def build(self, seed: int = 0) -> Encoder:
        """The encoder, untrained, in evaluation mode."""
        torch.manual_seed(seed)
        encoder: Encoder = self.encoder.build(INPUTS, self.context_size)
        return encoder.to(self.dtype).eval()

    def inputs(self, records: int, steps: int) -> Tensor:
        """Inputs (B, T, F) at random, the same for the same shape."""
        generator = torch.Generator().manual_seed(100 * records + steps)
        return torch.randn(records, steps, INPUTS, generator=generator, dtype=torch.float64).to(self.dtype)

    def after(self, encoder: Encoder, state: State, texts: Sequence[int] | None = None) -> Tensor:
        """The features (B, 3, F) of three further steps, of equal inputs for every record."""
        records = len(next(iter(state.values())))
        return encode(encoder, self.inputs(1, 3).expand(records, -1, -1), state=state, texts=texts).features

    def test_features_are_output_size_numbers_a_step(self) -> None:
        encoder = self.build()
        encoded = encode(encoder, self.inputs(2, 4))
        size = getattr(encoder, "output_size", None)
        assert isinstance(size, int), f"{self.name}: output_size is {size!r}, but must be the numbers of a step"
        assert encoded.features.shape == (2, 4, size), f"{self.name}: features of 2 records of 4 steps have this shape"
        assert encoded.features.dtype == self.dtype, f"{self.name}: features are not of the inputs' precision"
        assert encoded.features.isfinite().all(), f"{self.name}: features are not finite"
        for name, extra in encoded.extras.items():
            assert isinstance(extra, Tensor), f"{self.name}: extra {name!r} is no tensor"
            assert len(extra) == 2, f"{self.name}: extra {name!r} is {tuple(extra.shape)}, but there are 2 records"

    def test_inputs_stay_as_they_are(self) -> None:
        encoder, inputs = self.build(), self.inputs(2, 3)
        context = context_of(encoder, [0, 1])
        encoder(inputs, torch.tensor([3, 2]), encoder.start(2, context), context)
        assert torch.equal(inputs, self.inputs(2, 3)), f"{self.name}: forward changes its inputs in place"

    def test_evaluation_is_deterministic(self) -> None:
        encoder, inputs = self.build(), self.inputs(2, 4)
        expected = encode(encoder, inputs).features
        torch.manual_seed(1)
        before = torch.get_rng_state()
        assert torch.equal(encode(encoder, inputs).features, expected), (
            f"{self.name}: forward gives other features for equal inputs in evaluation mode: is dropout still active?"
        )
        assert torch.equal(torch.get_rng_state(), before), (
            f"{self.name}: forward draws random numbers in evaluation mode"
        )

    def test_states_are_named_tensors_with_the_batch_first(self) -> None:
        encoder = self.build()
        start = encoder.start(3, context_of(encoder, range(3)))
        assert isinstance(start, dict), f"{self.name}: start must return a dict of tensors, not {type(start).__name__}"
        after = encode(encoder, self.inputs(3, 2)).state
        assert start.keys() == after.keys(), f"{self.name}: forward returns another state than start"
        assert start, f"{self.name}: a state needs a tensor, for the number of its records"
        for name, value in (*start.items(), *after.items()):
            assert isinstance(name, str), f"{self.name}: a state's names are texts, not {name!r}"
            assert len(value) == 3, f"{self.name}: state {name!r} is {tuple(value.shape)}, but there are 3 records"
            assert value.dtype == self.dtype or not value.is_floating_point(), (
                f"{self.name}: state {name!r} is {value.dtype}, but the parameters are {self.dtype}"
            )
        on_meta = encoder.to("meta").start(3, context_of(encoder, range(3), "meta"))
        assert {value.device.type for value in on_meta.values()} == {"meta"}, (
            f"{self.name}: a state must be on the device of the parameters"
        )

    def test_features_do_not_depend_on_later_inputs(self) -> None:
        encoder, inputs = self.build(), self.inputs(2, 6)
        expected = encode(encoder, inputs).features
        for t in range(1, 6):
            changed = inputs.clone()
            changed[:, t:] += 1
            found = encode(encoder, changed).features
            self.close(found[:, :t], expected[:, :t], f"inputs from step {t} on change features before it")

    @pytest.mark.parametrize("chunk", [1, 2, 4])
    def test_stepping_equals_the_full_pass(self, chunk: int) -> None:
        encoder, inputs = self.build(), self.inputs(2, 7)
        whole, state, features = encode(encoder, inputs), encoder.start(2, context_of(encoder, range(2))), []
        for part in inputs.split(chunk, dim=1):
            step = encode(encoder, part, state=state)
            state = step.state
            features.append(step.features)
        where = f"{chunk} at a time, steps give another"
        self.close(torch.cat(features, dim=1), whole.features, f"{where} feature than all at once")
        self.close(self.after(encoder, state), self.after(encoder, whole.state), f"{where} state than all at once")

    def test_its_stepper_goes_on_alike_and_keeps_records(self) -> None:
        encoder, inputs, kept = self.build(), self.inputs(3, 7), [2, 0]
        whole = encode(encoder, inputs)
        with torch.inference_mode():
            stepper = encoder.stepper(encode(encoder, inputs[:, :2]).state, context_of(encoder, [0, 1, 2]))
            found = torch.stack([stepper(inputs[:, t]) for t in (2, 3)], dim=1)
            stepper.keep(torch.tensor(kept))
            left = torch.stack([stepper(inputs[kept, t]) for t in (4, 5, 6)], dim=1)
        self.close(found, whole.features[:, 2:4], "steps of its stepper give other features than all at once")
        self.close(left, whole.features[kept, 4:], "once its stepper keeps some records alone, these go on otherwise")
        self.close(
            self.after(encoder, {name: value.clone() for name, value in stepper.state.items()}, kept),
            self.after(encoder, whole.state)[kept],
            "the state of its stepper is another than after all steps at once",
        )

    @pytest.mark.parametrize("lengths", RAGGED, ids=str)
    def test_each_record_of_a_ragged_batch_is_as_if_alone(self, lengths: list[int]) -> None:
        encoder, inputs = self.build(), self.inputs(len(lengths), max(lengths))
        together = encode(encoder, inputs, lengths)
        following = self.after(encoder, together.state)
        for record, length in enumerate(lengths):
            alone, state = inputs[record : record + 1, :length], encoder.start(1, context_of(encoder, [record]))
            if length:
                features, state, _ = encode(encoder, alone, texts=[record])
                where = f"features of record {record} of lengths {lengths} are not those that it has alone"
                self.close(together.features[record, :length], features[0], where)
            where = f"the state of record {record} of lengths {lengths} is not the one that it has alone"
            self.close(following[record], self.after(encoder, state, [record])[0], where)

    def test_a_ragged_batch_goes_on_where_each_record_was(self) -> None:
        encoder, inputs, more = self.build(), self.inputs(3, 5), self.inputs(3, 4)
        first, second = [5, 2, 3], [0, 4, 1]
        state = encode(encoder, more, second, encode(encoder, inputs, first).state).state
        following = self.after(encoder, state)
        for record, (a, b) in enumerate(zip(first, second, strict=True)):
            alone = encode(encoder, torch.cat([inputs[record, :a], more[record, :b]]).unsqueeze(0), texts=[record])
            where = f"a record of {a} steps, then {b}, in a ragged batch does not go on as after all of them"
            self.close(following[record], self.after(encoder, alone.state, [record])[0], where)

    def test_padding_changes_nothing(self) -> None:
        encoder, lengths = self.build(), [2, 5, 3]
        inputs = self.inputs(3, 7)
        disturbed = inputs.clone()
        for record, length in enumerate(lengths):
            disturbed[record, length:] = torch.finfo(self.dtype).max ** 0.1
        found, expected = encode(encoder, disturbed, lengths), encode(encoder, inputs, lengths)
        for record, length in enumerate(lengths):
            assert torch.equal(found.features[record, :length], expected.features[record, :length]), (
                f"{self.name}: what stands in the padding changes features before it"
            )
        where = "what stands in the padding changes the state"
        self.close(self.after(encoder, found.state), self.after(encoder, expected.state), where)
        wanted = gradients(encoder, expected.features[0, :2].sum())
        for name, gradient in gradients(encoder, found.features[0, :2].sum()).items():
            assert torch.equal(gradient, wanted[name]), f"{self.name}: padding changes the gradient of {name}"

    def test_features_of_padding_are_finite(self) -> None:
        """Or their loss, though masked, would spoil the gradients."""
        encoder = self.build()
        encoded = encode(encoder, self.inputs(2, 5), [5, 1])
        assert encoded.features.isfinite().all(), f"{self.name}: features of padding are not finite"
        for name, gradient in gradients(encoder, encoded.features[1, :1].sum()).items():
            assert gradient.isfinite().all(), f"{self.name}: with padding the gradient of {name} is not finite"

    def test_records_of_a_state_can_be_selected(self) -> None:
        encoder, more, chosen = self.build(), self.inputs(3, 3), [2, 0]
        state = encode(encoder, self.inputs(3, 4), [4, 1, 2]).state
        selected = {name: value[chosen].clone() for name, value in state.items()}
        found = encode(encoder, more[chosen], state=selected, texts=chosen).features
        expected = encode(encoder, more, state=state).features[chosen]
        self.close(found, expected, "records 2 and 0 of three, selected from a state, do not go on as among all")

    def test_states_stay_as_they_are(self) -> None:
        encoder, inputs = self.build(), self.inputs(2, 3)
        state = encode(encoder, inputs).state
        kept = {name: value.clone() for name, value in state.items()}
        encode(encoder, inputs, [3, 2], state)
        for name, value in kept.items():
            assert torch.equal(state[name], value), f"{self.name}: forward changes state {name!r} in place"

    def test_gradients_reach_every_parameter(self) -> None:
        encoder = self.build()
        loss = encode(encoder, self.inputs(3, 6), [6, 4, 5]).features.square().sum()
        for name, gradient in gradients(encoder, loss).items():
            assert gradient.isfinite().all(), f"{self.name}: the gradient of {name} is not finite"
            assert gradient.any(), f"{self.name}: no gradient reaches {name}"

    def test_a_state_dict_holds_all_there_is(self) -> None:
        encoder, other = self.build(), self.build(seed=1)
        other.load_state_dict(encoder.state_dict())
        inputs = self.inputs(2, 4)
        assert torch.equal(encode(other, inputs).features, encode(encoder, inputs).features), (
            f"{self.name}: features depend on something that is not in the state dict"
        )

    def test_it_works_in_inference_mode(self) -> None:
        encoder, inputs = self.build(), self.inputs(2, 3)
        with torch.inference_mode():
            encoded = encode(encoder, inputs, [3, 1])
            following = self.after(encoder, encoded.state)
        expected = encode(encoder, inputs, [3, 1])
        self.close(encoded.features, expected.features, "features are others in inference mode")
        self.close(following, self.after(encoder, expected.state), "the state is another in inference mode")

    def test_it_works_under_autocast(self) -> None:
        encoder, inputs = self.build().float(), self.inputs(2, 6).float()
        expected = encode(encoder, inputs).features
        with torch.autocast("cpu", torch.bfloat16):
            encoded = encode(encoder, inputs)
            following = encode(encoder, inputs, state=encoded.state).features
        assert following.isfinite().all(), f"{self.name}: features are not finite under autocast"
        assert (encoded.features - expected).abs().max() <= 0.1 * expected.abs().max(), (
            f"{self.name}: features under autocast are others than without"
        )

    def test_in_int8_it_stays_near_if_it_says_so(self) -> None:
        encoder, inputs, lengths = self.build().float(), self.inputs(3, 6).float(), [6, 0, 3]
        if "int8" not in encoder.precisions:
            return
        context = context_of(encoder, range(3))
        with torch.no_grad():
            expected = encode(encoder, inputs, lengths)
            found = apply_encoder(encoder, inputs, torch.tensor(lengths), encoder.start(3, context), context, int8=True)
            following = [encode(encoder, inputs, state=each.state).features for each in (found, expected)]
        valid = torch.arange(6) < torch.tensor(lengths).unsqueeze(1)
        pairs = {"features": [each.features[valid] for each in (found, expected)], "what follows": following}
        for what, (rounded, exact) in pairs.items():
            assert (rounded - exact).abs().max() <= 0.1 * exact.abs().max(), (
                f"{self.name}: {what} by steps in int8 are others than in float32"
            )

    def test_at_the_start_nothing_is_finished(self) -> None:
        encoder = self.build()
        context = context_of(encoder, range(3))
        finished = encoder.finished(encoder.start(3, context), context)
        assert not finished.any(), f"{self.name}: it is finished before it starts"
        finished = encoder.finished(encode(encoder, self.inputs(3, 2)).state, context)
        assert (finished.shape, finished.dtype) == ((3,), torch.bool), (
            f"{self.name}: finished is a bool for each record"
        )

    def test_a_text_is_heeded_where_one_is_taken(self) -> None:
        encoder, inputs = self.build(), self.inputs(3, 6)
        expected, context = encode(encoder, inputs), context_for([5, 4, 3])
        found = encoder(inputs.clone(), torch.tensor([6] * 3), encoder.start(3, context), context)
        if encoder.takes_text:
            assert not torch.equal(found.features, expected.features), f"{self.name}: another text changes nothing"
        else:
            where = "it does not say takes_text, but a text changes features"
            self.close(found.features, expected.features, where)

    def test_what_stands_in_a_text_s_padding_changes_nothing(self) -> None:
        encoder, inputs = self.build(), self.inputs(3, 6)
        text, lengths = context_for([0, 1, 2])
        padding = torch.arange(text.shape[1]) >= lengths.unsqueeze(1)
        longer = torch.nn.functional.pad(torch.where(padding, CHARACTERS - 1, text), (0, 2))
        several = [Context(each, lengths) for each in (text, longer)]
        some, others = (encoder(inputs.clone(), torch.tensor([6] * 3), encoder.start(3, c), c) for c in several)
        where = "what stands in a text's padding changes"
        self.close(some.features, others.features, f"{where} features")
        finished = [encoder.finished(each.state, c) for each, c in zip((some, others), several, strict=True)]
        assert torch.equal(*finished), f"{self.name}: {where} what is finished"

    def test_a_text_to_condition_on_is_taken_or_refused(self) -> None:
        try:
            taken = self.encoder.build(INPUTS, 57)
        except Exception:
            with refused(self.name, "57"):
                self.encoder.build(INPUTS, 57)
        else:
            assert isinstance(taken, Encoder), f"{self.name}: it builds {taken!r}, which is no seqdens.Encoder"

    def test_a_saved_model_gives_equal_numbers(self, tmp_path: Path) -> None:
        check_saved_model((X, Y, STROKE_END), self.encoder, head("gmm-bernoulli", components=2), tmp_path)


def context_of(encoder: Encoder, texts: Sequence[int], device: str = "cpu") -> Context | None:
    """Those texts, for an encoder that takes them."""
    return context_for(texts, device) if encoder.takes_text else None


def context_for(texts: Sequence[int], device: str = "cpu") -> Context:
    """Texts by their numbers: number n has 2 + n % 3 characters."""
    lengths = [2 + number % 3 for number in texts]
    ids = torch.zeros(len(texts), max(lengths), dtype=torch.long)
    for row, (number, length) in enumerate(zip(texts, lengths, strict=True)):
        ids[row, :length] = (3 * torch.arange(length) + number) % CHARACTERS
    return Context(ids.to(device), torch.tensor(lengths, device=device))


def encode(
    encoder: Encoder,
    inputs: Tensor,
    lengths: list[int] | None = None,
    state: State | None = None,
    texts: Sequence[int] | None = None,
) -> Encoded:
    """From the start, and all steps of all records, where nothing else is said; `inputs` stay as they are.

    Record n writes text n, where the encoder takes one and `texts` says nothing else.
    """
    records, steps = inputs.shape[:2]
    counted = torch.tensor([steps] * records if lengths is None else lengths)
    context = context_of(encoder, range(records) if texts is None else texts)
    state = encoder.start(records, context) if state is None else state
    encoded = encoder(inputs.clone(), counted, state, context)
    assert isinstance(encoded, Encoded), (
        f"{type(encoder).__name__}: forward must return seqdens.Encoded(features, state, extras), "
        f"not {type(encoded).__name__}"
    )
    return encoded


def gradients(encoder: Encoder, loss: Tensor) -> dict[str, Tensor]:
    """Of every parameter, by name; zeros where the loss does not depend on it."""
    named = dict(encoder.named_parameters())
    if not named:
        return {}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(named, found, strict=True))
