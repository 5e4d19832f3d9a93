"""One model trained by several processes, each on its share of every batch, where `torchrun` started them.

Such a process is called a rank; rank 0 alone writes and prints. Only this file uses `torch.distributed`. A process that
`torchrun` did not start is rank 0 of 1, and nothing here is imported or started for it.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast
from uuid import uuid4

from seqdens.errors import SeqdensError
from seqdens.registry import one_line

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import Store
    from torch.nn import Parameter

T = TypeVar("T")
Raised = TypeVar("Raised", bound=BaseException)

TIMEOUT = timedelta(minutes=30)  # of waiting for a rank that lives, such as one that prepares the data
LAST_WORDS = timedelta(seconds=5)
PAUSE = 0.02  # seconds between two looks at what others have said


def launched() -> bool:
    """Whether `torchrun`, or a scheduler that sets the same variables, started this process with others."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


def restartable() -> bool:
    """Whether `torchrun` starts all processes anew where one fails (--max-restarts)."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) > 0


def restarted() -> bool:
    """Whether `torchrun` started this process anew, after one of its own machine had failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def _group() -> ModuleType | None:
    """`torch.distributed` where this process is a member of a group; without torch it cannot be."""
    dist = sys.modules.get("torch.distributed")
    return dist if dist and dist.is_available() and dist.is_initialized() else None


def rank() -> int:
    """The number of this process, from 0."""
    dist = _group()
    return dist.get_rank() if dist else 0


def size() -> int:
    """How many ranks there are."""
    dist = _group()
    return dist.get_world_size() if dist else 1


def local_rank() -> int:
    """The number of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


def local_size() -> int:
    """How many ranks this machine has."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def join() -> None:
    """Makes the processes that `torchrun` started the ranks of a group until they exit, unless they are already.

    They talk through gloo, and between GPUs through NCCL. Raises `SeqdensError` where one is not heard of in time.
    """
    if _group() or not launched():
        return
    import torch
    from torch import distributed as dist

    store, rank, size = next(dist.rendezvous("env://"))
    store = dist.PrefixStore(_gather(store, size) if rank == 0 else _find(store, rank), store)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    atexit.register(_leave, store)


def _gather(store: Store, size: int) -> str:
    """A new name of the group, which rank 0 answers all others, until each has said that it has it.

    What processes said that have failed since is still in the store, so they are answered too. `torchrun` counts its
    attempts on each machine for itself, so that a number would not do.
    """
    group, others = uuid4().hex, range(1, size)

    def missing() -> list[int]:
        absent = [rank for rank in others if not store.check([f"{group} has {rank}"])]
        for rank in absent:
            if store.check([f"rank {rank}"]):
                store.set(f"answer to {store.get(f'rank {rank}').decode()}", group)
        return absent

    _wait(missing)
    return group


def _find(store: Store, rank: int) -> str:
    """The name of the group, once rank 0 has answered this process."""
    me = uuid4().hex
    store.set(f"rank {rank}", me)
    _wait(lambda: [] if store.check([f"answer to {me}"]) else [0])
    group = store.get(f"answer to {me}").decode()
    store.set(f"{group} has {rank}", "")
    return group


def _wait(missing: Callable[[], list[int]]) -> None:
    """Returns once no rank is missing; a signal is heeded meanwhile, as it is not while a store waits."""
    deadline = time.monotonic() + TIMEOUT.total_seconds()
    while ranks := missing():
        if time.monotonic() > deadline:
            raise SeqdensError(
                f"rank {ranks[0]} was not heard of for {TIMEOUT}; start all ranks, and let them connect."
            )
        time.sleep(PAUSE)


def _leave(store: Store) -> None:
    """Ends the connections; then rank 0 exits first, which `torchrun` would end in mid-sentence once another failed."""
    first, dist = rank() == 0, _group()
    if dist:
        dist.destroy_process_group()
    with suppress(RuntimeError):  # rank 0 did not live to say it
        if first:
            store.set("rank 0 has left", "")
        else:
            store.wait(["rank 0 has left"], LAST_WORDS)


