"""What the tests share: packages to install, small data sets and models, a full disk."""

import platform
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from seqdens import native

SITE = Path(__file__).parent / "fixtures" / "site"


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Call with a level to have no faster one used."""

    def held(limit: str) -> None:
        monkeypatch.setenv(native.VARIABLE, limit)
        native.forget()

    yield held
    monkeypatch.undo()
    native.forget()


@pytest.fixture(params=native.LEVELS)
def level(request: pytest.FixtureRequest, hold: Callable[[str], None]) -> str:
    """Hold the compiled library to each level that has products of the test's `dtype`, float32 if it has none."""
    hold(request.param)
    skip_if_not_here(request)
    return str(request.param)


@pytest.fixture(params=["reference", *native.LEVELS])
def implementation(request: pytest.FixtureRequest, hold: Callable[[str], None]) -> str:
    """Each implementation of the recurrence, the compiled one held to each level as by `level`."""
    if request.param == "reference":
        return "reference"
    hold(request.param)
    skip_if_not_here(request)
    return "cpu"


@pytest.fixture
def library() -> None:
    """Skip the test if seqdens was installed without its compiled library."""
    try:
        native.library()
    except native.Unavailable as error:
        pytest.skip(str(error))


def skip_if_not_here(request: pytest.FixtureRequest) -> None:
    """Skip the test if this processor cannot run the level that is its parameter."""
    try:
        found = native.level(products_of(request.node))
    except native.Unavailable as error:
        pytest.skip(str(error))
    if found != request.param:
        pytest.skip(f"{request.param} is not compiled, or this processor cannot run it")


def products_of(item: Any) -> str:
    """Return what the test's `dtype` is called in `native.PRODUCTS`, float32 if it has none."""
    name = str(item.callspec.params.get("dtype", "torch.float32")).removeprefix("torch.")
    return {"bfloat16": "bf16"}.get(name, name)


def pytest_collection_modifyitems(config: pytest.Config, items: list[Any]) -> None:
    """Leave out levels without products of the test's `dtype`, and those of other architectures."""
    arm = platform.machine() in ("aarch64", "arm64")

    def fits(item: Any) -> bool:
        chosen = getattr(item, "callspec", None) and item.callspec.params
        level = chosen and (chosen.get("level") or chosen.get("implementation"))
        if level not in native.LEVELS:
            return True
        return level in native.PRODUCTS[products_of(item)] and level.startswith("neon") == arm

    config.hook.pytest_deselected(items=[item for item in items if not fits(item)])
    items[:] = filter(fits, items)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say in one line which levels of the compiled library can run here, and so were tested."""
    try:
        library = native.library()
    except native.Unavailable as error:
        terminalreporter.write_line(f"compiled library: {error}")
        return
    here = [name for name in native.LEVELS if library.can_run(name.encode())]
    others = [name for name in native.LEVELS if name not in here]
    terminalreporter.write_line(f"compiled library: levels {', '.join(here)}; not here: {', '.join(others)}")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of fixture packages, importable; SEQDENS_PLUGINS says which of them are in use."""
    monkeypatch.syspath_prepend(SITE)
    return SITE


@pytest.fixture
def use(site: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Call with the names of fixture packages to have them alone installed."""
    return lambda *names: monkeypatch.setenv("SEQDENS_PLUGINS", ",".join(names))


@pytest.fixture
def _heed_interrupts() -> Iterator[None]:
    """SIGINT as in a terminal, whatever the tests were started by."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Any]:
    """Call for a prepared data set of random walks: columns, texts, and how many records are in which split."""
    import numpy as np

    from seqdens.cache import Provenance, write
    from seqdens.datasets.base import STROKE_END, Record, X, Y

    def made(
        columns: Any = (X, Y, STROKE_END),
        longest: int = 12,
        seed: int = 0,
        texts: Sequence[str] = ("a b",),
        **splits: int,
    ) -> Any:
        rng = np.random.default_rng(seed)
        records = []
        for split, count in (splits or {"train": 10, "valid": 4}).items():
            for number in range(count):
                steps = rng.integers(1, longest, endpoint=True)
                values = {"real": rng.normal(0, 20, (steps, 1)).round() + rng.normal(5, 20, (steps, len(columns)))}
                values |= {"binary": rng.random((steps, len(columns))) < 0.3}
                points = np.stack(
                    [
                        values[column.kind][:, i] if column.kind in values else rng.integers(0, column.size, steps)
                        for i, column in enumerate(columns)
                    ],
                    axis=1,
                )
                points[:, [column.role == "sequence_end" for column in columns]] = 0
                points[-1, [column.role == "sequence_end" for column in columns]] = 1
                records.append(
                    Record(f"{split}-{number}", points.astype(float), split, texts[number % len(texts)], group="g")
                )
        about = Provenance.of("made", 1, {}, columns, synthetic=True, sources=f"{seed} {splits}")
        return write(tmp_path / f"{seed}-{len(list(tmp_path.iterdir()))}.h5", about, records)

    return made


@pytest.fixture
def small() -> Callable[..., Any]:
    """Call with a data set for an untrained model of eight cells a layer and two components."""
    import torch

    import seqdens

    def model(data: Any, seed: int = 0, encoder: str = "stacked-lstm", **options: Any) -> Any:
        torch.manual_seed(seed)
        chosen = seqdens.encoder(encoder, **({"hidden_size": 8, "layers": 1} | options))
        return seqdens.SequenceModel.for_data(data, chosen, seqdens.head("gmm-bernoulli", components=2))

    return model


@pytest.fixture
def model(make: Callable[..., Any], small: Callable[..., Any]) -> Any:
    """An untrained model of ink, with few weights."""
    return small(make())


@pytest.fixture
def writer(make: Callable[..., Any], small: Callable[..., Any]) -> Any:
    """An untrained model that writes texts of " abcd"; its window passes a character every fifth step or so."""
    import torch

    model = small(make(texts=("a b", "bad cab", "d")), encoder="window-lstm", layers=2, window_components=2)
    with torch.no_grad():
        model.encoder.window.bias[-2:] = -1.6
    return model


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """Call with a number of bytes: within the block no file grows over so many, what pytest says included."""
    resource = pytest.importorskip("resource")

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture
def fill_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call to have the disk full half-way through the next file."""

    def full(path: Path, content: bytes) -> None:
        path.write_text("half a file")
        raise OSError(28, "No space left on device")

    return lambda: monkeypatch.setattr(Path, "write_bytes", full)
