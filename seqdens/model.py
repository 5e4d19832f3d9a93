"""A sequence model: input layer, encoder and head.

B records, T steps, D columns of a point, R of them real, F inputs of a step. "Raw" is in the data's units,
"normalised" has real columns scaled by the training data's mean and standard deviation.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from seqdens import components
from seqdens.batches import Batch
from seqdens.cache import Prepared
from seqdens.datasets.base import Column, check_columns
from seqdens.encoders.base import Context, Encoded, Encoder, State, apply_encoder
from seqdens.errors import DataError, SeqdensError, UsageError
from seqdens.heads.base import Distribution, Head
from seqdens.moments import check_scaling
from seqdens.registry import Component, one_line
from seqdens.sampling import Precision, check_arguments, check_precision, check_prime, draw_points, gather
from seqdens.text import Unknown, continued, encode, steps_for, writable
from seqdens.weights import Limited, TooLarge, read_weights, write_weights

Units = Literal["normalised", "raw"]

STEPS = 700  # of a record that is drawn, where nobody says


class Loss(NamedTuple):
    """Negative log-likelihood of each point in nats, in normalised units, zero in the padding; and its parts."""

    nats: Tensor  # (B, T)
    terms: dict[str, Tensor]  # (B, T) each, they add up to nats

    @classmethod
    def of(cls, distribution: Distribution, targets: Tensor, valid: Tensor) -> Loss:
        """The loss of normalised targets (B, T, D), of which `valid` (B, T) are no padding."""
        terms = {name: torch.where(valid, -term, 0.0) for name, term in distribution.terms(targets).items()}
        return cls(sum(list(terms.values())[1:], next(iter(terms.values()))), terms)


class SequenceModel(nn.Module):
    """p(x_1) p(x_2 | x_1) ... p(x_T | x_1 ... x_T-1): every point is scored, the first from a null input.

    `mean` and `std` (R,) are the scaling of the real columns, `origin` says what the model was trained on.
    """

    exact = True  # the loss is the likelihood itself and no bound

    def __init__(
        self,
        columns: Sequence[Column],
        encoder: Component,
        head: Component,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        alphabet: str = "",
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.columns = tuple(Column(*column) for column in columns)
        self.components = {"encoder": encoder, "head": head}
        self.mean, self.std = ([float(value) for value in values] for values in (mean, std))
        self.alphabet, self.origin = alphabet, dict(origin or {})
        real = iter(zip(self.mean, self.std, strict=True))
        scaling = [next(real) if column.kind == "real" else (0.0, 1.0) for column in self.columns]
        self.register_buffer("shift", torch.tensor([shift for shift, _ in scaling]), persistent=False)
        self.register_buffer("scale", torch.tensor([scale for _, scale in scaling]), persistent=False)
        self.shift: Tensor
        self.scale: Tensor
        sizes = (column.size if column.kind == "category" else 1 for column in self.columns)
        self.input_size = sum(sizes)
        self.encoder: Encoder = encoder.build(self.input_size, len(alphabet) if takes_text(encoder) else 0)
        self.head: Head = head.build(_size(encoder, self.encoder, "output_size"), self.columns)
        _size(head, self.head, "noise_size")

    @classmethod
    def for_data(
        cls, data: Prepared, encoder: Component, head: Component, *, like: SequenceModel | None = None
    ) -> SequenceModel:
        """An untrained model for the columns, scaling and alphabet of `data`; with the scaling of `like`, if given.

        >>> import seqdens
        >>> data = seqdens.load("hershey", lines=6, writers=3)
        >>> encoder, head = seqdens.encoder("stacked-lstm", layers=3), seqdens.head("gmm-bernoulli", components=20)
        >>> model = SequenceModel.for_data(data, encoder, head)
        >>> sum(weights.numel() for weights in model.parameters())
        3368121
        """
        check_texts(data, encoder)
        about = data.provenance
        origin = {"dataset": about.dataset, "synthetic": about.synthetic, "record_name": about.record_name}
        return cls(
            data.columns,
            encoder,
            head,
            mean=like.mean if like is not None else data.mean.tolist(),
            std=like.std if like is not None else data.std.tolist(),
            alphabet=data.alphabet,
            origin=origin,
        )

    @property
    def device(self) -> torch.device:
        return self.shift.device

    @property
    def characters(self) -> str | None:
        """What texts are indices into; None where the model takes no text."""
        return self.alphabet if self.encoder.takes_text else None

    def check_data(self, data: Prepared) -> None:
        """Raises `UsageError` where `data` have other columns than the model, or characters that it does not know.

        `DataError` where they lack texts that it takes.
        """
        self.check_columns(data.columns, data.provenance.dataset)
        check_texts(data, self.components["encoder"])
        if self.characters is not None:
            encode([data.alphabet], self.characters)

    def check_columns(self, columns: Sequence[Column], owner: str) -> None:
        """Raises `UsageError` where `columns`, those of `owner`, are not the model's."""
        if tuple(columns) != self.columns:
            theirs, ours = (", ".join(column.describe() for column in some) for some in (columns, self.columns))
            raise UsageError(f"{owner} has columns {theirs}, but the model's are {ours}.")

    def normalise(self, points: Tensor) -> Tensor:
        """Raw (..., D) to normalised."""
        return (points - self.shift) / self.scale

    def inputs(self, points: Tensor) -> Tensor:
        """What the encoder sees (..., F) of normalised points (..., D): one-hot categories, a missing value as 0."""
        if all(column.kind != "category" for column in self.columns):
            return points.nan_to_num()
        parts = []
        for index, column in enumerate(self.columns):
            values = points[..., index]
            if column.kind == "category":
                parts.append(nn.functional.one_hot(values.long(), column.size).to(points.dtype))
            else:
                parts.append(values.nan_to_num().unsqueeze(-1))
        return torch.cat(parts, dim=-1)

    def predict(self, batch: Batch, *, int8: bool = False) -> Distribution:
        """Return the distribution, over normalised units, of each point of `batch` given those before it.

        The encoder's products are in int8 if `int8`; this takes `torch.no_grad()` and an encoder that has them.
        """
        return self._distribution(self.encoded(batch, int8=int8))

    def encoded(self, batch: Batch, *, int8: bool = False) -> Encoded:
        """Return what the encoder makes, before each point of `batch`, of those before it; `int8` as in `predict`."""
        context, lengths = self.context(batch), batch.lengths
        start = self.encoder.start(lengths.shape[0], context)
        return self._encode(self._seen(batch.points), lengths, start, context, int8)

    def pieces(self, batch: Batch, steps: int) -> Iterator[Loss]:
        """The loss of `batch`, up to `steps` points of each record at a time, from which no gradient goes further back.

        Truncated back-propagation through time: the encoder goes on from its state after the piece before, detached.
        Once a piece is differentiated, nothing but that state is left of it in memory.
        """
        context = self.context(batch)
        state = self.encoder.start(batch.lengths.shape[0], context)
        along = (self._seen(batch.points), self.normalise(batch.points), batch.valid)
        for seen, targets, valid in zip(*(each.split(steps, dim=1) for each in along), strict=True):
            loss, state = self._piece(seen, targets, valid, state, context)
            yield loss

    def _piece(
        self, seen: Tensor, targets: Tensor, valid: Tensor, state: State, context: Context | None
    ) -> tuple[Loss, State]:
        encoded = self._encode(seen, valid.sum(dim=1), state, context)
        after = {name: value.detach() for name, value in encoded.state.items()}
        return Loss.of(self._distribution(encoded), targets, valid), after

    def _seen(self, points: Tensor) -> Tensor:
        """What the encoder sees (B, T, F) before each of raw points (B, T, D): the one before, or zeros."""
        inputs = self.inputs(self.normalise(points))
        return torch.cat([torch.zeros_like(inputs[:, :1]), inputs[:, :-1]], dim=1)

    def _encode(
        self, inputs: Tensor, lengths: Tensor, state: State, context: Context | None, int8: bool = False
    ) -> Encoded:
        encoded = apply_encoder(self.encoder, inputs, lengths, state, context, int8=int8)
        self._check_returned("encoder", encoded, Encoded)
        return encoded

    def _distribution(self, encoded: Encoded) -> Distribution:
        distribution = self.head(encoded.features)
        self._check_returned("head", distribution, Distribution)
        return distribution

    def context(self, batch: Batch) -> Context | None:
        """The texts of `batch`, in the model's own `characters`; None for a model that takes none."""
        return Context(batch.text, batch.text_lengths) if self.encoder.takes_text else None

    def _check_returned(self, part: str, returned: Any, wanted: type) -> None:
        if not isinstance(returned, wanted):
            name, owner = self.components[part].name, self.components[part].provider.owner
            raise SeqdensError(
                f"forward of {name!r} ({owner}) returns {type(returned).__name__}, but must return {wanted.__name__}."
            )

    def forward(self, batch: Batch) -> Loss:
        """The loss of each point of `batch`, in nats and normalised units."""
        return Loss.of(self.predict(batch), self.normalise(batch.points), batch.valid)

    def log_prob(self, batch: Batch, units: Units = "normalised") -> Tensor:
        """Log-likelihood (B, T) in nats per point, zero in the padding; "raw" is a density over raw units."""
        if units not in get_args(Units):
            raise UsageError(f"units is {units!r}, but must be 'normalised' or 'raw'.")
        log_prob = -self(batch).nats
        return log_prob if units == "normalised" else log_prob - self.log_scale(batch)

    def log_scale(self, batch: Batch) -> Tensor:
        """By how many nats (B, T) a point's loss is higher in raw units: log std of its real values, no missing one."""
        present = ~batch.points.isnan() & batch.valid.unsqueeze(-1)
        return (present * self.scale.log()).sum(-1)

    def sample(
        self,
        count: int = 1,
        *,
        steps: int | None = None,
        text: str | Sequence[str] | None = None,
        prime: np.ndarray | None = None,
        prime_text: str | None = None,
        unknown: Unknown = "error",
        bias: float = 0.0,
        seed: int | None = None,
        precision: Precision = "float32",
    ) -> list[np.ndarray]:
        """`count` drawn sequences of raw offsets (T, D) float32, T at most `steps`; arguments as for `stream`.

        >>> import seqdens
        >>> data = seqdens.load("hershey", lines=6, writers=3)
        >>> encoder, head = seqdens.encoder("stacked-lstm", hidden_size=4), seqdens.head("gmm-bernoulli")
        >>> model = SequenceModel.for_data(data, encoder, head)
        >>> [record.shape for record in model.sample(2, steps=10, prime=data.offsets(0), seed=1)]
        [(10, 3), (10, 3)]
        """
        points = self.stream(
            count,
            steps=steps,
            text=text,
            prime=prime,
            prime_text=prime_text,
            unknown=unknown,
            bias=bias,
            seed=seed,
            precision=precision,
        )
        return gather(points)

    def stream(
        self,
        count: int = 1,
        *,
        steps: int | None = None,
        text: str | Sequence[str] | None = None,
        prime: np.ndarray | None = None,
        prime_text: str | None = None,
        unknown: Unknown = "error",
        bias: float = 0.0,
        seed: int | None = None,
        precision: Precision = "float32",
    ) -> Iterator[np.ndarray]:
        """The same points as `sample`, one step at a time: raw (count, D), NaN rows once a record has ended.

        A record ends at `steps` (None: 700, or as many as the text may need), after a point whose `sequence_end` is 1,
        or when the encoder is finished. `prime` (T, D) are raw offsets taken as read first; `bias` >= 0 trades variety
        for neatness. A model that takes text writes `text`, one for all records or one for each, after `prime_text`,
        which is what was written in `prime`; characters that it does not know are treated by `unknown` as in
        `text.writable`. A draw is a function of (seed, record, step): its neighbours do not change it. `precision` is
        that of the encoder's products. Raises `UsageError`.
        """
        check_arguments(count, 1 if steps is None else steps, bias, seed)
        check_precision(self, precision)
        primer = None if prime is None else check_prime(self, prime)
        context = self._to_write(count, text, prime_text, primer is not None, unknown)
        if steps is None:
            steps = max(map(steps_for, [text] if isinstance(text, str) else text)) if text else STEPS
        seed = secrets.randbits(32) if seed is None else seed
        return draw_points(self, count, steps, primer, bias, seed, precision, context)

    def _to_write(
        self, count: int, text: str | Sequence[str] | None, prime_text: str | None, primed: bool, unknown: Unknown
    ) -> Context | None:
        """What `count` records are to write, after a space where they go on; None for a model that takes no text."""
        encoder = self.components["encoder"].name
        if not self.encoder.takes_text:
            if text is not None or prime_text is not None:
                raise UsageError(
                    f"the model's encoder {encoder} takes no text: leave it out, or train experiment synthesis."
                )
            return None
        if text is None:
            raise UsageError(f"the model's encoder {encoder} writes a text: say which.")
        if primed != (prime_text is not None):
            raise UsageError("a prime and the text that was written in it belong together: give both, or neither.")
        texts = [text] * count if isinstance(text, str) else list(text)
        if len(texts) != count:
            raise UsageError(f"there are {len(texts)} texts for {count} records: give one for all, or one for each.")
        texts = [writable(each, self.alphabet, unknown) for each in texts]
        if prime_text is not None:
            before = continued(writable(prime_text, self.alphabet, unknown), self.alphabet)
            texts = [before + each for each in texts]
        ids, lengths = encode(texts, self.alphabet)
        return Context(*(torch.from_numpy(each).to(self.device) for each in (ids, lengths)))

    def save(self, path: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write weights and all that is needed to build the model again (safetensors: nothing in it can run).

        `dtype`, such as torch.float16 for half the size, is that of the weights in the file. Raises `UsageError` where
        one of them is beyond its range.
        """
        described = {
            "columns": self.columns,
            "mean": self.mean,
            "std": self.std,
            "alphabet": self.alphabet,
            "origin": self.origin,
        } | {
            part: {"options": component.describe(), "provider": component.provider.owner}
            for part, component in self.components.items()
        }
        contiguous = torch.contiguous_format  # copies: safetensors refuses weights that share memory
        weights = {name: value.cpu().clone(memory_format=contiguous) for name, value in self.state_dict().items()}
        if dtype is not None:
            weights = {name: _in_dtype(name, value, dtype) for name, value in weights.items()}
        write_weights(Path(path), described, weights)

    @classmethod
    def load(cls, path: str | Path) -> SequenceModel:
        """The model of a weights file, or of a run folder's best weights.

        Raises `DataError` for a file that is no such model, and names the package where a component is missing.
        """
        path = Path(path)
        if path.is_dir():
            path, last = path / "best.safetensors", path / "last.safetensors"
            if last.exists() and not path.exists():
                raise DataError(f"no epoch of {path.parent} has ended, so there are no best weights yet; name {last}.")
        described, weights = read_weights(path)
        try:
            about = msgspec.convert(described, _Described)
            check_columns("it", about.columns)
            check_scaling(about.mean, about.std)
            with Limited(weights):
                model = cls(
                    about.columns,
                    _component(path, "encoder", about.encoder),
                    _component(path, "head", about.head),
                    mean=about.mean,
                    std=about.std,
                    alphabet=about.alphabet,
                    origin=about.origin,
                )
            model.load_state_dict(weights)
            for name, weight in model.named_parameters():
                if not weight.isfinite().all():
                    raise ValueError(f"its {name} is not finite")
        except (KeyError, TypeError, ValueError, RuntimeError, UsageError, TooLarge) as error:
            raise DataError(f"{path} does not hold the model that it describes ({one_line(error)}).") from None
        return model


class _Described(msgspec.Struct):
    """What a weights file says of its model."""

    columns: tuple[Column, ...]
    mean: list[float]
    std: list[float]
    alphabet: str
    origin: dict[str, str | bool]
    encoder: dict[str, Any]
    head: dict[str, Any]


def plain(model: SequenceModel) -> SequenceModel:
    """Return the model that `torch.compile` wrapped, or the model itself if it is not wrapped.

    Raises `UsageError` if neither is a `SequenceModel`.
    """
    if isinstance(model, SequenceModel):
        return model
    wrapped = getattr(model, "_orig_mod", None)
    if wrapped is None:
        given = type(model).__name__
        raise UsageError(f"the model is a {given}, but must be a SequenceModel, or torch.compile of one: give that.")
    return plain(wrapped)


def takes_text(encoder: Component) -> bool:
    """Whether models of that encoder are conditioned on texts."""
    return bool(getattr(encoder.provider.load(), "takes_text", False))


def check_texts(data: Prepared, encoder: Component) -> None:
    """Raises `UsageError` where the encoder takes text and there is none, `DataError` where records lack theirs."""
    if not takes_text(encoder):
        return
    name, kind = data.provenance.dataset, data.provenance.record_name
    if not data.alphabet:
        raise UsageError(f"{name} has no texts, but encoder {encoder.name} learns to write them; choose another.")
    missing = data.texts.empty()
    if len(missing):
        raise DataError(
            f"{len(missing):,} of {len(data):,} {kind}s of {name} have no text, such as {data.ids[missing[0]]}, but "
            f"encoder {encoder.name} needs one of each: add them, or take these {kind}s out."
        )


def _in_dtype(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights in that dtype, whole numbers as they are; raises `UsageError` for what is beyond its range."""
    converted = value.to(dtype) if value.is_floating_point() else value
    if (converted.isinf() & value.isfinite()).any():
        raise UsageError(f"{name} has values beyond the range of {dtype}; save in another dtype.")
    return converted


def _size(component: Component, module: nn.Module, name: str) -> int:
    """That number of what `component` built; raises `SeqdensError` naming its owner where it is not set."""
    size = getattr(module, name, None)
    if not isinstance(size, int):
        owner = f"{component.name!r} of {component.kind} ({component.provider.owner})"
        raise SeqdensError(f"{owner} has {name} {size!r}, but its constructor must set it to a whole number.")
    return size


def _component(path: Path, part: str, described: dict[str, Any]) -> Component:
    options = dict(described["options"])
    name = options.pop("name")
    try:
        return getattr(components, part)(name, **options)
    except UsageError as error:
        raise DataError(f"{path} needs the {part} {name!r} of {described['provider']}: {error}") from None
