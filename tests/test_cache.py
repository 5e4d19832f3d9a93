"""The prepared form: exact, equal for equal input, memory-mapped, and refused where it is not whole."""

import mmap
import multiprocessing
import os
import pickle
import signal
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import seqdens.cache
from seqdens.cache import Prepared, Provenance, write
from seqdens.datasets.base import STROKE_END, Column, Record, Skipped, X, Y
from seqdens.errors import DataError, SeqdensError, UsageError

COLUMNS = (X, STROKE_END, Y)
KIND = Column("kind", "category", size=1000)


def provenance(columns=COLUMNS, **changes):
    return Provenance.of("drawn", 1, {"b": 2, "a": 1}, columns, synthetic=True, sources="s")._replace(**changes)


def record(points, name="r", **about):
    return Record(name, np.asarray(points), **about)


def integers(seed, steps, split="train", **about):
    rng = np.random.default_rng(seed)
    values = rng.integers(-300, 300, (steps, 3))
    values[:, 1] = rng.integers(0, 2, steps)
    return record(values, f"r{seed}", split=split, **about)


ITEMS = [
    integers(0, 5, text="be", group="w1", label="genuine"),
    Skipped("bad.txt", "is empty"),
    integers(1, 1, "valid", text="à bc"),
    integers(2, 9, "test"),
    integers(3, 7),
]
RECORDS = [item for item in ITEMS if isinstance(item, Record)]


@pytest.fixture
def cache(tmp_path):
    return write(tmp_path / "cache.h5", provenance(), ITEMS)


def test_what_was_written_is_read(cache):
    assert len(cache) == 4
    for index, written in enumerate(RECORDS):
        for position in (index, index - 4):
            offsets = cache.offsets(position)
            assert offsets.dtype == np.float32
            np.testing.assert_array_equal(offsets, written.points)
    assert list(cache.ids) == ["r0", "r1", "r2", "r3"]
    assert list(cache.texts) == ["be", "à bc", "", ""]
    assert cache.texts[-4:2] == ["be", "à bc"]
    assert cache.texts.empty().tolist() == [2, 3]
    assert list(cache.groups) == ["w1", "", "", ""]
    assert list(cache.labels) == ["genuine", "", "", ""]
    assert (cache.skipped, cache.skipped_count) == ([Skipped("bad.txt", "is empty")], 1)
    assert cache.alphabet == " bceà"
    assert cache.columns == COLUMNS
    assert cache.provenance == provenance()
    assert {name: cache.split(name).tolist() for name in ("train", "valid", "test")} == {
        "train": [0, 3],
        "valid": [1],
        "test": [2],
    }
    assert cache.split("all").tolist() == [0, 1, 2, 3]
    assert cache.lengths_of(np.array([3, 0])).tolist() == [7, 5]
    assert repr(cache) == "<Prepared drawn: 2 train, 1 valid, 1 test; 22 offsets>"


def test_a_record_or_split_that_is_not_there_is_refused(cache):
    for sequence in (cache.offsets, cache.texts.__getitem__):
        for index in (4, -5):
            with pytest.raises(IndexError):
                sequence(index)
    with pytest.raises(UsageError, match="no split 'validation'; did you mean 'valid'"):
        cache.split("validation")


def test_offsets_are_read_into_a_given_array(cache):
    out = np.full((6, 3), 7, np.float32)
    cache.offsets(0, out=out[:5])
    np.testing.assert_array_equal(out[:5], RECORDS[0].points)
    np.testing.assert_array_equal(out[5], 7)


def test_the_file_is_laid_out_as_documented(cache):
    numbers = {"reals": "int16", "states": "int8", "starts": "int64", "splits": "int8", "alphabet": "uint8"}
    texts = ("ids", "texts", "groups", "labels", "skipped/paths", "skipped/reasons")
    wanted = numbers | {f"{name}/bytes": "uint8" for name in texts} | {f"{name}/starts": "int64" for name in texts}
    datasets = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            datasets[name] = item.dtype.name
            assert item.chunks is None
            assert (item.id.get_offset() or 0) % 8 == 0

    with h5py.File(cache.path) as file:
        file.visititems(visit)
        about = dict(file.attrs)
    assert datasets == wanted
    about = {name: value.decode() if isinstance(value, bytes) else value for name, value in about.items()}
    assert (about.pop("format"), about.pop("mean").shape, about.pop("std").shape) == ("seqdens-cache", (2,), (2,))
    assert about == provenance()._asdict()
    assert about["options"] == '{"a": 1, "b": 2}'


