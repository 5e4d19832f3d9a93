"""Sheets in files of each kind, all of them or none, and read again."""

import os
import re
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from lxml import etree
from PIL import Image

from seqdens.errors import DataError, UsageError
from seqdens.pages import files
from seqdens.pages.files import SUFFIXES, load_sheets, save_sheets
from seqdens.pages.layout import Line, Sheet
from seqdens.pages.pen import Pen

SVG = "{http://www.w3.org/2000/svg}"
DATA = (".json", ".npz")
PENS = {"plain": Pen(width=0.5, colour="navy"), "variable": Pen(width=0.5, colour="navy", variable=True)}
AWKWARD = 'a < b & "c" \x00 )'


def wave(left, baseline, points=30):
    x = left + np.arange(points)
    return np.stack([x, baseline + 4 * np.sin(x)], axis=1)


DOT = np.array([[50.0, 30.0]])
PAGE = Sheet(60.0, 40.0, [Line("one", [wave(5, 10), DOT]), Line(AWKWARD, [wave(20, 25, 2)])])
OTHER = Sheet(50.0, 90.0, [Line("two", [wave(3, 80)])])


def sheets_of_all_kinds():
    stroke = st.integers(1, 6).flatmap(lambda n: arrays(np.float64, (n, 2), elements=st.floats(0, 50)))
    line = st.builds(Line, st.text('aé\n𝔄"<', max_size=5), st.lists(stroke, min_size=1, max_size=4))
    page = st.builds(Sheet, st.floats(50, 60), st.floats(50, 60), st.lists(line, min_size=1, max_size=4))
    return st.lists(page, min_size=1, max_size=4)


def flat(sheets):
    """Everything in sheets as one list."""
    return [
        [
            (sheet.width, sheet.height),
            [(line.text, [stroke.tolist() for stroke in line.strokes]) for line in sheet.lines],
        ]
        for sheet in sheets
    ]


def numbers(data):
    return np.array(re.findall(r"-?\d+\.\d+", data), float).reshape(-1, 2)


def pdf_pages(path):
    """Of each page of a PDF its box and its operators; checks that the table of objects is right."""
    content = path.read_bytes()
    table = int(re.search(rb"startxref\n(\d+)\n%%EOF\n$", content)[1])
    count = int(re.match(rb"xref\n0 (\d+)\n", content[table:])[1])
    entries = re.findall(rb"(\d{10}) \d{5} [nf] \n", content[table:])
    assert len(entries) == count
    objects = {}
    for number, start in enumerate(map(int, entries[1:]), start=1):
        assert content[start:].startswith(b"%d 0 obj\n" % number)
        objects[number] = content[start : content.index(b"\nendobj\n", start)]
    pages = re.findall(rb"(\d+) 0 R", re.search(rb"/Kids\[(.*?)\]", objects[2])[1])
    assert len(pages) == int(re.search(rb"/Count (\d+)", objects[2])[1])
    for page in map(int, pages):
        box = [float(value) for value in re.search(rb"/MediaBox\[(.*?)\]", objects[page])[1].split()]
        stream = objects[int(re.search(rb"/Contents (\d+)", objects[page])[1])]
        data = stream[stream.index(b"stream\n") + 7 : -len(b"\nendstream")]
        assert len(data) == int(re.search(rb"/Length (\d+)", stream)[1])
        yield box, zlib.decompress(data).decode()


@pytest.mark.parametrize("pen", PENS)
def test_svg_is_in_mm_with_a_group_for_each_line(tmp_path, pen):
    (path,) = save_sheets([PAGE], tmp_path / "page.svg", pen=PENS[pen])
    root = etree.parse(path).getroot()
    assert (root.get("width"), root.get("height"), root.get("viewBox")) == ("60mm", "40mm", "0 0 60 40")
    style = root.find(f"{SVG}g")
    lines = style.findall(f"{SVG}g")
    assert [line.get("aria-label") for line in lines] == ["one", 'a < b & "c" )']
    assert [len(line) for line in lines] == [2, 1]
    for line, group in zip(PAGE.lines, lines, strict=True):
        for stroke, shown in zip(line.strokes, group, strict=True):
            drawn = numbers(shown.get("d"))
            if pen == "plain":
                np.testing.assert_allclose(drawn[::3][: len(stroke)], stroke, atol=6e-4)
            np.testing.assert_allclose(drawn.min(axis=0), stroke.min(axis=0), atol=0.6)
            np.testing.assert_allclose(drawn.max(axis=0), stroke.max(axis=0), atol=0.6)
    if pen == "plain":
        assert (style.get("stroke"), style.get("stroke-width"), style.get("fill")) == ("#000080", "0.5", "none")
    else:
        assert (style.get("stroke"), style.get("fill")) == (None, "#000080")


