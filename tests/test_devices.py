"""Choosing a device and a precision."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from seqdens import native
from seqdens.devices import autocast, bf16_is_fast, choose_device, flushing_denormals
from seqdens.errors import UsageError

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call with what the machine shall have."""

    def have(cuda: int = 0, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return have


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"), [(0, False, "cpu"), (0, True, "mps"), (2, False, "cuda"), (1, True, "cuda")]
)
def test_auto_takes_the_fastest_there_is(machine: Any, cuda: int, mps: bool, chosen: str) -> None:
    machine(cuda, mps)
    assert choose_device("auto") == torch.device(chosen)


def test_a_device_is_taken_by_name(machine: Any) -> None:
    machine(cuda=2)
    assert [str(choose_device(name)) for name in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda", "cuda:1"]


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "tpu", "", "cuda:x", "meta", "gpu"])
def test_a_device_that_is_not_here_is_refused(machine: Any, name: str) -> None:
    machine()
    with pytest.raises(UsageError, match=f"device '{name}' is not available; here are: auto, cpu"):
        choose_device(name)


def test_a_device_number_beyond_the_last_is_refused(machine: Any) -> None:
    machine(cuda=2)
    with pytest.raises(UsageError, match="device 'cuda:2' is not available; here are: auto, cuda, cpu"):
        choose_device("cuda:2")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call for a process that `torchrun` started: its number on its machine, and how many there are."""

    def start(number: int, processes: int) -> None:
        local = {"LOCAL_RANK": number, "LOCAL_WORLD_SIZE": processes}
        for name, value in {
            "RANK": number,
            "WORLD_SIZE": processes,
            "MASTER_ADDR": "",
            "MASTER_PORT": 0,
            **local,
        }.items():
            monkeypatch.setenv(name, str(value))

    return start


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_processes_take_a_gpu_each(machine: Any, started: Any, name: str) -> None:
    machine(cuda=4)
    for number in range(3):
        started(number, 3)
        assert choose_device(name) == torch.device("cuda", number)
    assert choose_device("cpu") == CPU


def test_more_processes_than_gpus_are_refused(machine: Any, started: Any) -> None:
    machine(cuda=2)
    started(0, 3)
    with pytest.raises(UsageError, match="3 processes have 2 GPU"):
        choose_device("auto")


def test_several_processes_do_not_share_a_gpu(machine: Any, started: Any) -> None:
    machine(cuda=2)
    started(0, 2)
    with pytest.raises(UsageError, match="device 'cuda:1' is one GPU, but 2 processes need one each; say cuda"):
        choose_device("cuda:1")
    started(0, 1)
    assert choose_device("cuda:1") == torch.device("cuda:1")


def test_processes_of_torchrun_have_no_mps(machine: Any, started: Any) -> None:
    machine(mps=True)
    started(0, 2)
    assert choose_device("auto") == CPU
    with pytest.raises(UsageError, match="device 'mps' is not available; here are: auto, cpu"):
        choose_device("mps")


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_is_fast_at_bf16_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], fast: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert bf16_is_fast(torch.device("cuda")) is fast


CAPABILITIES = [({"amx_bf16": True}, True), ({"avx512_bf16": True}, True), ({"avx2": True}, False), ({}, False)]


@pytest.mark.parametrize(("capabilities", "fast"), CAPABILITIES)
def test_without_the_library_bf16_is_fast_if_torch_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, Any], fast: bool
) -> None:
    monkeypatch.setattr(native, "_attempt", lambda: "it is not there.")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert bf16_is_fast(CPU) is fast
    with autocast(CPU, "auto"):
        assert torch.is_autocast_enabled("cpu") is fast


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("level", ["avx2", "neon", "avx512", "avx512_bf16", "amx"])
def test_bf16_is_fast_if_the_library_has_products_in_it(level: str, hold: Callable[[str], None]) -> None:
    hold(level)
    assert bf16_is_fast(CPU) is native.has("bf16")
    assert not (level in ("avx2", "neon", "avx512") and bf16_is_fast(CPU))
    assert not bf16_is_fast(torch.device("mps"))


def test_precision_decides_the_type_of_products() -> None:
    ones = torch.ones(2, 2)
    for precision, dtype in (("bf16", torch.bfloat16), ("float32", torch.float32)):
        with autocast(CPU, precision):
            assert (ones @ ones).dtype == dtype


def test_denormals_are_flushed_within_the_block_alone() -> None:
    def tiny() -> float:
        return (torch.tensor(1e-39) * 1).item()

    with flushing_denormals():
        assert tiny() == 0
        with flushing_denormals():
            pass
        assert tiny() == 0
    assert tiny() > 0