def test_equal_input_gives_equal_bytes(tmp_path):
    first, second = (write(tmp_path / name, provenance(), iter(ITEMS)).path.read_bytes() for name in ("a", "b"))
    assert first == second
    assert first != write(tmp_path / "c", provenance(), ITEMS[:-1]).path.read_bytes()


def test_no_group_has_a_time_stamp(cache):
    with h5py.File(cache.path) as file:
        for group in (file, file["ids"], file["skipped"], file["skipped/paths"]):
            assert h5py.h5o.get_info(group.id).mtime == h5py.h5g.get_objinfo(group.id).mtime == 0


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        (np.array([-(2**15), 2**15 - 1], np.int64), np.int16),
        (np.array([2**15], np.int64), np.int32),
        (np.array([-(2**31), 2**31 - 1], np.int64), np.int32),
        (np.array([2**31], np.int64), np.float32),
        (np.array([1.0, 2.0]), np.float32),
        (np.array([1 / 3, -1e30, np.nan]), np.float32),
    ],
)
def test_real_columns_are_stored_exactly_in_the_narrowest_type(tmp_path, values, stored):
    data = write(tmp_path / "c.h5", provenance([X]), [record(np.zeros((1, 1), int)), record(values[:, None])])
    with h5py.File(data.path) as file:
        assert file["reals"].dtype == stored
        np.testing.assert_array_equal(file["reals"][1:, 0], values.astype(stored))
    np.testing.assert_array_equal(data.offsets(1)[:, 0], values.astype(np.float32))


def test_one_record_of_fractions_among_integers_makes_all_of_them_floats(tmp_path):
    data = write(tmp_path / "c.h5", provenance([X]), [record([[70000]]), record([[0.5]]), record([[3]])])
    assert [data.offsets(i).item() for i in range(3)] == [70000, 0.5, 3]


@pytest.mark.parametrize(("top", "stored"), [(127, np.int8), (128, np.int32), (999, np.int32)])
def test_categories_are_stored_exactly(tmp_path, top, stored):
    data = write(tmp_path / "c.h5", provenance([KIND]), [record([[0], [top]])])
    with h5py.File(data.path) as file:
        assert file["states"].dtype == stored
        assert file["reals"].shape == (2, 0)
    assert data.offsets(0).tolist() == [[0], [top]]
    assert data.mean.shape == data.std.shape == (0,)


rows = st.integers(1, 30).flatmap(
    lambda n: arrays(np.float64, (n, 2), elements=st.just(np.nan) | st.floats(-1e6, 1e6, allow_subnormal=False))
)


@settings(deadline=None, max_examples=50)
@given(st.lists(rows, min_size=1, max_size=5))
def test_statistics_are_those_of_all_training_offsets(tmp_path_factory, records):
    everything = np.concatenate(records)
    everything[np.abs(everything) < 2.0**-150] = 0  # as they are stored, in 32 bits
    outlier = record(np.full((3, 2), 1e9), split="valid")
    items = [outlier, *map(record, records), record(np.full((3, 2), -1e9), split="test")]
    data = write(tmp_path_factory.mktemp("cache") / "c.h5", provenance([X, Y]), items)
    assert data.mean.dtype == data.std.dtype == np.float64
    for mean, std, values in zip(data.mean, data.std, everything.T, strict=True):
        known = values[~np.isnan(values)]
        expected = known.mean() if len(known) else 0
        np.testing.assert_allclose(mean, expected, rtol=1e-12, atol=1e-9)
        varies = len(known) and known.std() > 1e-12 * abs(expected)
        np.testing.assert_allclose(std, known.std() if varies else 1, rtol=1e-9, atol=1e-12 * abs(expected))