@contextmanager
def first_alone_prints() -> Iterator[None]:
    """Nothing is printed within the block but by rank 0."""
    if rank() == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def by_all(error: Raised) -> Raised:
    """`error`, which all ranks raise, and of which rank 0 alone speaks."""
    vars(error)["by_all"] = True
    return error


def is_silent(error: BaseException) -> bool:
    """Whether another rank speaks of the error that ends this one."""
    return rank() > 0 and "by_all" in vars(error)


def origin() -> str:
    """What begins a message of another rank than the first."""
    return f"rank {rank()} of {size()}: " if rank() > 0 else ""


class _Failure(NamedTuple):
    sentence: str
    exit_status: int


def exchange(compute: Callable[[], T]) -> list[T]:
    """What `compute` returns on each rank, in order, on all ranks; they wait for the last.

    What it raises on one rank ends all: there as it is, elsewhere as a `SeqdensError` of the same sentence.
    """
    dist = _group()
    if dist is None or dist.get_world_size() == 1:
        return [compute()]
    mine: T | None = None
    error: Exception | None = None
    try:
        mine = compute()
    except Exception as raised:
        error = raised
    outcomes: list[Any] = [None] * dist.get_world_size()
    with _connected():
        dist.all_gather_object(outcomes, (mine, error and _failure(error)))
    if error:
        raise by_all(error)
    for _, failure in outcomes:
        if failure:
            raise by_all(_failed(failure))
    return [outcome for outcome, _ in outcomes]


def _failure(error: Exception) -> _Failure:
    if not isinstance(error, SeqdensError):
        error = SeqdensError(one_line(error))
    return _Failure(f"{origin()}{error}", error.exit_status)


def _failed(failure: _Failure) -> SeqdensError:
    error = SeqdensError(failure.sentence)
    error.exit_status = failure.exit_status
    return error


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise by_all(
            SeqdensError(
                f"rank {rank()} of {size()} has lost the connection to another, which was killed, or says why itself."
            )
        ) from error


def together(compute: Callable[[], T]) -> T:
    """What `compute` returns on this rank, once it has on all; what it raises on one ends all, as in `exchange`."""
    results: list[T] = []
    exchange(lambda: results.append(compute()))
    return results[0]


def from_first(compute: Callable[[], T]) -> T:
    """What `compute` returns on rank 0, which alone calls it, on all ranks."""
    return cast(T, exchange(lambda: compute() if rank() == 0 else None)[0])


def first_on_each_machine(compute: Callable[[], T]) -> T:
    """What `compute` returns; the first rank of each machine calls it before the others do."""
    results: list[T] = []

    def call(first: bool) -> None:
        if (local_rank() == 0) is first:
            results.append(compute())

    exchange(lambda: call(True))
    exchange(lambda: call(False))
    return results[0]


def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrites tensors with those of rank 0."""
    if dist := _group():
        with _connected():
            for tensor in tensors:
                dist.broadcast(tensor, 0)


def sum_gradients(parameters: Sequence[Parameter]) -> None:
    """Sums the gradients over ranks, in one transfer; a parameter that has none on any rank keeps none.

    Back-propagation through time has the gradients only at its very end, so there is nothing to transfer
    meanwhile as `DistributedDataParallel` does, which also cannot go without a rank's share of a batch.
    """
    import torch

    dist = _group()
    if dist is None or dist.get_world_size() == 1:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    there = gradients[0].new_tensor([p.grad is not None for p in parameters])
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), there])
    with _connected():
        dist.all_reduce(flat)
    *sums, there = flat.split([*(gradient.numel() for gradient in gradients), len(gradients)])
    for parameter, total, count in zip(parameters, sums, there.tolist(), strict=True):
        parameter.grad = total.view_as(parameter).to(parameter.dtype) if count else None
