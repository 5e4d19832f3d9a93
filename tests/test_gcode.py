"""G-code, run by a small interpreter: the pen draws the strokes, stays on the paper, and obeys no text."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from seqdens.errors import UsageError
from seqdens.pages.files import save_sheets
from seqdens.pages.gcode import Plotter
from seqdens.pages.layout import Line, Sheet

SERVO = Plotter(lift="servo", press=600, dwell=0.1, feed=900)
HIGH = Plotter(up=3, down=-1, plunge=200)


def run(program, plotter):
    """The strokes (n, 2) drawn with the pen down, from the paper's bottom left; where the pen is at the end."""
    x = y = 0.0
    down, ended, strokes = True, False, []
    for row in program.splitlines():
        words = re.sub(r"\([^()]*\)", "", row).split()
        assert not ended
        assert "(" not in "".join(words)
        command, values = (words[0], {word[0]: float(word[1:]) for word in words[1:]}) if words else ("", {})
        if command in ("G0", "G1") and "X" in values:
            assert down == (command == "G1")
            x, y = values["X"], values["Y"]
            if down:
                strokes[-1].append((x, y))
                assert values.get("F", plotter.feed) == plotter.feed
        elif command in ("G0", "G1") or command in ("M3", "M5"):
            if command[0] == "G":
                assert values.pop("F", plotter.plunge) == plotter.plunge
                assert values in ({"Z": plotter.up}, {"Z": plotter.down})
            else:
                assert values == ({"S": plotter.press} if command == "M3" else {})
            down = command == "M3" or values.get("Z") == plotter.down
            if down:
                strokes.append([(x, y)])
        elif command == "G4":
            assert values == {"P": plotter.dwell}
        elif command == "M2":
            ended = True
        else:
            assert row in ("G21", "G90", "G94") or not words
    assert ended
    assert not down
    return [np.array(stroke) for stroke in strokes], (x, y)


def saved(sheet, folder, plotter):
    (path,) = save_sheets([sheet], folder / "page.gcode", plotter=plotter)
    return path.read_bytes().decode("ascii")


def distances(points, line):
    """From each point (n, 2) to the nearest place on a line through points (m, 2)."""
    starts, steps = line[:-1], np.diff(line, axis=0)
    squares = np.maximum((steps**2).sum(axis=1), 1e-12)
    share = (((points[:, None] - starts) * steps).sum(axis=2) / squares).clip(0, 1)
    return np.linalg.norm(points[:, None] - starts - share[..., None] * steps, axis=2).min(axis=1)


def strokes():
    points = st.integers(0, 4000).map(lambda value: value / 100)
    return st.integers(2, 9).flatmap(lambda n: arrays(np.float64, (n, 2), elements=points))


@pytest.mark.parametrize("plotter", [Plotter(), SERVO, HIGH], ids=["z", "servo", "high"])
@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(strokes(), min_size=1, max_size=4), min_size=1, max_size=4))
def test_the_pen_draws_every_stroke_in_order_and_stays_on_the_paper(tmp_path_factory, plotter, lines):
    sheet = Sheet(40.0, 40.0, [Line(f"line {number}", ink) for number, ink in enumerate(lines)])
    drawn, end = run(saved(sheet, tmp_path_factory.mktemp("ink"), plotter), plotter)
    wanted = [stroke for ink in lines for stroke in ink]
    assert len(drawn) == len(wanted)
    for trace, stroke in zip(drawn, wanted, strict=True):
        np.testing.assert_allclose([trace[0], trace[-1]], [(x, 40 - y) for x, y in stroke[[0, -1]]], atol=0.011)
        assert distances(stroke * (1, -1) + (0, 40), trace).max() <= 0.01 + 1e-9  # binary numbers hold no 0.01
        assert (trace >= 0).all()
        assert (trace <= 40).all()
        lengths = np.linalg.norm(np.diff(stroke, axis=0), axis=1)
        assert distances(trace, stroke * (1, -1) + (0, 40)).max() <= 0.5 * lengths.max() + 0.01
    assert end == (0, 0)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_text_is_a_command(tmp_path_factory, text):
    text = text.encode("utf-8", "ignore").decode()
    sheet = Sheet(40.0, 40.0, [Line(text, [np.array([[1.0, 2], [3, 4]])])])
    program = saved(sheet, tmp_path_factory.mktemp("ink"), Plotter())
    drawn, _ = run(program, Plotter())
    np.testing.assert_allclose(drawn[0][[0, -1]], [[1, 38], [3, 36]])
    assert program.count("\n") == saved(
        sheet._replace(lines=[Line("", sheet.lines[0].strokes)]), tmp_path_factory.mktemp("ink"), Plotter()
    ).count("\n")
    assert re.fullmatch(r"[A-Za-z0-9 ():.\n-]+", program)


@pytest.mark.parametrize("text", [")\nM3 S9000", "MSG,hello", "! ~ ?", "%"])
def test_awkward_texts_become_comments(tmp_path, text):
    program = saved(Sheet(40.0, 40.0, [Line(text, [np.array([[1.0, 2], [3, 4]])])]), tmp_path, SERVO)
    (comment,) = [row for row in program.splitlines() if row.startswith("(line")]
    assert re.fullmatch(r"\(line 1: [A-Za-z0-9 ]*\)", comment)
    assert program.count("M3") - comment.count("M3") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lift": "hand"}, "'hand' does not exist: it must be one of z, servo"),
        ({"up": 0}, "up must be higher than down"),
        ({"down": float("nan")}, "up must be higher than down"),
        ({"feed": 0}, "feed of 0 must be from 1"),
        ({"plunge": float("inf")}, "plunge of inf"),
        ({"press": -1}, "press of -1"),
        ({"dwell": 61}, "dwell of 61 must be from 0 to 60"),
    ],
)
def test_a_plotter_that_could_not_move_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Plotter(**options)