def test_statistics_survive_a_mean_far_from_zero(tmp_path):
    points = 1e8 + np.random.default_rng(0).normal(0, 1, (5000, 1))
    data = write(tmp_path / "c.h5", provenance([X]), [record(part) for part in np.split(points, 50)])
    np.testing.assert_allclose(data.mean, points.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(data.std, points.std(axis=0), rtol=1e-6)


def test_a_constant_column_is_not_scaled_by_rounding_errors(tmp_path):
    data = write(tmp_path / "c.h5", provenance([X]), [record(np.full((steps, 1), 0.1)) for steps in range(1, 30)])
    np.testing.assert_allclose(data.mean, 0.1)
    assert data.std.item() == 1


words = st.text(max_size=20)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(words, words, words, words), min_size=1, max_size=4), st.lists(st.tuples(words, words)))
def test_any_text_is_read_back(tmp_path_factory, texts, skipped):
    items = [Record(name, np.zeros((1, 3)), "train", *rest) for name, *rest in texts]
    items += [Skipped(*pair) for pair in skipped]
    data = write(tmp_path_factory.mktemp("cache") / "c.h5", provenance(), items)
    assert list(zip(data.ids, data.texts, data.groups, data.labels, strict=True)) == texts
    assert [(skip.path, skip.reason) for skip in data.skipped] == skipped
    assert data.alphabet == "".join(sorted({character for _, text, *_ in texts for character in text}))


def test_what_is_no_unicode_is_written_as_escapes(tmp_path):
    item = record(np.zeros((1, 3)), "caf\udce9", text="a\ud800")
    data = write(tmp_path / "c.h5", provenance(), [item, Skipped("\udcff.txt", "bad")])
    assert (data.ids[0], data.texts[0], data.skipped[0].path) == ("caf\\udce9", "a\\ud800", "\\udcff.txt")
    assert set(data.texts[0]) == set(data.alphabet)


def test_opening_maps_the_file_and_reads_next_to_nothing(tmp_path):
    big = record(np.ones((1_000_000, 3), np.int64))
    path = write(tmp_path / "c.h5", provenance(), [big]).path
    Prepared(path)
    tracemalloc.start()
    data = Prepared(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 5_000_000
    assert peak < 300_000
    (file,) = data._files
    for array in (file.starts, file.splits, file.reals, file.states):
        base = array
        while isinstance(base, np.ndarray):
            base = base.base
        assert isinstance(base.obj, mmap.mmap)
        assert array.flags.aligned
        assert not array.flags.writeable


def test_a_pickle_is_small_and_opens_in_a_spawned_process(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = Prepared(cache.path.name)
    monkeypatch.chdir(tmp_path.parent)
    assert len(pickle.dumps(relative)) < 1000
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        np.testing.assert_array_equal(pool.submit(Prepared.offsets, relative, 2).result(), RECORDS[2].points)


def test_an_opened_cache_outlives_its_replacement(cache):
    write(cache.path, provenance(), [integers(9, 400)])
    np.testing.assert_array_equal(cache.offsets(3), RECORDS[3].points)
    assert len(Prepared(cache.path)) == 1


def test_differences_name_the_fields():
    now = provenance(reader_version=2, sources="t")
    assert provenance().differences(now) == ["reader_version 1 is now 2", "the files' names or sizes have changed"]
    assert provenance().differences(provenance()) == []


def test_options_are_compared_whatever_their_order():
    options = [{"a": 1, "b": None}, {"b": None, "a": 1}]
    first, second = (Provenance.of("d", 1, given, COLUMNS, synthetic=False, sources="") for given in options)
    assert first == second


@pytest.mark.parametrize(
    ("items", "limit", "message"),
    [
        ([], 1.0, r"drawn has no records\."),
        ([Skipped("first", "why")], 1.0, r"drawn has no records\."),
        (ITEMS, 0.19, r"1 of 5 items of drawn could not be read, more than the 19.0% .* bad.txt: is empty"),
        ([Skipped("first", "why"), Skipped("b", "")], 0.5, r"2 of 2 items .* the first: first: why"),
    ],
)
def test_a_refusal_keeps_what_was_there(cache, items, limit, message):
    before = cache.path.read_bytes()
    with pytest.raises(DataError, match=message):
        write(cache.path, provenance(), items, max_skipped=limit)
    assert cache.path.read_bytes() == before
    assert os.listdir(cache.path.parent) == ["cache.h5"]


def test_the_share_that_may_be_skipped_is_inclusive(tmp_path):
    assert len(write(tmp_path / "c.h5", provenance(), ITEMS, max_skipped=0.2)) == 4


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SeqdensError])
def test_items_that_fail_keep_what_was_there(cache, error):
    def items():
        yield integers(0, 3)
        raise error

    before = cache.path.read_bytes()
    with pytest.raises(error):
        write(cache.path, provenance(), items())
    assert cache.path.read_bytes() == before
    assert os.listdir(cache.path.parent) == ["cache.h5"]


