"""From texts to lines: wrapping, one hand, stopping, coverage, drawing again; by a window that moves as it is told."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import one_hot

import seqdens
from seqdens import components, writing
from seqdens.datasets.base import STROKE_END, Column, X, Y
from seqdens.encoders.base import Context, Encoded, Encoder, State
from seqdens.errors import UsageError
from seqdens.model import SequenceModel
from seqdens.styles import Style
from seqdens.text import steps_for
from seqdens.writing import AT_ONCE, Written, attention, to_lines, write

PACE = 5
ALPHABET = " abcdz"


class Typist(Encoder):
    """Its window stays at a character for `PACE` steps. It never leaves a z, and after a step up skips what is next.

    The feature is the share of the text that is done.
    """

    takes_text = True

    def __init__(self, input_size: int, context_size: int = 0, *, skips: bool = True, window: bool = True) -> None:
        super().__init__()
        self.output_size, self.skips, self.shown = 1, skips, window

    def start(self, batch_size: int, context: Context | None = None) -> State:
        return {"place": torch.zeros(batch_size, 1)}

    def forward(self, inputs: Tensor, lengths: Tensor, state: State, context: Context | None = None) -> Encoded:
        assert context is not None
        place, places = state["place"][:, 0], []
        for step in range(inputs.shape[1]):
            here = place.long().clamp(max=context.text.shape[1] - 1).unsqueeze(1)
            stuck = (context.text.gather(1, here)[:, 0] == ALPHABET.index("z")) & (place < context.lengths)
            skip = (inputs[:, step, 1] < -2.5) & self.skips
            places.append(torch.where(skip, place.floor() + 1, place))
            moved = torch.where(stuck, place, places[-1] + 1 / PACE + 1e-6)
            place = torch.where(step < lengths, moved, place)
        drawn = torch.stack(places, dim=1)
        size = context.text.shape[1]
        window = one_hot(drawn.long().clamp(max=size - 1), size).float()
        features = (drawn / context.lengths.unsqueeze(1)).unsqueeze(2)
        return Encoded(features, {"place": place.unsqueeze(1)}, {"window": window} if self.shown else {})

    def finished(self, state: State, context: Context | None) -> Tensor:
        assert context is not None
        return state["place"][:, 0] >= context.lengths


@pytest.fixture(autouse=True)
def _typist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "_registered", [])
    components.register("encoders", "typist", Typist)


def typist(columns: Any = (X, Y, STROKE_END), **options: Any) -> SequenceModel:
    torch.manual_seed(0)
    encoder = seqdens.encoder("typist", **options)
    real = sum(column.kind == "real" for column in columns)
    head = seqdens.head("gmm-bernoulli", components=1)
    model = SequenceModel(columns, encoder, head, mean=[0.0] * real, std=[1.0] * real, alphabet=ALPHABET)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.zero_()
    return model


def texts(written: Written) -> list[str]:
    return [line.text for line in written.lines]


LONG = "abcd " * 160
STYLE = Style(np.column_stack([np.arange(1.0, 11), np.zeros(10), np.arange(10) == 9]), "ad")


def test_all_lines_are_written_in_order() -> None:
    written = write("abc dab\n\ncab bad\n d", typist(skips=False), characters=7, seed=1)
    assert texts(written) == ["abc dab", "", "cab bad", "d"]
    assert [line.draws for line in written.lines] == [1, 0, 1, 1]
    assert written.bad == []
    for line in written.lines:
        assert line.points.shape == (len(line.points), 3)
        assert line.points.dtype == np.float32
        assert len(line.written) == len(line.text)
    assert len(written.lines[1].points) == 0
    assert len(written.lines[0].points) == PACE * 7  # the longest is the first, with nothing before it
    np.testing.assert_allclose(written.lines[0].written, PACE)


def test_a_seed_repeats_and_none_varies() -> None:
    model = typist()
    once, again, other = (write(LONG, model, seed=seed) for seed in (4, 4, None))
    assert once.seed == 4
    assert again.lines[3].points.tobytes() == once.lines[3].points.tobytes() != other.lines[3].points.tobytes()
    repeated = write(LONG, model, seed=other.seed)
    assert repeated.lines[3].points.tobytes() == other.lines[3].points.tobytes()


def test_the_longest_line_is_the_style_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    model, streamed = typist(skips=False), []
    stream = model.stream
    monkeypatch.setattr(model, "stream", lambda *args, **given: streamed.append(given) or stream(*args, **given))
    written = write("abc\nabcdabcd\ndcb", model, seed=2)
    assert [given["text"] for given in streamed] == [["abcdabcd"], ["abc", "dcb"]]
    assert [given["prime_text"] for given in streamed] == [None, "abcdabcd"]
    assert written.style is not None
    np.testing.assert_array_equal(streamed[1]["prime"], written.style.points)
    np.testing.assert_array_equal(written.style.points[:-1], written.lines[1].points[:-1])
    assert written.style.points[-1, 2] == 1


def test_a_style_is_the_hand_of_all_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    model, streamed = typist(skips=False), []
    model.origin = {"dataset": "somewhere"}
    style = Style(STYLE.points, STYLE.text, units="somewhere")
    stream = model.stream
    monkeypatch.setattr(model, "stream", lambda *args, **given: streamed.append(given) or stream(*args, **given))
    written = write("abc\nabcd", model, style=style, seed=2)
    assert written.style is style
    assert [(given["text"], given["prime_text"]) for given in streamed] == [(["abc", "abcd"], "ad")]
    assert [line.written.round().tolist() for line in written.lines] == [[PACE] * 3, [PACE] * 4]


def test_a_style_of_elsewhere_is_brought_into_the_models_units() -> None:
    model = typist(skips=False)
    model.origin = {"dataset": "somewhere"}
    assert write("abc", model, style=STYLE, seed=2).style.units == "somewhere"  # type: ignore[union-attr]


def test_lines_that_skipped_a_letter_are_drawn_again() -> None:
    model = typist()
    once, often = (write(LONG, model, bias=0, tries=tries, seed=1) for tries in (1, 30))
    assert 2 < len(once.bad) < len(once.lines)
    assert not often.bad
    assert max(line.draws for line in often.lines) > 2
    for number, line in once.bad:
        assert line is once.lines[number - 1]
        assert line.score < 1
        assert line.fault == f"skipped {line.skipped!r}"
        assert np.count_nonzero(line.written < writing.LEAST) >= len(line.skipped) > 0


def test_the_best_drawing_is_kept() -> None:
    scores = [write(LONG, typist(), style=STYLE, bias=0, tries=tries, seed=1) for tries in range(1, 5)]
    best = np.array([[line.score for line in written.lines] for written in scores])
    assert (np.diff(best, axis=0) >= 0).all()
    assert (best[0] < best[-1]).any()


def test_a_line_that_never_ends_ran_away() -> None:
    written = write("abz\nabc", typist(skips=False), tries=2, seed=1)
    stuck, other = written.lines
    assert (stuck.finished, stuck.draws, stuck.fault, stuck.score) == (False, 2, "ran away", 0)
    assert len(stuck.points) <= steps_for("abz") // 2
    assert (other.fault, other.draws) == ("", 1)
    assert written.bad == [(1, stuck)]


def test_without_a_first_line_that_ends_there_is_no_style() -> None:
    written = write("abzd\nabc", typist(skips=False), tries=1, seed=1)
    assert written.style is None
    assert [line.fault for line in written.lines] == ["ran away and skipped 'd'", ""]


def test_many_lines_are_batches_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    model, counts = typist(skips=False), []
    stream = model.stream
    monkeypatch.setattr(model, "stream", lambda count, **given: counts.append(count) or stream(count, **given))
    written = write("abcd " * 2000, model, characters=40, seed=1)
    assert len(written.lines) == 250
    assert counts == [1, AT_ONCE, AT_ONCE, AT_ONCE, 249 - 3 * AT_ONCE]
    assert not written.bad


def test_progress_rises_to_the_end() -> None:
    told: list[tuple[int, int]] = []
    write(LONG, typist(), bias=0, tries=3, seed=1, progress=lambda done, total: told.append((done, total)))
    done, totals = np.array(told).T
    assert (np.diff(done) >= 0).all()
    assert (np.diff(totals) >= 0).all()
    assert totals[-1] > totals[0] > 0
    assert done[-1] == totals[-1]


def test_strokes_of_the_style_s_text_are_left_out() -> None:
    lifts = np.array([0, 1, 0, 0, 1, 0, 0, 1])
    record = np.column_stack([np.ones((8, 2)), lifts])
    assert writing._beginning(record, np.array([1, 1, 0, 0, 0, 0, 0, 0])) == 3
    assert writing._beginning(record, np.zeros(8)) == 1
    assert writing._beginning(record, np.ones(8)) == 0
    assert writing._beginning(record[:1], np.zeros(1)) == 0


def test_attention_is_a_share_of_each_point() -> None:
    model = typist(skips=False)
    records = model.sample(2, text=["abc", "d"], seed=1)
    long, short = attention(model, ["abc", "d"], records)
    assert long.shape == (3 * PACE, 3)
    assert short.shape == (PACE, 1)
    np.testing.assert_allclose(long, np.repeat(np.eye(3), PACE, axis=0))
    (primed,) = attention(model, ["abc"], [np.zeros((2, 3), np.float32)], STYLE)
    assert primed.shape == (2, len("ad abc"))
    np.testing.assert_allclose(primed, np.eye(6)[[2, 2]])


def test_a_real_window_scores_what_it_draws(writer: SequenceModel) -> None:
    written = write("bad cab dab", writer, characters=3, tries=2, seed=1)
    assert texts(written) == ["bad", "cab", "dab"]
    for line in written.lines:
        assert line.finished
        assert np.isfinite(line.points).all()
        assert 0 < line.written.sum() <= steps_for(line.text)


@given(st.text(alphabet="abcd \n\t\u00a0äXz", max_size=60), st.integers(1, 12), st.sampled_from(["skip", "replace"]))
@settings(deadline=None, max_examples=60)
def test_lines_hold_what_the_model_knows(text: str, characters: int, unknown: Any) -> None:
    known = text.lower() if unknown == "replace" else text
    if not set(known.replace("ä", "a" if unknown == "replace" else "")) & set("abcdz"):
        with pytest.raises(UsageError, match="there is no text to write"):
            to_lines(text, ALPHABET, characters, unknown)
        return
    lines = to_lines(text, ALPHABET, characters, unknown)
    assert any(lines)
    assert all(len(line) <= characters and set(line) <= set(ALPHABET) and line == line.strip() for line in lines)


def test_unknown_characters_are_named_at_once() -> None:
    with pytest.raises(UsageError, match="characters 'x' 'é' cannot be written"):
        write("ax\nbé", typist(), seed=1)
    assert texts(write("Ça x\nxx\nb", typist(), unknown="replace", seed=1)) == ["ca", "", "b"]
    assert texts(write("aébx", typist(), unknown="skip", seed=1)) == ["ab"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"text": ""}, "there is no text to write"),
        ({"text": " \n\t "}, "there is no text to write"),
        ({"text": "xyé", "unknown": "skip"}, "there is no text to write"),
        ({"text": "x\n\nx", "unknown": "skip"}, "there is no text to write"),
        ({"tries": 0}, "tries is 0, but must be at least 1"),
        ({"bias": -1.0}, "bias is -1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"characters": 0}, "a line of 0 characters"),
        ({"unknown": "none"}, "unknown is 'none'"),
        ({"precision": "half"}, "precision is 'half'"),
        ({"style": Style(STYLE.points, "why")}, "has 'h' 'w' 'y', which the model has not learnt"),
    ],
)
def test_a_silly_argument_is_one_sentence(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        write(**({"text": "abc", "model": typist()} | given))


def test_models_that_do_not_write_are_refused(model: SequenceModel) -> None:
    with pytest.raises(UsageError, match=r"stacked-lstm takes no text.*experiment synthesis"):
        write("abc", model)
    with pytest.raises(UsageError, match=r"but the model's are a \(real\)"):
        write("abc", typist((Column("a", "real"),)))
    with pytest.raises(UsageError, match="typist tells no window"):
        write("abc", typist(window=False), seed=1)


@pytest.mark.parametrize(
    ("pen_ups", "points", "end"),
    [([4], 5, 5), ([4], 6, 5), ([4], 7, 5), ([4], 8, 8), ([], 6, 6), ([2, 9], 10, 10), ([2, 9], 11, 10)],
)
def test_a_stroke_that_was_just_begun_at_the_end_is_left_out(pen_ups: list[int], points: int, end: int) -> None:
    record = np.zeros((points, 3), np.float32)
    record[pen_ups, 2] = 1
    assert writing._ending(record) == end