@pytest.mark.parametrize("pen", PENS)
def test_pdf_has_a_page_of_paths_for_each_sheet(tmp_path, pen):
    (path,) = save_sheets([PAGE, OTHER, PAGE], tmp_path / "page.pdf", pen=PENS[pen])
    save_sheets([PAGE], tmp_path / "page.svg", pen=PENS[pen])
    pages = list(pdf_pages(path))
    np.testing.assert_allclose(
        np.array([box[2:] for box, _ in pages]) / 72 * 25.4, [(60, 40), (50, 90), (60, 40)], atol=1e-3
    )
    content = pages[0][1]
    assert content.count("\nS" if pen == "plain" else "\nf") == 3
    assert "0 0 0.502 RG 0 0 0.502 rg 0.5 w 1 J 1 j" in content
    assert re.match(r"2\.834646 0 0 -2\.834646 0 113\.386 cm\n", content)  # mm, y down
    drawn = numbers(content[content.index(" j\n") :])
    shown = [numbers(shape.get("d")) for shape in etree.parse(tmp_path / "page.svg").iter(f"{SVG}path")]
    np.testing.assert_array_equal(drawn, np.concatenate(shown))
    assert pages[0] == pages[2]


@pytest.mark.parametrize("pen", PENS)
def test_png_has_ink_where_the_strokes_are(tmp_path, pen):
    (path,) = save_sheets([PAGE], tmp_path / "page.png", pen=PENS[pen])
    with Image.open(path, formats=["PNG"]) as image:
        assert [round(dots) for dots in image.info["dpi"]] == [300, 300]
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[:2] == (472, 708)
    ink = pixels[:, :, 0] < 100
    for line in PAGE.lines:
        for x, y in np.concatenate(line.strokes) * 300 / 25.4:
            assert ink[int(y), int(x)]
    rows, columns = np.nonzero(ink)
    points = np.concatenate([stroke for line in PAGE.lines for stroke in line.strokes]) * 300 / 25.4
    np.testing.assert_allclose([columns.min(), columns.max()], [points[:, 0].min(), points[:, 0].max()], atol=6)
    np.testing.assert_allclose([rows.min(), rows.max()], [points[:, 1].min(), points[:, 1].max()], atol=12)
    assert pixels[ink & (pixels[:, :, 0] == 0)].tolist()[0] == [0, 0, 128]


@pytest.mark.parametrize("colour", ["#1b2a4a", "red", "yellow"])
def test_gif_writes_stroke_by_stroke(tmp_path, colour):
    edge = Sheet(60.0, 40.0, [Line("edge", [np.array([[0.0, 0], [60, 0], [60, 40]])])])
    page = PAGE._replace(lines=[*PAGE.lines, *edge.lines])
    (path,) = save_sheets([page], tmp_path / "page.gif", pen=Pen(colour=colour))
    with Image.open(path, formats=["GIF"]) as image:
        assert image.size == (240, 160)
        assert image.n_frames == 1 + 12 + 1  # 36 points, three a frame
        marked = []
        for number in range(image.n_frames):
            image.seek(number)
            marked.append(np.asarray(image.convert("RGB")).min(axis=2) < 200)
    assert marked[5][:, :140].any()
    assert not marked[5][90:].any()
    assert marked[-1][90:, 80:90].any()


@pytest.mark.parametrize("suffix", DATA)
@settings(deadline=None, max_examples=40)
@given(sheets=sheets_of_all_kinds())
def test_data_is_read_as_it_was_saved(tmp_path_factory, suffix, sheets):
    (path,) = save_sheets(sheets, tmp_path_factory.mktemp("ink") / f"page{suffix}")
    assert flat(load_sheets(path)) == flat(sheets)


@pytest.mark.parametrize("suffix", DATA)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_damaged_data_is_an_error_or_sheets(tmp_path_factory, suffix, data):
    (path,) = save_sheets([PAGE, OTHER], tmp_path_factory.mktemp("ink") / f"page{suffix}")
    content = bytearray(path.read_bytes())
    start = data.draw(st.integers(0, len(content) - 1))
    content[start : start + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=10))
    path.write_bytes(content)
    with suppress(DataError):
        sheets = load_sheets(path)
        save_sheets(sheets, path.with_suffix(".svg"))