def test_a_missing_cache_is_said_to_be_missing(tmp_path):
    with pytest.raises(DataError, match=r"no prepared data set at .*none.h5; make it with `seqdens prepare`"):
        Prepared(tmp_path / "none.h5")


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.9, 0.9999])
def test_a_cut_cache_is_refused(cache, share):
    content = cache.path.read_bytes()
    cache.path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"cache.h5 is no complete cache .*; prepare it again"):
        Prepared(cache.path)


@pytest.mark.parametrize("content", [b"", b"garbage", bytes(range(256)) * 99], ids=["empty", "text", "bytes"])
def test_garbage_is_refused(tmp_path, content):
    path = tmp_path / "c.h5"
    path.write_bytes(content)
    with pytest.raises(DataError, match="no complete cache"):
        Prepared(path)
    with pytest.raises(DataError, match="no complete cache"):
        Prepared(tmp_path)


def test_a_text_that_ends_before_it_begins_is_refused(cache):
    """All could be texts that begin at the front, each as long as the file."""
    with h5py.File(cache.path, "r+", libver=("v110", "latest")) as file:
        file["ids/starts"][1::2] = 0
    with pytest.raises(DataError, match=r"text \d of a cache ends before it begins; prepare it again\."):
        list(Prepared(cache.path).ids)


def numbers_of(path):
    """Which bytes of the file are numbers or texts of the data."""
    numbers = np.zeros(path.stat().st_size, bool)

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and item.nbytes:
            numbers[item.id.get_offset() :][: item.nbytes] = True

    with h5py.File(path) as file:
        file.visititems(visit)
    return numbers


@pytest.mark.parametrize("damages", [1, 20])
def test_damage_around_the_numbers_is_refused_or_without_effect(cache, damages):
    content = np.frombuffer(cache.path.read_bytes(), np.uint8)
    around = np.flatnonzero(~numbers_of(cache.path))
    rng, refused = np.random.default_rng(0), 0
    for _ in range(100):
        damaged = content.copy()
        damaged[rng.choice(around, damages)] = rng.integers(0, 256, damages)
        cache.path.write_bytes(damaged.tobytes())
        try:
            data = Prepared(cache.path)
        except DataError:
            refused += 1
        else:
            assert (data.provenance, list(data.texts), data.skipped) == (provenance(), list(cache.texts), cache.skipped)
            np.testing.assert_array_equal(data.offsets(2), RECORDS[2].points)
    assert refused > 70


def other_file(file):
    file.attrs["format"] = np.bytes_("something-else")


def other_schema(file):
    file.attrs["schema_version"] = 99


def other_scaling(name, value, file):
    file.attrs[name] = np.array([1.0, value])


def deeper(name, file):
    values = file[name][()][..., np.newaxis]
    del file[name]
    file[name] = values


def no_schema(file):
    del file.attrs["schema_version"]


def no_texts(file):
    del file["texts"]


def a_group_for_an_array(file):
    del file["starts"]
    file.create_group("starts")


def fewer_splits(file):
    del file["splits"]
    file["splits"] = np.zeros(3, np.int8)


