"""Lines of ndjson: each once however the file is cut, and drawings or reasons of what is in them."""

import io
import json
import tracemalloc
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqdens_quickdraw import ndjson

CONTENT = st.lists(st.sampled_from([b"a", b"bc", b"def", b"\n", b"\r\n"]), max_size=30).map(b"".join)
NUMBER = st.integers(-1000, 1000) | st.floats(-1000, 1000, allow_nan=False).map(lambda value: round(value, 3))


@st.composite
def drawings(draw: st.DrawFn) -> list[list[list[float]]]:
    """Strokes of lists x, y and, in all or none, t."""
    lists = draw(st.integers(2, 3))
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    return [[draw(st.lists(NUMBER, min_size=n, max_size=n)) for _ in range(lists)] for n in sizes]


def line_of(drawing: object = (((0, 3), (4, 5)),), **others: object) -> bytes:
    known = {"word": "line", "countrycode": "AT", "recognized": True, "key_id": "7", "drawing": drawing}
    return json.dumps(known | others).encode() + b"\n"


@given(CONTENT, st.lists(st.integers(0, 60)))
def test_every_line_is_read_once_however_the_file_is_cut(content: bytes, cuts: list[int]) -> None:
    inner = sorted({cut for cut in cuts if 0 < cut < len(content)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ndjson, "LONGEST", 4)
        parts = [list(ndjson.lines(io.BytesIO(content), *ends)) for ends in pairwise([0, *inner, len(content)])]
    whole = io.BytesIO(content).readlines()
    offsets = [0, *accumulate(map(len, whole))]
    expected = [(offset, line[:4]) for offset, line in zip(offsets, whole, strict=False)]
    assert [line for part in parts for line in part] == expected


@given(CONTENT, st.integers(0, 10))
def test_the_first_lines_end_where_they_end(content: bytes, count: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ndjson, "LONGEST", 4)
        end = ndjson.end_of_lines(io.BytesIO(content), count)
    assert content[:end] == b"".join(io.BytesIO(content).readlines()[:count])


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "endless"
    with path.open("wb") as file:
        file.truncate(1 << 26)
    tracemalloc.start()
    try:
        with path.open("rb") as file:
            found = [(offset, len(line)) for offset, line in ndjson.lines(file, 0, 1 << 26)]
            file.seek(0)
            assert ndjson.end_of_lines(file, 1) == 1 << 26
        assert tracemalloc.get_traced_memory()[1] < 8 * ndjson.LONGEST
    finally:
        tracemalloc.stop()
    assert found == [(0, ndjson.LONGEST)]


@given(drawings())
def test_numbers_of_a_drawing_are_read_as_they_are(drawing: list[list[list[float]]]) -> None:
    found, strokes = ndjson.parse(line_of(drawing, key_id=2**63))
    assert (found.word, found.key_id, found.recognized) == ("line", 2**63, True)
    assert [stroke.T.tolist() for stroke in strokes] == drawing


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"not json\n", "malformed"),
        (b"\xff\n", "malformed"),
        (b"[]\n", "Expected `object`"),
        (line_of()[:-9], "truncated"),
        (line_of(word=3), "`\\$.word`"),
        (b'{"word": "line", "recognized": true, "drawing": []}', "`key_id`"),
        (line_of([[[1, "2"], [3, 4]]]), r"got `str` - at `\$.drawing\[0\]\[0\]\[1\]`"),
        (line_of([[[None, 2], [3, 4]]]), "got `null`"),
        (line_of([]), "it has no strokes"),
        (line_of([[[], []]]), "equally long lists"),
        (line_of([[[1, 2], [3]]]), "equally long lists"),
        (line_of([[[1, 2]]]), "equally long lists"),
        (line_of([[[1], [2], [3]], [[1], [2]]]), "only some"),
        (line_of([[[1, 2**31], [3, 4]]]), "beyond 32 bits"),
        (line_of([[[1, 10**400], [3, 4]]]), "out of range|too large"),
        (line_of().replace(b"3", b"1e999"), "out of range"),
        (line_of().replace(b"3", b"NaN"), "malformed"),
        (line_of(others=[]).replace(b"[]", b"[" * 100_000), "recursion"),
        (line_of(word="a" * (1 << 20)), "1048576 bytes or more"),
    ],
)
def test_a_line_that_is_no_drawing_is_refused_with_the_reason(line: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        ndjson.parse(line)
    assert "\n" not in str(caught.value)


@given(st.integers(0, 200), st.binary(min_size=1, max_size=3))
def test_a_damaged_line_is_a_drawing_or_refused(place: int, damage: bytes) -> None:
    line = line_of()
    try:
        _, strokes = ndjson.parse(line[:place] + damage + line[place + len(damage) :])
    except ValueError:
        return
    assert strokes
    assert all(np.isfinite(stroke).all() and stroke.shape[1] == 2 for stroke in strokes)