@pytest.mark.parametrize(
    "changed",
    [
        {"points": np.array(["a"])},
        {"strokes": np.array([0, 3])},
        {"strokes": np.array([0, 40, 31, 33])},
        {"strokes": np.array([0.0, 30, 31, 33])},
        {"lines": np.array([[0, 2, 3]])},
        {"pages": np.array([], int)},
        {"sizes": np.zeros((3, 2))},
        {"sizes": np.zeros((1, 3))},
        {"texts": np.array(["one"])},
        {"points": np.full((33, 2), np.nan)},
        {"points": np.ones((33, 3))},
        {"texts": np.array([1, 2])},
    ],
    ids=str,
)
def test_npz_that_does_not_fit_together_is_refused(tmp_path, changed):
    (path,) = save_sheets([PAGE], tmp_path / "page.npz")
    with np.load(path) as archive:
        parts = dict(archive) | changed
    np.savez(path, **parts)
    with pytest.raises(DataError, match=r"cannot load .*page\.npz"):
        load_sheets(path)


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"pages": [{"width": "a"}]}', b'{"pages": []}'])
def test_json_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "page.json").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot load .*page\.json"):
        load_sheets(tmp_path / "page.json")


def test_a_missing_file_and_one_that_is_no_data_are_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot load .*page\.json.*No such file"):
        load_sheets(tmp_path / "page.json")
    with pytest.raises(UsageError, match=r"'\.svg', but must be one of \.json, \.npz"):
        load_sheets(tmp_path / "page.svg")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_sheets_make_the_same_bytes(tmp_path, suffix):
    first, second = (save_sheets([PAGE], tmp_path / f"{name}{suffix}")[0].read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_several_sheets_are_numbered_files_or_one(tmp_path, suffix):
    names = [path.name for path in save_sheets([PAGE] * 2, str(tmp_path / "new" / f"page{suffix}"))]
    whole = suffix in (".pdf", ".json", ".npz")
    assert names == ([f"page{suffix}"] if whole else [f"page-1{suffix}", f"page-2{suffix}"])
    assert sorted(os.listdir(tmp_path / "new")) == names


def test_numbers_sort(tmp_path):
    names = [path.name for path in save_sheets([PAGE] * 10, tmp_path / "page.SVG")]
    assert names == sorted(names)
    assert names[-1] == "page-10.SVG"


def test_all_files_or_none(tmp_path, monkeypatch):
    before = save_sheets([OTHER], tmp_path / "page-1.svg")[0].read_bytes()
    write = files._PICTURES[".svg"]

    def fail_on_the_second(sheet, path, pen):
        if "-2" in path.name:
            raise OSError(28, "No space left on device")
        write(sheet, path, pen)

    monkeypatch.setitem(files._PICTURES, ".svg", fail_on_the_second)
    with pytest.raises(DataError, match=r"cannot write .*No space left on device"):
        save_sheets([PAGE, PAGE], tmp_path / "page.svg")
    assert os.listdir(tmp_path) == ["page-1.svg"]
    assert (tmp_path / "page-1.svg").read_bytes() == before


@pytest.mark.parametrize(
    ("sheets", "name", "error", "message"),
    [
        ([PAGE], "page.bmp", UsageError, r"'\.bmp', but must be one of \.svg, .*\.gcode, \.nc"),
        ([PAGE], "page", UsageError, "suffix is ''"),
        ([], "page.svg", UsageError, "no lines"),
        ([PAGE, Sheet(10, 10, [])], "page.svg", DataError, "page 2 has no lines"),
        ([Sheet(10, 10, [Line("a", [])])], "page.npz", DataError, "page 1 has no lines, or one without strokes"),
        ([Sheet(10, 10, [Line("a", [np.full((2, 2), np.nan)])])], "page.nc", DataError, "line 1 of page 1 goes to nan"),
        ([Sheet(10, 10, [Line("a", [np.full((2, 2), 11.0)])])], "page.nc", DataError, "goes to 11, 11, off its paper"),
        ([Sheet(10, 10, [Line("a", [np.ones((2, 3))])])], "page.pdf", DataError, r"a stroke \(2, 3\)"),
        ([Sheet(10, 10, [Line("\ud800", [np.ones((2, 2))])])], "page.json", DataError, "not Unicode"),
        ([PAGE._replace(width=2000, height=2000)], "page.png", UsageError, r"too large a \.png: write an \.svg or a"),
        ([PAGE._replace(width=2000, height=2000)], "page.gif", UsageError, r"too large a \.gif"),
    ],
)
def test_what_cannot_be_saved(tmp_path, sheets, name, error, message):
    with pytest.raises(error, match=message):
        save_sheets(sheets, tmp_path / name)
    assert not list(tmp_path.iterdir())
