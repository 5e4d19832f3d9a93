"""A step of sampling as one module, for `torch.export`, and as an ONNX file, for other programs.

B records, D columns of a point, F inputs of a step, U characters of the longest text, T = 1 steps.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seqdens.encoders.base import Context, State
from seqdens.encoders.recurrence import operators, window
from seqdens.errors import UsageError
from seqdens.files import replacing
from seqdens.heads import fused
from seqdens.model import SequenceModel, plain
from seqdens.registry import one_line
from seqdens.sampling import check_arguments, evaluating

if TYPE_CHECKING:
    import onnx

AXES = ("records", "characters")  # names of the sizes that an exported step leaves open, by their place in a shape


class SamplingStep(nn.Module):
    """One step of `SequenceModel.sample` as a function of tensors alone.

    Raises `UsageError` for a negative `bias`.

    >>> import seqdens, torch
    >>> data = seqdens.load("hershey", lines=6, writers=3)
    >>> encoder, head = seqdens.encoder("stacked-lstm", hidden_size=4), seqdens.head("gmm-bernoulli")
    >>> model = seqdens.SequenceModel.for_data(data, encoder, head)
    >>> step, seen, state = SamplingStep(model), *SamplingStep(model).start(2)
    >>> point, seen, state, finished = step(seen, torch.rand(2, model.head.noise_size), state)
    >>> point.shape, finished
    (torch.Size([2, 3]), tensor([False, False]))
    """

    def __init__(self, model: SequenceModel, bias: float = 0.0) -> None:
        super().__init__()
        check_arguments(1, 1, bias, None)
        self.model, self.bias = plain(model), float(bias)
        self.ends = [at for at, column in enumerate(self.model.columns) if column.role == "sequence_end"]

    def start(self, count: int = 1, context: Context | None = None) -> tuple[Tensor, State]:
        """Return what the encoder sees (B, F) before the first point, and the state, of `count` records."""
        return self.model.shift.new_zeros(count, self.model.input_size), self.model.encoder.start(count, context)

    def forward(
        self,
        seen: Tensor,
        noise: Tensor,
        state: State,
        text: Tensor | None = None,
        text_lengths: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, State, Tensor]:
        """Return the next point (B, D) in raw units, what to see next (B, F), the state, and (B,) who has finished.

        `noise` (B, noise_size) is uniform in [0, 1). An encoder that takes text is given `text` (B, U), indices into
        the model's alphabet, and `text_lengths` (B,).
        """
        context = None if text is None or text_lengths is None else Context(text, text_lengths)
        lengths = torch.ones_like(seen[:, 0], dtype=torch.long)
        encoded = self.model.encoder(seen.unsqueeze(1), lengths, state, context)
        point = self.model.head.sample(encoded.features, noise.unsqueeze(1), self.bias).squeeze(1)
        finished = self.model.encoder.finished(encoded.state, context)
        if self.ends:
            finished = finished | (point[:, self.ends] > 0.5).any(dim=1)
        return self.model.shift + self.model.scale * point, self.model.inputs(point), encoded.state, finished


def export_onnx(model: SequenceModel, path: str | Path, *, bias: float = 0.0) -> None:
    """Write `SamplingStep(model, bias)` as an ONNX file for any number of records, in float32.

    Its inputs are `seen`, `noise`, the encoder's state by name, and `text` and `text_lengths` if the encoder takes
    text. Its outputs are `point`, `next_seen`, `next_` and the name of each part of the state, and `finished`. Its
    properties are `columns`, the names of a point's columns in JSON, `alphabet`, and `bias`. Raises `UsageError` if the
    packages of the extra `onnx` are missing, if the model is not of float32 on a CPU, or if it cannot be exported.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401, which torch.onnx needs
    except ImportError as error:
        raise UsageError(f'an ONNX file needs {error.name}, which is missing: pip install "seqdens[onnx]".') from error
    if (model.device.type, model.shift.dtype) != ("cpu", torch.float32):
        raise UsageError(f"the model is {model.shift.dtype} on {model.device}, but must be float32 on cpu.")
    names = [*SamplingStep(model, bias).start()[1]]
    texts = ["text", "text_lengths"] if model.encoder.takes_text else []
    step = exported_step(model, bias)
    with _quiet(), _refusing(model):
        exported: Any = torch.onnx.export(
            step,
            dynamo=True,
            input_names=["seen", "noise", *names, *texts],
            output_names=["point", "next_seen", *(f"next_{name}" for name in names), "finished"],
            verbose=False,
        )
        written = exported.model_proto
    _leave_out_sources(written.graph)
    _name_axes(written.graph)
    about = {"columns": json.dumps([column.name for column in model.columns]), "alphabet": model.characters or ""}
    onnx.helper.set_model_props(written, about | {"bias": str(float(bias))})
    with replacing(path) as temporary:
        onnx.save(written, temporary)


def _leave_out_sources(graph: onnx.GraphProto) -> None:
    """Delete torch's notes on where each node is from, which name folders of this machine."""
    del graph.value_info[:]
    for each in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del each.metadata_props[:]


def _name_axes(graph: onnx.GraphProto) -> None:
    """Give the sizes that are open the names in `AXES`."""
    for value in (*graph.input, *graph.output):
        for at, size in enumerate(value.type.tensor_type.shape.dim):
            if size.dim_param:
                size.dim_param = AXES[at]


