"""Gathering records for a cache: the same bytes whatever is held in memory, which does not grow with the records."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqdens import spool
from seqdens.cache import Provenance, write
from seqdens.datasets.base import Column, Record, Skipped, X
from seqdens.spool import narrowest

COLUMNS = (X, Column("kind", "category", size=1000))
ABOUT = Provenance.of("drawn", 1, {}, COLUMNS, synthetic=True, sources="")

values = st.integers(-9, 9) | st.integers(-(2**33), 2**33) | st.floats(-1e9, 1e9)
rows = st.lists(st.tuples(values, st.integers(0, 200)), min_size=1, max_size=9)
items = st.builds(
    Record, st.text(max_size=9), rows.map(np.array), st.sampled_from(["train", "valid"]), st.text(max_size=30)
) | st.builds(Skipped, st.text(max_size=9), st.text(max_size=9))


@settings(deadline=None, max_examples=40)
@given(st.lists(items, max_size=12), st.integers(1, 20))
def test_equal_bytes_whatever_is_held(tmp_path_factory, drawn, block):
    folder = tmp_path_factory.mktemp("cache")
    drawn = [Record("first", np.zeros((1, 2), int)), *drawn]
    whole = write(folder / "whole.h5", ABOUT, drawn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "BLOCK", block)
        assert write(folder / "blocks.h5", ABOUT, drawn).path.read_bytes() == whole.path.read_bytes()


def test_memory_does_not_grow_with_the_records(tmp_path):
    def peak(count):
        drawn = (Record(f"record {n}", np.full((5, 2), n % 7), "train", "some text", "writer") for n in range(count))
        tracemalloc.start()
        try:
            write(tmp_path / "c.h5", ABOUT, drawn)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)  # what is imported and kept
    assert peak(24_000) - peak(6_000) < 18_000


@pytest.mark.parametrize(
    ("drawn", "types", "stored"),
    [
        ([], ["int8", "int32"], "int8"),
        ([127, -128], ["int8", "int32"], "int8"),
        ([128], ["int8", "int32"], "int32"),
        ([-(2**15) - 1], ["int16", "int32"], "int32"),
        ([2**31], ["int16", "int32"], "float32"),
        ([0.5], [], "float32"),
    ],
)
def test_the_narrowest_type_that_holds_all_is_taken(drawn, types, stored):
    found = narrowest(np.array(drawn), [np.dtype(name).type for name in types])
    assert (found.dtype, found.tolist()) == (stored, drawn)
