"""Styles: from data sets, files and drawings; saved, named, fitted to a model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seqdens
from seqdens.datasets.base import Column
from seqdens.drawing import strokes
from seqdens.errors import DataError, UsageError
from seqdens.export import save_records
from seqdens.styles import Style, add_style, load_style, remove_style, style_names

SMALL = {"lines": 6, "writers": 3}
POINTS = np.array([[30, 0, 0], [0.1, 40, 1], [25, -40, 0], [7, 40, 1]], np.float32)
LINE = '<svg><path d="M0 0C0 10 10 10 10 0S20 -10 20 0M5 -5h10"/></svg>'


@pytest.fixture(autouse=True)
def _own_styles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQDENS_STYLES", str(tmp_path / "styles"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def of_hershey(small: Callable[..., Any]) -> Any:
    """An untrained model of the embedded data set."""
    return small(seqdens.load("hershey", **SMALL))


def test_a_record_of_a_data_set_is_a_style_in_its_units(of_hershey: Any) -> None:
    data = seqdens.load("hershey", **SMALL)
    style = load_style(f"hershey:{data.ids[3]}", **SMALL)
    np.testing.assert_array_equal(style.points, data.offsets(3))
    assert (style.text, style.units, style.source) == (data.texts[3], "hershey", f"hershey:{data.ids[3]}")
    assert style.fit(of_hershey) is style


def test_a_style_is_saved_whole(tmp_path: Path) -> None:
    style = Style(POINTS, " é a\n b ", "somewhere", "hershey")
    loaded = load_style(style.save(tmp_path / "a.style"))
    np.testing.assert_array_equal(loaded.points, POINTS)
    assert loaded.points.dtype == np.float32
    assert (loaded.text, loaded.source, loaded.units) == ("é a b", "somewhere", "hershey")
    assert load_style("a.style", "other").text == "other"


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".json"])
def test_files_of_sample_are_styles_with_a_text(suffix: str, of_hershey: Any) -> None:
    save_records([POINTS, POINTS[:2]], f"line{suffix}")
    style = load_style(f"line{suffix}", "ab")
    np.testing.assert_array_equal(style.points, POINTS)
    assert (style.units, style.source) == ("", f"line{suffix}")
    kept = load_style(f"line{suffix}", "ab", units="hershey", like=of_hershey)
    np.testing.assert_array_equal(kept.points, POINTS)
    with pytest.raises(DataError, match=r"text of 0 characters.*say what it reads"):
        load_style(f"line{suffix}")


def test_drawings_are_fitted_to_a_model(of_hershey: Any) -> None:
    Path("line.svg").write_text(LINE)
    Path("line.inkml").write_text(
        '<ink><annotation type="truth">it</annotation><trace>0 0, 0 7, 5 9, 9 0</trace><trace>1 5, 9 5</trace></ink>'
    )
    for style in (load_style("line.svg", "it"), load_style("line.inkml")):
        assert (style.text, style.units, style.points[:, 2].sum()) == ("it", "", 2)
        fitted = style.fit(of_hershey)
        assert fitted.units == "hershey"
        assert fitted.fit(of_hershey) is fitted
        assert len(of_hershey.sample(1, steps=3, prime=fitted.points)[0]) == 3
        ink, original = (np.concatenate(strokes(each.points)) for each in (fitted, style))
        shape = np.ptp(ink, axis=0) / np.ptp(original, axis=0)
        assert shape[0] == pytest.approx(shape[1], rel=0.1)
    assert load_style("line.inkml", "at").text == "at"


def test_a_style_of_another_model_is_brought_into_its_units(
    small: Callable[..., Any], make: Callable[..., Any]
) -> None:
    style = load_style("hershey:w000-l00000", **SMALL)
    other = small(make())
    other.alphabet = ""
    fitted = style.fit(other)
    assert fitted.units == "made"
    steps = [np.hypot(*each.points[:, :2].T).mean() for each in (style, fitted)]
    assert steps[1] / steps[0] == pytest.approx(
        np.hypot(*other.std) / np.hypot(*seqdens.load("hershey", **SMALL).std), 0.3
    )


def test_a_style_that_the_model_cannot_read_is_refused(of_hershey: Any, small: Callable[..., Any], make: Any) -> None:
    with pytest.raises(UsageError, match="has 'é' 'ü', which the model has not learnt; it knows"):
        Style(POINTS, "üé", "mine").fit(of_hershey)
    with pytest.raises(UsageError, match=r"a style has columns x \(real\), y"):
        Style(POINTS, "a").fit(small(make((Column("speed", "real"),))))
    with pytest.raises(DataError, match="cannot be fitted to the model: the pen does not move"):
        Style(np.array([[0, 0, 1], [1, 1, 1]]), "a", "dots").fit(of_hershey)


@pytest.mark.parametrize(
    ("points", "text", "message"),
    [
        (POINTS[:, :2], "a", "numbers .T, 3."),
        (POINTS[:1], "a", "T above 1"),
        (POINTS * np.nan, "a", "not finite, or a stroke_end"),
        (POINTS * [1e30, 1, 1], "a", "not finite"),
        (POINTS * [1, 1, 2], "a", "stroke_end other than 0 and 1"),
        (POINTS, " \n", "text of 0 characters"),
        (POINTS, "a" * 201, "text of 201 characters, but must have the 1 to 200"),
    ],
)
def test_what_is_no_style_is_an_error(points: np.ndarray, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Style(points, text)


@pytest.mark.parametrize(
    ("spec", "settings", "message"),
    [
        ("line", {}, "there is no style 'line' in .*styles"),
        ("line.txt", {}, "'line.txt' is no style: give .*hershey.*svg"),
        ("hershey:w000-l0000", SMALL, "hershey has no record 'w000-l0000'; of its 6 give one such as w000-"),
        ("line.svg", {"text": "a", "lines": 3}, "is no DATASET:ID, so lines cannot be given"),
        ("line.svg", {"text": "a", "units": "hersey"}, "units are 'hersey', which is no data set"),
    ],
)
def test_what_cannot_be_meant_is_an_error(spec: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_style(spec, **settings)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": "other"}, "'other' version 1, but must be"),
        ({"version": 2}, "version 2, but must be"),
        ({"offsets": [[1, 2]]}, "of length 3"),
        ({"offsets": []}, "T above 1"),
        ({"offsets": [[1, 2, 0.5], [1, 2, 1]]}, "stroke_end other"),
        ({"text": 3}, "Expected `str`"),
        ({"text": ""}, "text of 0"),
    ],
)
def test_a_malformed_style_file_is_an_error(changed: dict[str, Any], message: str) -> None:
    content = json.loads(Style(POINTS, "ab").save("a.style").read_text())
    Path("b.style").write_text(json.dumps(content | changed))
    with pytest.raises(DataError, match=message):
        load_style("b.style")


def test_a_style_file_that_is_none_is_an_error() -> None:
    for content in (b"", b"[" * 100_000, b"\xff\xfe", b"\x80\x04N."):
        Path("b.style").write_bytes(content)
        with pytest.raises(DataError, match=r"cannot load 'b\.style'"):
            load_style("b.style")
    with pytest.raises(DataError, match="No such file"):
        load_style("none.style")


def test_styles_have_names() -> None:
    assert style_names() == []
    add_style("mine", Style(POINTS, "ab"))
    add_style("Ännas_2-", Style(POINTS, "cd"))
    assert style_names() == ["mine", "Ännas_2-"]
    assert load_style("Ännas_2-").text == "cd"
    with pytest.raises(UsageError, match="there is a style 'mine' already"):
        add_style("mine", Style(POINTS, "ef"))
    assert load_style("mine").text == "ab"
    add_style("mine", Style(POINTS, "ef"), replace=True)
    assert load_style("mine").text == "ef"
    remove_style("mine")
    with pytest.raises(UsageError, match="there is no style 'mine'"):
        remove_style("mine")
    for name in ("", "../mine", "a.style", "-a", "a b", "a" * 101):
        with pytest.raises(UsageError, match="is no name of a style"):
            add_style(name, Style(POINTS, "ab"))
