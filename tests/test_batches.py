"""Batches: every record once, alike in length, in a seeded order; padding is zeros."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqdens import batches as batches_module
from seqdens.batches import collate, evaluation_batches, order, training_batches
from seqdens.cache import Provenance, write
from seqdens.datasets.base import STROKE_END, Record, X, Y
from seqdens.text import encode

COLUMNS = (X, STROKE_END, Y)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sixty training, five validation and two test records; NaN here and there, texts of different lengths."""
    rng = np.random.default_rng(0)
    records = []
    for split, count in (("train", 60), ("valid", 5), ("test", 2)):
        for number in range(count):
            points = rng.normal(0, 9, (rng.integers(1, 40), 3))
            points[:, 1] = rng.integers(0, 2, len(points))
            points[rng.random(len(points)) < 0.05, 0] = np.nan
            records.append(Record(f"{split}{number}", points, split, "hello world"[: number % 12]))
    about = Provenance.of("walks", 1, {}, COLUMNS, synthetic=True, sources="")
    return write(tmp_path_factory.mktemp("cache") / "c.h5", about, records)


def ordered(lengths, batch_size, rng):
    return list(order(np.arange(len(lengths)), lengths.__getitem__, batch_size, rng))


def equal(batch, other):
    return all(torch.equal(a.nan_to_num(-1e9), b.nan_to_num(-1e9)) for a, b in zip(batch, other, strict=True))


@settings(deadline=None)
@given(st.lists(st.integers(1, 50)), st.integers(1, 12), st.integers(0, 99))
def test_each_position_is_in_one_batch_and_batches_are_full(lengths, batch_size, seed):
    batches = ordered(np.array(lengths, int), batch_size, np.random.default_rng(seed))
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    assert sorted((len(batch) for batch in batches), reverse=True)[:-1] == [batch_size] * (len(batches) - 1)
    assert all(0 < len(batch) <= batch_size for batch in batches)


def lines_of_handwriting(count):
    """Lengths distributed like those of IAM-OnDB's lines: median 620, logarithms' deviation 0.37."""
    return np.random.default_rng(0).lognormal(np.log(620), 0.37, count).astype(int).clip(20, 1940)


