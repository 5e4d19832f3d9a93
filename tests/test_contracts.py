"""Every built-in component by the contracts that outsiders' components are tested by."""

import math
from pathlib import Path

import pytest

import seqdens
from seqdens.builtin import BUILTIN
from seqdens.datasets.base import STROKE_END, Column, X, Y
from seqdens.testing import DatasetContract, EncoderContract, ExperimentContract, HeadContract

Z = Column("z", "real")
LIFT = Column("lift", "binary")


class TestMemoryless(EncoderContract):
    encoder = seqdens.encoder("memoryless")


class TestStackedLSTM(EncoderContract):
    encoder = seqdens.encoder("stacked-lstm", hidden_size=5, layers=2)
    impossible = (("hidden_size", 0), ("layers", -1), ("gate_clip", -1.0), ("gate_clip", math.nan))


class TestOneLayerOfOneCell(EncoderContract):
    encoder = seqdens.encoder("stacked-lstm", hidden_size=1, layers=1)


class TestThreeLayersWithoutClipping(EncoderContract):
    encoder = seqdens.encoder("stacked-lstm", hidden_size=3, layers=3, gate_clip=0.0)


class TestWindowLSTM(EncoderContract):
    encoder = seqdens.encoder("window-lstm", hidden_size=5, layers=2, window_components=3)
    impossible = (
        ("hidden_size", 0),
        ("layers", 0),
        ("window_components", 0),
        ("gate_clip", -1.0),
        ("window_clip", -1.0),
    )


class TestWindowLSTMOfOneLayer(EncoderContract):
    encoder = seqdens.encoder(
        "window-lstm", hidden_size=1, layers=1, window_components=1, gate_clip=0.0, window_clip=0.0
    )


class TestGMMBernoulli(HeadContract):
    head = seqdens.head("gmm-bernoulli", components=3)
    column_sets = ((X,), (X, Y, STROKE_END), (STROKE_END, X, LIFT))
    impossible = (("components", 0), ("output_clip", -1.0), ("sigma_floor", -0.1), ("sigma_floor", math.nan))
    tolerance = 1e-6


class TestGMMBernoulliOfThreeColumns(HeadContract):
    head = seqdens.head("gmm-bernoulli", components=2, sigma_floor=0.1)
    column_sets = ((X, LIFT, Y, Z),)


class TestHershey(DatasetContract):
    dataset = seqdens.dataset("hershey", lines=12, writers=4)
    impossible = (("lines", 2), ("writers", 2), ("characters", 5), ("seed", -1))


LINE = "<Session><StrokeSet><Stroke>{}</Stroke></StrokeSet></Session>"


class TestIamOnDB(DatasetContract):
    dataset = seqdens.dataset("iamondb", max_step=500.0)
    impossible = (("max_step", -1.0), ("max_step", math.nan))

    def make_files(self, root: Path) -> None:
        for form in ("a01-000", "a01-001", "b02-003"):
            lines = root / "lineStrokes" / form[:3] / form
            texts = root / "ascii" / form[:3] / form
            for folder in (lines, texts):
                folder.mkdir(parents=True)
            (texts / f"{form}u.txt").write_text("CSR:\n\nA MOVE to stop\nfrom nomnating\n")
            for line in (1, 2):
                points = "".join(f'<Point x="{n * line}" y="{n * n}"/>' for n in range(4))
                (lines / f"{form}u-0{line}.xml").write_text(LINE.format(points))


SIGNATURE = "3\n10 500 0 0 1550 710 400\n12 510 10 1 1550 710 410\n15 490 20 1 1550 710 390\n"


class TestSVC2004(DatasetContract):
    dataset = seqdens.dataset("svc", channels=("time", "pressure"))
    impossible = (("channels", ("time", "time")),)

    def make_files(self, root: Path) -> None:
        for name in ("U1S1", "U1S21", "U33S2", "U37S3"):
            (root / f"{name}.TXT").write_text(SIGNATURE)


class TestHandwriting(ExperimentContract):
    experiment = "handwriting"
    settings = (
        "dataset.lines=12",
        "dataset.writers=4",
        "encoder.hidden_size=8",
        "head.components=2",
        "training.batch_size=4",
        "sampling.count=2",
        "sampling.steps=20",
    )


class TestSynthesis(ExperimentContract):
    experiment = "synthesis"
    settings = TestHandwriting.settings


CONTRACTS = [each for each in vars().values() if isinstance(each, type) and each.__module__ == __name__]
TESTED = {(contract.kind, contract().name) for contract in CONTRACTS}


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in ("datasets", "encoders", "heads", "experiments") for name in BUILTIN[kind]],
)
def test_every_built_in_has_a_contract(kind: str, name: str) -> None:
    assert (kind, name) in TESTED