def exported_step(model: SequenceModel, bias: float = 0.0) -> torch.export.ExportedProgram:
    """Return `SamplingStep(model, bias)` as `torch.export` gives it, for any number of records and length of texts.

    It has operators of torch alone, so that what loads it needs no seqdens. Raises `UsageError` if torch cannot export
    the encoder or the head, or if a step changes the size of the encoder's state.
    """
    step, count = SamplingStep(model, bias), 2  # any number above 1
    new, encoder = step.model.shift.new_full, step.model.encoder
    context = Context(new((count, 2), 0, dtype=torch.long), new((count,), 2, dtype=torch.long))
    text = context if encoder.takes_text else ()
    of_records, of_text = ({at: torch.export.Dim(name) for at, name in enumerate(AXES[:size])} for size in (1, 2))
    of_texts = (of_text, of_records) if encoder.takes_text else ()
    with torch.no_grad(), evaluating([*step.modules()]), _ordinary_draws(), _quiet(), _refusing(model):
        seen, state = step.start(count, context if encoder.takes_text else None)
        given = seen, new((count, step.model.head.noise_size), 0.5), state, *text
        _check_sizes(step, state, step(*given)[2])
        shapes = of_records, of_records, dict.fromkeys(state, of_records), *of_texts
        return torch.export.export(step, given, dynamic_shapes=shapes).run_decompositions(PLAIN)


def _check_sizes(step: SamplingStep, before: State, after: State) -> None:
    """Raises `UsageError` if a part of the state has another size after a step."""
    for name, value in before.items():
        if after[name].shape != value.shape:
            encoder, sizes = step.model.components["encoder"].name, [tuple(each.shape) for each in (value, after[name])]
            raise UsageError(
                f"a step of encoder {encoder!r} changes the size of its state {name!r} from {sizes[0]} to {sizes[1]}, "
                "but can be exported only if it stays the same: take another encoder."
            )


@contextmanager
def _refusing(model: SequenceModel) -> Iterator[None]:
    """Raises `UsageError` with the reason if torch cannot export what the block does."""
    try:
        yield
    except RuntimeError as error:
        encoder, head = (model.components[part].name for part in ("encoder", "head"))
        reason = one_line(error).partition(". ")[0].rstrip(".")
        raise UsageError(f"a step of encoder {encoder!r} and head {head!r} cannot be exported: {reason}.") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what torch says of itself within the block: what it deprecates, and what it does without."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


@contextmanager
def _ordinary_draws() -> Iterator[None]:
    """Have points drawn by ordinary operations within the block: other programs do not know the operator."""
    before, fused.enabled = fused.enabled, False
    try:
        yield
    finally:
        fused.enabled = before


def _lstm_step(inputs: Tensor, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Do what `operators.peephole_lstm` does, for T = 1 and without changing anything in place."""
    input_weight, recurrent_weight, peepholes, bias, h0, c0 = given[:6]
    z = nn.functional.linear(inputs[0], input_weight, bias) + nn.functional.linear(h0, recurrent_weight)
    i, f, g, o, c, h = _cell(z, c0, peepholes)
    return h.unsqueeze(0), c.unsqueeze(0), torch.cat((i, f, g, o), dim=1).unsqueeze(0)


def _window_step(inputs: Tensor, *given: Any) -> tuple[Tensor, ...]:
    """Do what `operators.window_lstm` does, for T = 1 and without changing anything in place."""
    input_weight, recurrent_weight, peepholes, bias, window_weight, window_bias, h0, c0, w0, kappa0, text = given[:11]
    seen = torch.cat((inputs[0], w0), dim=1)
    z = nn.functional.linear(seen, input_weight, bias) + nn.functional.linear(h0, recurrent_weight)
    i, f, g, o, c, h = _cell(z, c0, peepholes)
    moves = nn.functional.linear(h, window_weight, window_bias).exp()
    a, b, k = moves.chunk(3, dim=1)
    kappa, places = kappa0 + k, torch.arange(1, text.shape[1] + 1, dtype=h.dtype, device=h.device)
    phi = (a.unsqueeze(2) * (-b.unsqueeze(2) * (kappa.unsqueeze(2) - places).square()).exp()).sum(1)
    read = (phi.unsqueeze(2) * window.one_hot(text, w0)).sum(1)
    found = h, c, read, kappa, phi, torch.cat((i, f, g, o), dim=1), moves
    return tuple(each.unsqueeze(0) for each in found)


def _cell(z: Tensor, before: Tensor, peepholes: Tensor) -> tuple[Tensor, ...]:
    """Return i, f, g, o, cell and hidden states of pre-activations without peepholes: the equations of `reference`."""
    z_i, z_f, z_g, z_o = z.chunk(4, dim=1)
    i, f, g = (z_i + peepholes[0] * before).sigmoid(), (z_f + peepholes[1] * before).sigmoid(), z_g.tanh()
    c = f * before + i * g
    o = (z_o + peepholes[2] * c).sigmoid()
    return i, f, g, o, c, o * c.tanh()


def _erfinv(y: Tensor) -> Tensor:
    """Return the inverse of the error function, within 1e-6 (M. Giles, Approximating the erfinv function, 2011)."""
    w = -((1 - y) * (1 + y)).log()
    near = _polynomial(w - 2.5, NEAR)
    far = _polynomial(w.clamp(min=5).sqrt() - 3, FAR)
    return y * torch.where(w < 5, near, far)


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    total = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total


NEAR = (
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
)
FAR = (
    -0.000200214257,
    0.000100950558,
    0.00134934322,
    -0.00367342844,
    0.00573950773,
    -0.0076224613,
    0.00943887047,
    1.00167406,
    2.83297682,
)
PLAIN: dict[Any, Callable[..., Any]] = {  # operators that torch alone, or ONNX, does not know
    operators.peephole_lstm._opoverload: _lstm_step,
    operators.window_lstm._opoverload: _window_step,
    torch.ops.aten.erfinv.default: _erfinv,
}
