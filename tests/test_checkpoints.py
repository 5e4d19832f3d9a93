"""The trainer's state: written whole or not at all, read without running anything."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from seqdens.errors import DataError, UsageError
from seqdens.training import checkpoints
from seqdens.training.checkpoints import Progress

IDENTITY = {"seed": 1, "scaling": [[0.1], [2.0]]}


@pytest.fixture
def fresh(make: Callable[..., Any], small: Callable[..., Any]) -> Callable[..., Any]:
    """Call for an untrained model and its optimiser."""
    data = make()

    def pair(**options: Any) -> tuple[Any, Any]:
        model = small(data, **options)
        return model, torch.optim.Adam(model.parameters(), lr=0.1)

    return pair


@pytest.fixture
def saved(fresh: Callable[..., Any], tmp_path: Path) -> tuple[Path, Any, Any, Progress]:
    """A state after one step, and what is in it."""
    model, optimiser = fresh(seed=3)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    progress = Progress(epoch=2, batch=1, step=9, best=-1.5, best_epoch=1, history=[{"epoch": 1.0}])
    path = tmp_path / "run" / "trainer.pt"
    checkpoints.save(path, model, optimiser, progress, IDENTITY)
    return path, model, optimiser, progress


def test_everything_reads_back(saved: Any, fresh: Callable[..., Any]) -> None:
    path, model, optimiser, progress = saved
    after_saving = torch.rand(3)
    checkpoints.save(path, model, optimiser, progress, IDENTITY)
    expected = torch.rand(3)
    other, its_optimiser = fresh(seed=4)
    assert checkpoints.load(path, other, its_optimiser, IDENTITY) == progress
    assert torch.equal(torch.rand(3), expected)
    assert not torch.equal(after_saving, expected)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        for name, value in optimiser.state[mine].items():
            assert torch.equal(value, its_optimiser.state[theirs][name])


@pytest.mark.parametrize(
    ("identity", "what"),
    [
        ({"seed": 2, "scaling": [[0.1], [2.0]]}, r"seed 1, now 2"),
        (
            {"seed": 2, "scaling": [[0.1], [2.1]]},
            r"seed 1, now 2; scaling \[\[0\.1\], \[2\.0\]\], now \[\[0\.1\], \[2\.1\]\]",
        ),
        (IDENTITY | {"optimiser": "adam"}, "optimiser None, now adam"),
    ],
)
def test_another_run_s_state_is_refused_untouched(
    saved: Any, fresh: Callable[..., Any], identity: dict[str, Any], what: str
) -> None:
    model, optimiser = fresh(seed=4)
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(UsageError, match=rf"saved by a run with another setting \({what}\); take back"):
        checkpoints.load(saved[0], model, optimiser, identity)
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True))


def test_another_architecture_is_refused(saved: Any, fresh: Callable[..., Any]) -> None:
    for options in ({"hidden_size": 9}, {"layers": 2}):
        with pytest.raises(DataError, match="is no trainer state, or a damaged one"):
            checkpoints.load(saved[0], *fresh(**options), IDENTITY)


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def bombs(mark: Path) -> dict[str, Callable[[Path], None]]:
    def old_format(path: Path) -> None:
        torch.save({"format": "seqdens-trainer", "model": Bomb(mark)}, path, _use_new_zipfile_serialization=False)

    def archive(path: Path) -> None:
        torch.save({}, path)
        with zipfile.ZipFile(path) as file:
            contents = {name: file.read(name) for name in file.namelist()}
        with zipfile.ZipFile(path, "w") as file:
            for name, content in contents.items():
                file.writestr(name, pickle.dumps(Bomb(mark), 2) if name.endswith("data.pkl") else content)

    return {
        "plain": lambda path: path.write_bytes(pickle.dumps(Bomb(mark), 2)),
        "torch": lambda path: torch.save({"format": "seqdens-trainer", "model": Bomb(mark)}, path),
        "old torch": old_format,
        "archive": archive,
    }


@pytest.mark.parametrize("kind", ["plain", "torch", "old torch", "archive"])
def test_a_pickle_is_not_unpickled(fresh: Callable[..., Any], tmp_path: Path, kind: str) -> None:
    path, mark = tmp_path / "trainer.pt", tmp_path / "exploded"
    bombs(mark)[kind](path)
    with pytest.raises(DataError, match=r"a damaged one \((it holds more than plain data|File is not a zip file)\)"):
        checkpoints.load(path, *fresh(), IDENTITY)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()


def test_a_file_cut_short_is_refused(saved: Any, fresh: Callable[..., Any]) -> None:
    path = saved[0]
    whole = path.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="is no trainer state, or a damaged one"):
            checkpoints.load(path, *fresh(), IDENTITY)


@pytest.mark.parametrize(
    "state", [torch.zeros(3), [1, 2], 7, {}, {"format": "other"}, {"format": "seqdens-trainer"}, {"format": [1]}]
)
def test_a_state_of_something_else_is_refused(fresh: Callable[..., Any], tmp_path: Path, state: Any) -> None:
    path = tmp_path / "trainer.pt"
    torch.save(state, path)
    with pytest.raises(DataError, match="is no trainer state, or a damaged one"):
        checkpoints.load(path, *fresh(), IDENTITY)


@pytest.mark.parametrize(
    "change",
    [
        {"identity": 3},
        {"model": 3},
        {"model": {}},
        {"optimiser": 3},
        {"optimiser": {}},
        {"random": {}},
        {"random": {"cpu": 3}},
        {"progress": {"unknown": 1}},
        {"progress": 3},
    ],
)
def test_a_state_with_a_part_of_something_else_is_refused(
    saved: Any, fresh: Callable[..., Any], change: dict[str, Any]
) -> None:
    path = saved[0]
    torch.save(torch.load(path, weights_only=True) | change, path)
    with pytest.raises(DataError, match="is no trainer state, or a damaged one"):
        checkpoints.load(path, *fresh(), IDENTITY)


def test_a_state_that_the_disk_has_changed_is_refused(saved: Any, fresh: Callable[..., Any]) -> None:
    path, model, *_ = saved
    content = path.read_bytes()
    for weight in model.parameters():
        written = weight.detach().numpy().tobytes()
        assert written in content
        path.write_bytes(content.replace(written, bytes([written[0] ^ 1]) + written[1:]))
        with pytest.raises(DataError, match=r"a damaged one \(the checksum of archive/data/\d+ is another\)"):
            checkpoints.load(path, *fresh(), IDENTITY)


def test_a_failing_save_keeps_the_old_state(saved: Any, fill_disk: Callable[[], None]) -> None:
    path, model, optimiser, _ = saved
    before = path.read_bytes()
    fill_disk()
    with pytest.raises(DataError, match="No space left on device"):
        checkpoints.save(path, model, optimiser, Progress(), IDENTITY)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["trainer.pt"]


def test_a_missing_state_is_refused(fresh: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        checkpoints.load(tmp_path / "trainer.pt", *fresh(), IDENTITY)
