"""This package alone is in use, with a cache of its own."""

import os
from collections.abc import Iterator

import pytest

os.environ["SEQDENS_PLUGINS"] = "seqdens-timeseries"
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQDENS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