def fewer_rows(file):
    del file["reals"]
    file["reals"] = np.zeros((3, 2), np.int16)


def broken_columns(file):
    file.attrs["columns"] = np.bytes_("[")


def compressed(file):
    values = file["reals"][...]
    del file["reals"]
    file.create_dataset("reals", data=values, compression="gzip")


def a_text_of_any_length(file):
    file.attrs["columns"] = "[]"


def many_attributes(file):
    for number in range(100):
        file.attrs[f"a{number}"] = number


def a_link(file):
    del file["reals"]
    file["reals"] = h5py.SoftLink("/states")


def a_file_from_outside(file):
    del file["reals"]
    file["reals"] = h5py.ExternalLink(__file__, "/reals")


def numbers_from_outside(file):
    del file["reals"]
    file.create_dataset("reals", (22, 2), np.int16, external=[(__file__, 0, 88)])


def a_view_of_outside(file):
    del file["reals"]
    layout = h5py.VirtualLayout((22, 2), np.int16)
    layout[:] = h5py.VirtualSource(__file__, "reals", (22, 2))
    file.create_virtual_dataset("reals", layout)


def many_names(file):
    for number in range(100):
        file.create_group(f"a{number}")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_file, "format"),
        (other_schema, "schema version 99, this seqdens reads 2"),
        (no_schema, "schema_version"),
        (no_texts, "texts"),
        (a_group_for_an_array, "'starts' is no array"),
        *(
            (partial(deeper, name), rf"{name} of shape \(.*1\)")
            for name in ("ids/starts", "ids/bytes", "splits", "reals")
        ),
        (partial(other_scaling, "mean", np.nan), "mean is not finite"),
        (partial(other_scaling, "mean", -np.inf), "mean is not finite"),
        *((partial(other_scaling, "std", value), "std not above 0") for value in (0, -1, np.nan, np.inf)),
        (fewer_splits, "4 records with"),
        (fewer_rows, "for 22 offsets"),
        (broken_columns, "JSON"),
        (compressed, "a message 0xb, which no cache has"),
        (a_text_of_any_length, "attribute is not of the kind|a type of numbers that no cache has"),
        (many_attributes, "stored as those of a cache are not"),
        (a_link, "a link to elsewhere"),
        (a_file_from_outside, "a link to elsewhere"),
        (numbers_from_outside, "a message 0x7, which no cache has"),
        (a_view_of_outside, "not contiguous"),
        (many_names, "index is not of the kind"),
    ],
)
def test_another_hdf5_file_is_refused_with_the_reason(cache, change, reason):
    with h5py.File(cache.path, "r+", libver=("v110", "latest")) as file:
        change(file)
    with pytest.raises(DataError, match=rf"no complete cache .*\(.*({reason}).*\); prepare it again"):
        Prepared(cache.path)


def test_a_full_disk_is_one_error_wherever_it_strikes(tmp_path, full_disk):
    def make():
        texts = ["", "much text " * 2000]  # which is written last
        return write(tmp_path / "c.h5", provenance([X]), [record(np.ones((9, 1)), text=text) for text in texts])

    size = make().path.stat().st_size
    before = (tmp_path / "c.h5").read_bytes()
    for most in (*range(997, size, 997), size - 1):
        said = r"^cannot write .*c\.h5': File too large; choose another place\.$"
        with pytest.raises(DataError, match=said), full_disk(most):
            make()
        assert [path.name for path in tmp_path.iterdir()] == ["c.h5"]
    with full_disk(size):
        make()
    assert (tmp_path / "c.h5").read_bytes() == before


@pytest.mark.usefixtures("_heed_interrupts")
def test_an_interrupt_while_the_file_is_closed_is_one(tmp_path, monkeypatch):
    class Interrupted(seqdens.cache._Output):
        def truncate(self, size=None):
            signal.raise_signal(signal.SIGINT)
            return super().truncate(size)

    monkeypatch.setattr(seqdens.cache, "_Output", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "c.h5", provenance(), ITEMS)
    assert not list(tmp_path.iterdir())
