"""Ink on a page: strokes, layout, SVG, PNG and GIF files."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from lxml import etree
from PIL import Image

from seqdens.datasets.base import SEQUENCE_END, STROKE_END, Column, X, Y
from seqdens.drawing import draw, strokes
from seqdens.errors import DataError, UsageError

SVG = "{http://www.w3.org/2000/svg}"
AWKWARD = 'a < b & "c" \x00 \ud800 $\\frac$'


def offsets_of(max_length=30, size=1000.0):
    """Offsets (T, 3) float32 with pen lifts."""
    lengths = st.integers(1, max_length)
    moves = lengths.flatmap(lambda n: arrays(np.float32, (n, 2), elements=st.floats(-size, size, width=32)))
    return moves.flatmap(
        lambda xy: arrays(np.float32, (len(xy), 1), elements=st.sampled_from([0, 1])).map(
            lambda ends: np.hstack([xy, ends])
        )
    )


def line(width, height, steps=20):
    """A zigzag of this size, one stroke."""
    rows = np.zeros((steps, 3))
    rows[:, 0] = width / steps
    rows[:, 1] = np.where(np.arange(steps) % 2 == 0, height, -height)
    return rows


def groups(path):
    """For each record of an SVG file its strokes (n, 2) in page pixels."""
    root = etree.parse(path).getroot()
    return [[points_of(stroke.get("d")) for stroke in group.iter(f"{SVG}path")] for group in root.iter(f"{SVG}g")]


def points_of(data):
    numbers = data.removesuffix(" h 0").replace("M", "").replace("L", "").split()
    return np.array(numbers, float).reshape(-1, 2)


def box(strokes_of_record):
    points = np.concatenate(strokes_of_record)
    return *points.min(axis=0), *points.max(axis=0)


def pixels(path):
    """(height, width, 3) of a PNG file."""
    with Image.open(path, formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_strokes_start_at_the_origin_and_break_after_a_lifted_pen():
    rows = np.array([[1, 2, 0], [3, -1, 1], [5, 5, 1], [1, 0, 0]])
    first, dot, last = strokes(rows)
    assert first.tolist() == [[0, 0], [1, 2], [4, 1]]
    assert dot.tolist() == [[9, 6]]
    assert last.tolist() == [[10, 6]]


def test_strokes_find_columns_by_name_and_role_and_stop_at_the_sequence_end():
    columns = (SEQUENCE_END, Y, Column("pen", "binary", role="stroke_end"), Column("force", "real"), X)
    rows = np.array([[0, 2, 1, np.nan, 1], [0, 1, 0, 7, 1], [1, 1, 0, 7, 1], [0, 9, 1, 7, 9]], float)
    assert [stroke.tolist() for stroke in strokes(rows, columns)] == [[[0, 0], [1, 2]], [[2, 3], [3, 4]]]


def test_without_a_stroke_end_column_there_is_one_stroke():
    assert [stroke.tolist() for stroke in strokes(np.ones((2, 2)), (X, Y))] == [[[0, 0], [1, 1], [2, 2]]]


@settings(deadline=None)
@given(offsets_of())
def test_strokes_hold_the_cumulative_sums(offsets):
    drawn = strokes(offsets)
    expected = np.vstack([[0, 0], offsets[:, :2].astype(np.float64).cumsum(axis=0)])
    np.testing.assert_array_equal(np.concatenate(drawn), expected)
    assert len(drawn) == offsets[:-1, 2].sum() + 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_ink_that_is_not_finite_is_refused(bad):
    with pytest.raises(DataError, match="point 2 of 3 is not finite"):
        strokes(np.array([[0, 0, 0], [1, bad, 0]]))


@pytest.mark.parametrize("shape", [(0, 3), (3,), (4, 2), (1, 4, 3)])
def test_a_record_of_another_shape_is_refused(shape):
    with pytest.raises(UsageError, match=r"must be numbers \(T, 3\)"):
        strokes(np.zeros(shape))


def test_columns_without_y_are_refused():
    with pytest.raises(UsageError, match=r"column 'y'.*x, stroke_end"):
        strokes(np.zeros((2, 2)), (X, STROKE_END))


@settings(deadline=None, max_examples=50)
@given(st.lists(offsets_of(), min_size=1, max_size=7))
def test_svg_shows_every_stroke_at_one_scale_without_overlap(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("ink") / "page.svg"
    draw(records, path)
    shown = groups(path)
    inks = [strokes(record) for record in records]
    assert [len(ink) for ink in shown] == [len(ink) for ink in inks]

    page, raw = np.array([box(ink) for ink in shown]), np.array([box(ink) for ink in inks])
    spans, raw_spans = page[:, 2:] - page[:, :2], raw[:, 2:] - raw[:, :2]
    scale = spans.max() / raw_spans.max() if raw_spans.max() > 0 else 1.0
    for ink, drawn, corner, raw_corner in zip(inks, shown, page[:, :2], raw[:, :2], strict=True):
        moved = (np.concatenate(ink) - raw_corner) * scale + corner
        np.testing.assert_allclose(np.concatenate(drawn), moved, atol=0.05)

    _, _, width, height = map(float, etree.parse(path).getroot().get("viewBox").split())
    assert (page > 0).all()
    assert (page[:, [0, 2]] < width).all()
    assert (page[:, [1, 3]] < height).all()
    for i, first in enumerate(page):
        for second in page[i + 1 :]:
            assert first[2] < second[0] or second[2] < first[0] or first[3] < second[1] or second[3] < first[1]


def test_lines_lie_one_below_the_other_left_aligned_as_close_as_their_heights_allow(tmp_path):
    draw([line(1000, 50), line(500, 200), line(800, 20)], tmp_path / "page.svg")
    boxes = np.array([box(ink) for ink in groups(tmp_path / "page.svg")])
    assert len(set(boxes[:, 0])) == 1
    np.testing.assert_allclose((boxes[:, 2] - boxes[:, 0]) / (boxes[0, 2] - boxes[0, 0]), [1, 0.5, 0.8], atol=1e-4)
    gaps = boxes[1:, 1] - boxes[:-1, 3]
    assert gaps.min() > 10
    np.testing.assert_allclose(gaps, gaps[0], atol=0.02)


@pytest.mark.parametrize(("aspect", "columns"), [(10, 1), (3.1, 1), (1.5, 3), (0.2, 6)])
def test_square_ink_lies_in_a_grid(tmp_path, aspect, columns):
    draw([line(100 * aspect, 100)] * 9, tmp_path / "page.svg")
    corners = [box(ink)[:2] for ink in groups(tmp_path / "page.svg")]
    assert len({x for x, _ in corners}) == columns
    assert len({y for _, y in corners}) == -(-9 // columns)


def test_svg_pen_is_round_and_a_dot_is_a_path_of_no_length(tmp_path):
    draw([np.array([[1, 1, 1], [5, 0, 1], [5, 0, 0]])], tmp_path / "page.svg")
    group = etree.parse(tmp_path / "page.svg").find(f"{SVG}g")
    assert group.get("stroke-linecap") == group.get("stroke-linejoin") == "round"
    assert 0.5 < float(group.get("stroke-width")) < 3
    assert [stroke.get("d")[-4:] for stroke in group][1:] == [" h 0", " h 0"]


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_any_title_and_captions_can_be_written(tmp_path, suffix):
    path = draw([line(900, 50)] * 2, tmp_path / f"page{suffix}", title=AWKWARD, captions=["<g>", "$"])
    if suffix == ".svg":
        root = etree.parse(path).getroot()
        assert root.find(f"{SVG}title").text == 'a < b & "c" $\\frac$'
        shown = [text.text for text in root.iter(f"{SVG}text")]
        assert shown == ['a < b & "c" $\\frac$', "<g>", "$"]
    else:
        assert (pixels(path)[:100].min(axis=2) < 128).any()


def test_captions_stand_between_the_records(tmp_path):
    draw([line(900, 50)] * 3, tmp_path / "page.svg", title="t" * 300, captions=["one", "two " * 100, "three"])
    root = etree.parse(tmp_path / "page.svg").getroot()
    texts = [(float(text.get("y")), float(text.get("font-size"))) for text in root.iter(f"{SVG}text")]
    assert len(texts) > 6
    for _, top, _, bottom in (box(ink) for ink in groups(tmp_path / "page.svg")):
        assert all(baseline < top or baseline - size > bottom for baseline, size in texts)


def test_png_has_twice_the_pixels_of_the_svg_and_ink_in_the_same_places(tmp_path):
    records = [line(1000, 66), np.array([[100, 20, 1], [100, 30, 1]])]
    draw(records, tmp_path / "page.svg")
    draw(records, tmp_path / "page.png")
    root = etree.parse(tmp_path / "page.svg").getroot()
    dark = pixels(tmp_path / "page.png").max(axis=2) < 128
    assert dark.shape == (2 * int(root.get("height")), 2 * int(root.get("width")))
    rows, columns = np.nonzero(dark)
    shown = np.array([box(ink) for ink in groups(tmp_path / "page.svg")])
    assert np.abs(columns.min() / 2 - shown[:, 0].min()) < 2
    assert np.abs(columns.max() / 2 - shown[:, 2].max()) < 2
    assert np.abs(rows.max() / 2 - shown[:, 3].max()) < 2
    for stroke in groups(tmp_path / "page.svg")[1]:
        for x, y in stroke:
            assert dark[int(2 * y) - 1 : int(2 * y) + 2, int(2 * x) - 1 : int(2 * x) + 2].any()
    assert not dark[0].any()


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_a_picture_too_large_to_be_made_is_refused_before_it_is_tried(tmp_path, suffix):
    with pytest.raises(UsageError, match=r"too large.*write an \.svg"):
        draw([line(900, 300)] * 100, tmp_path / f"page{suffix}")
    assert not list(tmp_path.iterdir())


def test_the_same_records_make_the_same_bytes(tmp_path):
    for suffix in (".svg", ".png", ".gif"):
        first, second = (draw([line(900, 50)], tmp_path / f"{name}{suffix}") for name in "ab")
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("records", "name", "captions", "message"),
    [
        ([], "page.svg", None, "no records"),
        ([line(9, 1)], "page.bmp", None, r"'\.bmp', but must be one of \.svg, \.png, \.gif"),
        ([line(9, 1)], "page", None, r"'', but must be one of \.svg, \.png, \.gif"),
        ([line(9, 1)], "page.svg", ["a", "b"], "2 captions for 1 records"),
        (line(9, 1), "page.svg", None, "must be numbers"),
    ],
)
def test_wrong_use_is_said_in_a_sentence(tmp_path, records, name, captions, message):
    with pytest.raises(UsageError, match=message):
        draw(records, tmp_path / name, captions=captions)
    assert not list(tmp_path.iterdir())


def test_the_folder_is_made(tmp_path):
    assert draw([line(9, 1)], str(tmp_path / "new" / "folder" / "PAGE.SVG")).is_file()


@pytest.mark.parametrize("suffix", [".svg", ".png", ".gif"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, suffix):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(DataError, match=r"cannot write .*page"):
        draw([line(9, 1)], tmp_path / "file" / f"page{suffix}")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_failure_while_moving_keeps_what_was_there(tmp_path, monkeypatch):
    path = draw([line(9, 1)], tmp_path / "page.svg")
    before = path.read_bytes()

    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(DataError, match=r"cannot write .*page\.svg.*Permission denied"):
        draw([line(1, 9)], path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["page.svg"]
