"""The training loop: steps over bucketed batches, validation each epoch, best and last, resumed bit for bit.

B records of a batch, or of the batches of one step. The loss differentiated is the sum in nats over each record, so
that the clip ranges of Graves (2013) mean what they mean; parameter gradients are divided by B afterwards. Where
`torchrun` started several processes, the ranks, each takes its share of every batch and of validation, and B counts the
records of all: their weights stay equal, and so do their decisions. A step whose loss or gradients are not finite is
skipped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import chain, islice, takewhile
from platform import node
from typing import Annotated, Any, Literal, Protocol

import torch
from msgspec import Meta
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from seqdens import distributed
from seqdens.batches import Batch, evaluation_batches, training_batches
from seqdens.cache import Prepared
from seqdens.devices import autocast, choose_device, flushing_denormals
from seqdens.errors import DataError, UsageError
from seqdens.evaluation import Likelihood, evaluate
from seqdens.interrupts import STOPS, Interrupt, interruptible
from seqdens.model import Loss, SequenceModel, plain
from seqdens.optim import make_optimiser
from seqdens.registry import check_options, options_of
from seqdens.sampling import LARGEST_SEED
from seqdens.training import checkpoints
from seqdens.training.checkpoints import Progress
from seqdens.training.run_folder import Run

Metrics = dict[str, float]
Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]


class Events(Protocol):
    """Who is told what happens; `plugins.load_events` makes one of hooks."""

    def metrics_logged(self, *, run: Any, step: int, metrics: Metrics) -> None: ...
    def epoch_finished(self, *, run: Any, metrics: Metrics) -> None: ...


class Trainer:
    """Fits a model to a prepared data set.

    >>> import seqdens
    >>> data = seqdens.load("hershey", lines=6, writers=3)
    >>> encoder, head = seqdens.encoder("stacked-lstm", hidden_size=4, layers=1), seqdens.head("gmm-bernoulli")
    >>> model = seqdens.SequenceModel.for_data(data, encoder, head)
    >>> history = seqdens.Trainer(epochs=2, optimiser="adam", learning_rate=0.01).fit(model, data)
    >>> history[1]["train_nats_per_point"] < history[0]["train_nats_per_point"]
    True

    Options:
        epochs: passes over the training split
        optimiser: graves-rmsprop, or any optimiser of torch.optim by its name
        learning_rate: of the optimiser
        decay: share of all steps, at the end, over which the learning rate falls to zero
        batch_size: records in a batch, of each process where torchrun started several
        accumulate: batches whose gradients are added up for a step of the optimiser
        truncate: points that gradients go back at most, batches being worked through in pieces of so many, 0 for all
        patience: epochs without a better validation loss after which training stops, 0 for never
        max_skipped: steps in a row, skipped for a loss or gradients that are not finite, after which training fails
        seed: of initial weights, data order and samples
        device: auto, cpu, cuda, cuda:1, mps
        precision: auto (products in bf16 where the hardware is fast at it), float32, bf16
    """

    def __init__(
        self,
        *,
        epochs: Positive = 30,
        optimiser: str = "graves-rmsprop",
        learning_rate: Annotated[float, Meta(gt=0)] = 1e-4,
        decay: Annotated[float, Meta(ge=0, le=1)] = 0.0,
        batch_size: Positive = 32,
        accumulate: Positive = 1,
        truncate: Count = 0,
        patience: Count = 0,
        max_skipped: Positive = 10,
        seed: Annotated[int, Meta(ge=0, le=LARGEST_SEED)] = 0,
        device: str = "auto",
        precision: Literal["auto", "float32", "bf16"] = "auto",
    ) -> None:
        given = {name: value for name, value in locals().items() if name != "self"}
        check_options("the trainer", options_of(Trainer), given)
        if not math.isfinite(learning_rate):
            raise UsageError(f"option 'learning_rate' of the trainer is {learning_rate}, but must be finite.")
        make_optimiser(optimiser, [torch.nn.Parameter(torch.zeros(1))], learning_rate)  # what it refuses, it does now
        self.epochs, self.batch_size, self.accumulate, self.seed = epochs, batch_size, accumulate, seed
        self.truncate, self.patience, self.max_skipped = truncate, patience, max_skipped
        self.optimiser, self.learning_rate, self.decay = optimiser, learning_rate, decay
        self.device, self.precision = choose_device(device), precision

    def fit(
        self,
        model: SequenceModel,
        data: Prepared,
        *,
        run: Run | None = None,
        resume: bool = False,
        events: Events | None = None,
    ) -> list[Metrics]:
        """Train, and leave the best weights (by validation loss) in `model`; returns the metrics of each epoch.

        A model that `torch.compile` compiled is trained in its compiled form, and saved as a plain model is.
        With a `run`, its folder gets weights, metrics and a state from which `resume` goes on bit for bit; one that
        another process uses, or that has a state without `resume`, raises `UsageError`. Losses are nats per point and
        per record, in normalised units. Ctrl-C or SIGTERM saves, then raises `KeyboardInterrupt` (of SIGTERM one that
        ends the process with status 143); a validation loss that is not finite, `max_skipped` skipped steps in a row,
        or no training record, raises `DataError`. Processes that `torchrun` started train together, from the first
        one's weights; it alone writes and tells events.
        """
        distributed.join()
        with run.held() if run and distributed.rank() == 0 else nullcontext():
            return self.begin(model, data, run=run, resume=resume, events=events)()

    def begin(
        self,
        model: SequenceModel,
        data: Prepared,
        *,
        run: Run | None = None,
        resume: bool = False,
        events: Events | None = None,
    ) -> Callable[[], list[Metrics]]:
        """What `fit` does before its first step: it refuses what does not fit, and resumes. Call what this returns."""
        distributed.join()
        fitting = distributed.together(lambda: _Fit(self, model, data, run, events))
        fitting.begin(run, resume)
        return fitting.fit


class _Fit:
    """One call of `Trainer.fit`."""

    def __init__(
        self, trainer: Trainer, model: SequenceModel, data: Prepared, run: Run | None, events: Events | None
    ) -> None:
        data.check_trainable()
        self.given, self.model = model, plain(model)  # the first is called, compiled or not; the second is saved
        self.model.check_data(data)
        self.options, self.data = trainer, data
        self.run, self.events = (run, events) if distributed.rank() == 0 else (None, None)
        self.model.to(trainer.device)
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimiser: Optimizer = make_optimiser(trainer.optimiser, self.parameters, trainer.learning_rate)
        self.progress = Progress()
        self.batch_size = trainer.batch_size * distributed.size()
        self.records = len(data.split("train"))
        self.batches = -(-self.records // self.batch_size)
        self.steps = trainer.epochs * -(-self.batches // trainer.accumulate)
        self.best_weights: dict[str, torch.Tensor] = {}
        self.points_per_second = 0.0

    def begin(self, run: Run | None, resume: bool) -> None:
        self._check_aligned(run, resume)
        if run and distributed.from_first(run.trainer_state.exists):
            if not resume:
                raise distributed.by_all(
                    UsageError(f"{run.path} already holds a run; go on with it by resume=True, or use another folder.")
                )
            distributed.exchange(lambda: self._resume(run))
        distributed.copy_from_first(self.model.state_dict().values())

    def fit(self) -> list[Metrics]:
        with flushing_denormals(), interruptible() as interrupt:
            while self.progress.epoch < self.options.epochs and not self._out_of_patience():
                self._epoch(interrupt)
        if interrupt:  # after the last look, when all is saved
            raise STOPS[interrupt.asked]
        if self.best_weights:
            self.model.load_state_dict(self.best_weights)
        return self.progress.history

    def _resume(self, run: Run) -> None:
        if not run.trainer_state.exists():
            raise DataError(
                f"{run.trainer_state} is not to be seen on machine {node()}, but on that of rank 0; "
                "to go on with a run all machines must see its folder."
            )
        if run.best.exists():  # before the random numbers are set, of which building a model takes some
            try:
                self.best_weights = SequenceModel.load(run.best).to(self.options.device).state_dict()
            except DataError as error:
                raise DataError(
                    f"{str(error)[:-1]}; delete it, and the run goes on with all but its best weights so far."
                ) from None
        self.progress = checkpoints.load(run.trainer_state, self.model, self.optimiser, self._identity())
        for row in self.progress.history:
            row.setdefault("skipped_steps", 0.0)  # of a state from before they were counted
        begun = self.progress.epoch + (self.progress.batch > 0)
        if begun > self.options.epochs:
            raise UsageError(
                f"{run.path} has begun epoch {begun} already; training.epochs is {self.options.epochs}, "
                f"but must be at least {begun} to go on."
            )
        at_best = not self.progress.batch and 0 < self.progress.best_epoch == self.progress.epoch
        if at_best:
            self._keep_best()
        if self.run:  # not before the state is seen to fit it
            if run.config:
                run.write_config()
            self._write_weights(at_best)  # which a kill while saving may have kept from being written

    def _check_aligned(self, run: Run | None, resume: bool) -> None:
        """Raises `DataError` where ranks would do different things."""
        options = {name: value for name, value in vars(self.options).items() if name != "device"}
        mine = self._identity() | options | {"run": run is not None, "resume": resume}
        mine["number of validation records"] = len(self.data.split("valid"))
        first, *others = distributed.exchange(lambda: mine)
        different = [name for name in first if any(other[name] != first[name] for other in others)]
        if different:
            raise distributed.by_all(
                DataError(f"the ranks differ in {', '.join(different)}; give all the same options and data.")
            )

    def _identity(self) -> dict[str, Any]:
        """What resuming may not change: the network, the order of the batches and their scaling, the optimiser."""
        return {
            "encoder": str(self.model.components["encoder"].describe()),
            "head": str(self.model.components["head"].describe()),
            "optimiser": self.options.optimiser.lower(),
            "batch size": self.batch_size,
            "accumulate": self.options.accumulate,
            "seed": self.options.seed,
            "number of training records": self.records,
            "scaling of the data": [self.model.mean, self.model.std],
        }

    def _out_of_patience(self) -> bool:
        return bool(self.options.patience) and (self.progress.epoch - self.progress.best_epoch >= self.options.patience)

    def _epoch(self, interrupt: Interrupt) -> None:
        progress = self.progress
        self.model.train()
        batches = training_batches(
            self.data,
            self.batch_size,
            self.options.seed,
            progress.epoch,
            skip=progress.batch,
            rank=distributed.rank(),
            ranks=distributed.size(),
            alphabet=self.model.characters,
        )
        while progress.batch < self.batches:
            self._step(batches)
            self._stop_if(interrupt)
        started = time.perf_counter()
        validation = self._validate(interrupt)
        self._stop_if(interrupt)
        progress.seconds += time.perf_counter() - started
        self._finish_epoch(validation)
        self._stop_if(interrupt)

    def _stop_if(self, interrupt: Interrupt) -> None:
        """Saves and raises on all ranks, at the same step, where one was asked to stop."""
        if asked := max(distributed.exchange(lambda: interrupt.asked)):
            self._save()
            raise STOPS[asked]

    def _step(self, batches: Iterator[Batch]) -> None:
        started = time.perf_counter()
        taken: list[Batch] = []

        def differentiate() -> Likelihood:
            taken.extend(islice(batches, self.options.accumulate))
            return self._differentiate(taken)

        learning_rate = self.options.learning_rate * self._decayed()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.zero_grad(set_to_none=True)
        loss = _sum(distributed.exchange(differentiate))
        distributed.sum_gradients(self.parameters)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        largest = get_total_norm(gradients, torch.inf).item()
        if math.isfinite(loss.nats) and math.isfinite(largest):
            torch._foreach_div_(gradients, loss.records)
            self.optimiser.step()
            self._add(loss)
        else:
            self._skip(taken, loss.nats, largest)
        self._count(len(taken), loss.points, time.perf_counter() - started)
        if self.events:
            self.events.metrics_logged(run=self.run, step=self.progress.step, metrics=self._step_metrics(loss))

    def _differentiate(self, batches: list[Batch]) -> Likelihood:
        """The sums of this rank's shares, which may be empty; leaves their gradients."""
        total = Likelihood()
        for batch in batches:
            if len(batch.lengths):
                total.nats += self._backward(batch.to(self.options.device))
                total.points += int(batch.lengths.sum())
                total.records += len(batch.lengths)
        return total

    def _backward(self, batch: Batch) -> float:
        """The nats of the batch, whose gradients are added to those that are there."""
        pieces = self.model.pieces(batch, self.options.truncate) if self.options.truncate else map(self.given, [batch])
        total = 0.0
        while (nats := self._nats(pieces)) is not None:
            nats.backward()
            total += nats.item()
        return total

    def _nats(self, losses: Iterator[Loss]) -> torch.Tensor | None:
        """The sum of the next loss; None after the last."""
        with autocast(self.options.device, self.options.precision):
            loss = next(losses, None)
        return None if loss is None else loss.nats.sum()

    def _add(self, loss: Likelihood) -> None:
        progress = self.progress
        progress.nats += loss.nats
        progress.points += loss.points
        progress.records += loss.records
        progress.skipped_in_a_row.clear()

    def _skip(self, batches: list[Batch], nats: float, largest: float) -> None:
        """Counts the step; after too many in a row, writes the records of their batches and raises `DataError`."""
        progress = self.progress
        progress.skipped += 1
        records = torch.cat([batch.records for batch in batches]).tolist()
        progress.skipped_in_a_row.append(list(chain(*distributed.exchange(lambda: records))))
        if len(progress.skipped_in_a_row) < self.options.max_skipped:
            return
        last = progress.step + 1
        steps = range(last + 1 - len(progress.skipped_in_a_row), last + 1)
        place = distributed.from_first(lambda: self._write_skipped(steps))
        raise distributed.by_all(
            DataError(
                f"steps {steps[0]} to {last} were all skipped (training.max_skipped is {self.options.max_skipped}), "
                f"since their loss or gradients are not finite (at last a loss of {nats}, a largest gradient of "
                f"{largest}); lower training.learning_rate, or look at the records of their batches{place}."
            )
        )

    def _write_skipped(self, steps: range) -> str:
        """Where the records of the steps skipped in a row are listed, in words; empty where there is no run folder."""
        if not self.run:
            return ""
        skipped = zip(steps, self.progress.skipped_in_a_row, strict=True)
        self.run.write_skipped((step, self.data.ids[record]) for step, records in skipped for record in records)
        return f", listed in {self.run.skipped}"

    def _check(self, name: str, value: float) -> None:
        """Raises before anything is saved that could not be used."""
        if not math.isfinite(value):
            steps = f"{self.progress.step} steps, {self.progress.skipped} skipped in this epoch"
            raise distributed.by_all(DataError(f"the {name} after {steps}, is {value}; lower training.learning_rate."))

    def _decayed(self) -> float:
        """The learning rate's factor: 1, then falling linearly to 0 over the last `decay` of all steps."""
        left = 1 - self.progress.step / self.steps
        return min(1.0, left / self.options.decay) if self.options.decay else 1.0

    def _count(self, batches: int, points: int, seconds: float) -> None:
        progress = self.progress
        progress.batch += batches
        progress.step += 1
        progress.seconds += seconds
        speed = points / seconds
        self.points_per_second += (speed - self.points_per_second) * (0.05 if self.points_per_second else 1)

    def _step_metrics(self, loss: Likelihood) -> Metrics:
        done = self.progress.step
        return loss.metrics("train") | {
            "points_per_second": self.points_per_second,
            "epoch": self.progress.epoch + 1,
            "steps": self.steps,
            "skipped_steps": self.progress.skipped,
            "seconds_left": self.progress.seconds / done * (self.steps - done),
        }

    def _validate(self, interrupt: Interrupt) -> Likelihood | None:
        records = self.data.split("valid")
        if not len(records):
            return None
        share = records[distributed.rank() :: distributed.size()]
        batches = evaluation_batches(self.data, share, self.options.batch_size, self.model.characters)
        until_asked = takewhile(lambda batch: not interrupt, batches)
        with autocast(self.options.device, self.options.precision):
            return _sum(distributed.exchange(lambda: evaluate(self.given, until_asked)))

    def _finish_epoch(self, validation: Likelihood | None) -> None:
        progress = self.progress
        train = Likelihood(progress.nats if progress.records else math.nan, progress.points, progress.records)
        metrics = {"epoch": progress.epoch + 1.0, "step": float(progress.step)} | train.metrics("train")
        if validation:
            metrics |= validation.metrics("valid")
            metrics |= {
                f"valid_{name}_nats_per_point": nats / validation.points for name, nats in validation.terms.items()
            }
        metrics |= {"seconds": progress.seconds, "points_per_second": self.points_per_second}
        metrics["skipped_steps"] = float(progress.skipped)
        watched = metrics["valid_nats_per_point" if validation else "train_nats_per_point"]
        if validation:
            self._check("validation loss", watched)
        progress.history.append(metrics)
        progress.epoch, progress.batch, progress.skipped = progress.epoch + 1, 0, 0
        progress.nats, progress.points, progress.records = 0.0, 0, 0
        better = watched < progress.best
        if better:
            progress.best, progress.best_epoch = watched, progress.epoch
            self._keep_best()
        self._save(best=better)
        if self.run and not progress.skipped_in_a_row:  # what it lists is past
            self.run.skipped.unlink(missing_ok=True)
        if self.events:
            self.events.epoch_finished(run=self.run, metrics=metrics)

    def _save(self, *, best: bool = False) -> None:
        """Rank 0 writes; no other goes on, or ends, before it has."""
        self._check("largest weight", get_total_norm(self.parameters, torch.inf).item())
        distributed.exchange(lambda: self._write(best))

    def _keep_best(self) -> None:
        self.best_weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def _write(self, best: bool) -> None:
        """The state first: the others can be had from it."""
        if not self.run:
            return
        self.run.check_held()
        checkpoints.save(self.run.trainer_state, self.model, self.optimiser, self.progress, self._identity())
        self._write_weights(best)

    def _write_weights(self, best: bool) -> None:
        assert self.run
        if best:
            self.model.save(self.run.best)
        self.model.save(self.run.last)
        if self.progress.history:
            self.run.write_metrics(self.progress.history)


def _sum(shares: list[Likelihood]) -> Likelihood:
    """Of all ranks."""
    total = Likelihood()
    for share in shares:
        total.nats += share.nats
        total.points += share.points
        total.records += share.records
        for name, nats in share.terms.items():
            total.terms[name] = total.terms.get(name, 0.0) + nats
    return total
