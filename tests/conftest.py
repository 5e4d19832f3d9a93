"""For every test: no installed plugins, and one thread, so that tests agree on every machine."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ["SEQDENS_PLUGINS"] = ""
os.environ.setdefault("OMP_NUM_THREADS", "1")

SITE = Path(__file__).parent / "fixtures" / "site"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of fixture packages, importable; SEQDENS_PLUGINS says which of them are in use."""
    monkeypatch.syspath_prepend(SITE)
    return SITE


@pytest.fixture
def use(site: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Call with the names of fixture packages to have them alone installed."""
    return lambda *names: monkeypatch.setenv("SEQDENS_PLUGINS", ",".join(names))
