"""The experiment: its presets, and a small run on digits made here."""

from pathlib import Path

from seqdens.testing import ExperimentContract

SHAPES = {"0": "5 0,0 5,5 9,9 5,5 0", "1": "0 3,4 0,4 5,4 9", "7": "0 0,9 0,5 5,3 9"}


class TestDigits(ExperimentContract):
    experiment = "digits"
    settings = ("encoder.hidden_size=8", "head.components=2", "sampling.count=2", "sampling.steps=10")

    def make_files(self, root: Path) -> None:
        for name, writers in (("few.tra", 20), ("few.tes", 2)):
            (root / name).write_text("".join(digits_of(writer) for writer in range(writers)))


def digits_of(writer: int) -> str:
    """A UNIPEN file of one writer."""
    lines = [".HIERARCHY DIGIT", f".WRITER_ID {writer}"]
    for component, (digit, points) in enumerate(SHAPES.items()):
        scaled = [[(10 + writer) * int(value) for value in point.split()] for point in points.split(",")]
        strokes = (f" {x} {-y}" for x, y in scaled)
        lines += [f'.SEGMENT DIGIT {component} ? "{digit}"', ".PEN_DOWN", *strokes, ".PEN_UP", ".DT 100", ""]
    return "\n".join(lines)
