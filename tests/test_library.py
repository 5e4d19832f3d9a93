"""The package as a library: its public names. `test_docs.py` runs what the README shows."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import seqdens


@pytest.mark.parametrize("name", seqdens.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(seqdens, name) is not None
    assert name in dir(seqdens)


def test_every_home_is_public_and_typed() -> None:
    assert {*seqdens._HOME, "__version__"} == set(seqdens.__all__)
    assert len({*seqdens.__all__}) == len(seqdens.__all__)


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