@pytest.mark.parametrize("count", [10741, 3000])
def test_little_of_what_is_computed_is_padding(count):
    lengths = lines_of_handwriting(count)
    batches = ordered(lengths, 32, np.random.default_rng(1))
    computed = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert lengths.sum() > 0.95 * computed
    at_random = np.random.default_rng(1).permutation(count)[: 32 * (count // 32)].reshape(-1, 32)
    assert lengths[at_random].sum() < 0.6 * 32 * lengths[at_random].max(axis=1).sum()


def test_batches_come_in_no_order_of_length_or_position():
    lengths = lines_of_handwriting(10741)
    batches = ordered(lengths, 32, np.random.default_rng(1))
    for values in ([lengths[batch].mean() for batch in batches], [batch.mean() for batch in batches]):
        for before in (range(len(values) - 1), values[:-1]):  # a trend, or neighbours alike
            assert abs(np.corrcoef(before, values[1:])[0, 1]) < 0.15
    assert max(len(set(batch // 32)) for batch in batches) > 25


def test_an_order_takes_next_to_no_memory_beside_its_records():
    records = np.arange(400_000, dtype=np.int32)
    tracemalloc.start()
    taken = sum(len(batch) for batch in order(records, lambda chosen: chosen % 97, 32, np.random.default_rng(0)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken == 400_000
    assert peak < 400_000  # a byte each, of which the order of the batches takes a quarter


def test_equal_lengths_are_shuffled_too():
    batches = ordered(np.full(64, 5), 8, np.random.default_rng(0))
    assert sorted(map(sorted, batches)) != np.arange(64).reshape(8, 8).tolist()


def test_the_order_is_that_of_seed_and_epoch(data):
    def records(seed, epoch):
        return [batch.records.tolist() for batch in training_batches(data, 8, seed, epoch)]

    assert records(0, 0) == records(0, 0)
    others = [records(seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert len({str(sorted(map(sorted, batches))) for batches in others}) == 4
    for batches in others:
        assert sorted(record for batch in batches for record in batch) == data.split("train").tolist()


@pytest.mark.parametrize("skip", [0, 1, 5, 8, 9])
def test_an_epoch_goes_on_where_it_was_left(data, skip):
    whole = list(training_batches(data, 8, seed=3, epoch=2))
    rest = list(training_batches(data, 8, seed=3, epoch=2, skip=skip))
    assert len(whole) == 8
    assert len(rest) == max(0, 8 - skip)
    assert all(equal(batch, other) for batch, other in zip(rest, whole[skip:], strict=True))


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_ranks_share_the_batches_of_one(data, ranks):
    shares = [training_batches(data, 8, 3, 1, rank=rank, ranks=ranks) for rank in range(ranks)]
    for whole, *parts in zip(training_batches(data, 8, 3, 1), *shares, strict=True):
        sizes = [len(part.records) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert sorted(torch.cat([part.records for part in parts]).tolist()) == sorted(whole.records.tolist())
    assert len(whole.records) > 0


def test_a_share_may_be_empty(data):
    batch = collate(data, np.array([], int))
    assert [tuple(tensor.shape) for tensor in batch] == [(0, 0, 3), (0,), (0, 0), (0,), (0,)]


def test_a_batch_holds_the_records_and_zeros_beyond_them(data):
    records = np.array([7, 0, 63, 22])
    batch = collate(data, records)
    assert batch.points.shape == (4, data.lengths_of(records).max(), 3)
    assert batch.points.dtype == torch.float32
    assert batch.records.tolist() == records.tolist()
    assert batch.lengths.tolist() == data.lengths_of(records).tolist()
    for row, record in enumerate(records):
        length = batch.lengths[row]
        np.testing.assert_array_equal(batch.points[row, :length], data.offsets(record))
        assert not batch.points[row, length:].any()
        indices = batch.text[row, : batch.text_lengths[row]]
        assert "".join(data.alphabet[index] for index in indices) == data.texts[record]
        assert not batch.text[row, batch.text_lengths[row] :].any()
    assert {tensor.dtype for tensor in batch[1:]} == {torch.int64}
    assert batch.points.isnan().any()


def test_a_batch_of_one_and_of_no_text(data):
    batch = collate(data, np.array([0]))
    assert (batch.text.shape, batch.text_lengths.tolist()) == ((1, 0), [0])
    assert equal(batch.to(torch.device("cpu")), batch)


@settings(deadline=None)
@given(st.lists(st.text(max_size=8), max_size=5))
def test_texts_are_indices_into_the_alphabet(texts):
    alphabet = "".join(sorted(set("".join(texts))))
    ids, lengths = encode(texts, alphabet)
    assert ids.shape == (len(texts), max(map(len, texts), default=0))
    for text, row, length in zip(texts, ids, lengths, strict=True):
        assert "".join(alphabet[index] for index in row[:length]) == text
        assert not row[length:].any()


def test_evaluation_takes_each_record_once_from_short_to_long(data):
    records = data.split("train")[::2]
    batches = list(evaluation_batches(data, records, 8))
    assert [len(batch.records) for batch in batches] == [8, 8, 8, 6]
    assert sorted(torch.cat([batch.records for batch in batches]).tolist()) == records.tolist()
    lengths = torch.cat([batch.lengths for batch in batches])
    assert lengths.equal(lengths.sort().values)
    assert list(evaluation_batches(data, np.array([], int), 8)) == []


def test_evaluation_of_many_records_sorts_them_part_by_part(data, monkeypatch):
    monkeypatch.setattr(batches_module, "SORTED", 17)
    records = data.split("train")
    batches = list(evaluation_batches(data, records, 8))
    assert [len(batch.records) for batch in batches] == [8] * 7 + [4]
    for part, start in zip((batches[:2], batches[2:4], batches[6:]), (0, 16, 48), strict=True):
        assert sorted(torch.cat([batch.records for batch in part]).tolist()) == records[start : start + 16].tolist()
        lengths = torch.cat([batch.lengths for batch in part])
        assert lengths.equal(lengths.sort().values)
