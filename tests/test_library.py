"""The package as a library."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import seqdens


def test_it_reads_as_documented(tmp_path: Path) -> None:
    data = seqdens.load("hershey", lines=6, writers=3, cache=tmp_path)
    model = seqdens.SequenceModel.for_data(
        data,
        seqdens.encoder("stacked-lstm", hidden_size=8, layers=1),
        seqdens.head("gmm-bernoulli", components=2),
    )
    history = seqdens.Trainer(epochs=2, optimiser="adam", learning_rate=1e-2).fit(model, data)
    assert history[1]["train_nats_per_point"] < history[0]["train_nats_per_point"]
    records = model.sample(3, steps=20, bias=0.5, seed=1)
    assert [record.shape for record in records] == [(20, 3)] * 3
    seqdens.draw(records, tmp_path / "lines.svg")
    assert (tmp_path / "lines.svg").read_text().count("<path") >= 3


@pytest.mark.parametrize("name", seqdens.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(seqdens, name) is not None
    assert name in dir(seqdens)


def test_every_home_is_public_and_typed() -> None:
    assert {*seqdens._HOME, "__version__"} == set(seqdens.__all__)
    assert sorted(seqdens.__all__) == seqdens.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'seqdens' has no attribute 'nonsense'"):
        seqdens.nonsense  # noqa: B018


def test_importing_it_imports_nothing_heavy() -> None:
    script = (
        "import sys, seqdens\n"
        "dir(seqdens), seqdens.UsageError, seqdens.encoder\n"
        "assert not {'torch', 'numpy', 'h5py', 'matplotlib', 'rich'} & set(sys.modules)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
