"""The compiled operations as operators that torch knows: compiled as one graph, exported, differentiated once."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seqdens
from seqdens.batches import Batch
from seqdens.encoders.recurrence import operators
from seqdens.heads import fused

# torch warns of itself, of how it traces `autograd.Function` and of its own tree specifications
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

DTYPES = [torch.float32, torch.bfloat16]
ENCODERS = ["stacked-lstm", "window-lstm"]


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape).requires_grad_()


def layer(steps: int = 4, batch: int = 3, width: int = 5, size: int = 7, read: int = 0) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = (steps, batch, width), (4 * size, width + read), (4 * size, size), (3, size), (4 * size,)
    return [draw(*shape) for shape in (*shapes, (batch, size), (batch, size))]


def window(read: int = 6, components: int = 2, places: int = 5) -> list[Tensor]:
    *weights, h0, c0 = layer(read=read)
    batch, size = h0.shape
    more = [draw(3 * components, size), draw(3 * components)]
    first = [draw(batch, read), draw(batch, components)]
    return [*weights, *more, h0, c0, *first, torch.randint(read + 1, (batch, places))]


def detached(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [each.detach() for each in tensors]


def without_bias(given: list[Tensor]) -> list[Tensor]:
    """Return what backward is given of the arguments of a layer."""
    return given[:4] + given[5:]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_layer_is_an_operator(implementation: str, dtype: torch.dtype) -> None:
    torch.library.opcheck(operators.peephole_lstm, (*layer(), 0.5, dtype, implementation))


@pytest.mark.parametrize("wants_inputs", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_derivatives_of_the_layer_are_an_operator(
    implementation: str, dtype: torch.dtype, wants_inputs: bool
) -> None:
    given = detached(layer())
    hidden, cells, activations = operators.peephole_lstm(*given, 0.5, dtype, implementation)
    saved = *without_bias(given), hidden, cells, activations
    for incoming in (hidden, cells), (None, cells), (hidden, None):
        options = 0.5, dtype, implementation, wants_inputs
        torch.library.opcheck(operators.peephole_lstm_backward, (*incoming, *saved, *options))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_layer_that_reads_is_an_operator(implementation: str, dtype: torch.dtype) -> None:
    torch.library.opcheck(operators.window_lstm, (*window(), 0.5, 0.5, dtype, implementation))


@pytest.mark.parametrize("wants_inputs", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_derivatives_of_the_layer_that_reads_are_an_operator(
    implementation: str, dtype: torch.dtype, wants_inputs: bool
) -> None:
    given = detached(window())
    hidden, cells, read, kappa, _, *kept = operators.window_lstm(*given, 0.5, 0.5, dtype, implementation)
    saved = *without_bias(given), hidden, cells, read, kappa, *kept
    for incoming in (hidden, cells, read, kappa), (hidden, None, None, None):
        options = 0.5, 0.5, dtype, implementation, wants_inputs
        torch.library.opcheck(operators.window_lstm_backward, (*incoming, *saved, *options))


@pytest.mark.usefixtures("level")
def test_the_mixture_is_an_operator() -> None:
    torch.manual_seed(0)
    parts = draw(2, 3, 5), draw(2, 3, 2, 5), draw(2, 3, 2, 5), draw(2, 3, 1, 5)
    torch.library.opcheck(fused.mixture, (torch.randn(2, 3, 2), *parts))
    torch.library.opcheck(fused.mixture_backward, (torch.randn(2, 3), torch.randn(2, 3, 2), *detached(parts)))
    drawn = (torch.randn(2, 3, 31), torch.rand(2, 3, 4), [0, 1, 2], 5, 0.3)
    torch.library.opcheck(fused.mixture_draw, drawn)


def test_no_layer_is_differentiated_twice(implementation: str) -> None:
    given, reading = layer(), window()
    hidden = operators.peephole_lstm(*given, 0.0, torch.float32, implementation)[0]
    assert_once_differentiable(hidden, given[0])
    read = operators.window_lstm(*reading, 0.0, 0.0, torch.float32, implementation)[2]
    assert_once_differentiable(read, reading[0])


@pytest.mark.usefixtures("library")
def test_no_mixture_is_differentiated_twice() -> None:
    parts = draw(2, 5), draw(2, 2, 5), draw(2, 2, 5), draw(2, 1, 5)
    assert_once_differentiable(fused.mixture(torch.randn(2, 2), *parts), parts[1])


def assert_once_differentiable(found: Tensor, given: Tensor) -> None:
    (gradient,) = torch.autograd.grad(found.square().sum(), given, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        gradient.sum().backward()


def model(encoder: str, recurrence: str) -> seqdens.SequenceModel:
    torch.manual_seed(0)
    parts = (
        seqdens.encoder(encoder, hidden_size=20, layers=2, recurrence=recurrence),
        seqdens.head("gmm-bernoulli", components=4),
    )
    columns = (seqdens.X, seqdens.Y, seqdens.STROKE_END)
    return seqdens.SequenceModel(columns, *parts, mean=[0, 0], std=[1, 1], alphabet="abcde")


def batch(records: int = 3, steps: int = 9, text: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(records + steps)
    points = torch.randn(records, steps, 3, generator=generator)
    points[..., 2] = (points[..., 2] > 1).float()
    lengths = torch.randint(1, steps + 1, (records,), generator=generator)
    lengths[0] = steps
    ids = torch.randint(5, (records, text), generator=generator)
    return Batch(points, lengths, ids, torch.full((records,), text), torch.arange(records))


def loss_and_gradients(model: Any, parameters: list[nn.Parameter], given: Batch, dtype: torch.dtype) -> list[Tensor]:
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = model(given).nats.sum()
    return [loss.detach(), *torch.autograd.grad(loss, parameters)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_model_is_compiled_as_one_graph(encoder: str, implementation: str, dtype: torch.dtype) -> None:
    torch._dynamo.reset()
    plain = model(encoder, implementation)
    compiled = torch.compile(plain, fullgraph=True, backend="aot_eager")
    found, wanted = (loss_and_gradients(each, [*plain.parameters()], batch(), dtype) for each in (compiled, plain))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


class Losses(nn.Module):
    """A model as a function of tensors alone."""

    def __init__(self, model: seqdens.SequenceModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *given: Tensor) -> Tensor:
        nats: Tensor = self.model(Batch(*given)).nats
        return nats


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_whole_pass_is_exported_for_batches_of_any_size(encoder: str, implementation: str, tmp_path: Path) -> None:
    plain = model(encoder, implementation)
    records, steps = torch.export.Dim("records"), torch.export.Dim("steps", min=3)
    of_records = {0: records}
    sizes = (
        {0: records, 1: steps},
        of_records,
        {0: records, 1: torch.export.Dim("characters")},
        of_records,
        of_records,
    )
    exported = torch.export.export(Losses(plain), tuple(batch()), dynamic_shapes=(sizes,))
    torch.export.save(exported, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    for given in (batch(5, 17, 4), batch(2, 30, 9)):
        torch.testing.assert_close(loaded(*given), plain(given).nats, rtol=1e-4, atol=1e-4)


def test_a_compiled_graph_makes_the_loss_of_a_missing_value_nan() -> None:
    torch._dynamo.reset()
    given = batch()
    given.points[0, 2, 1] = torch.nan
    compiled = torch.compile(model("stacked-lstm", "auto"), fullgraph=True, backend="aot_eager")
    nats = compiled(given).nats
    assert nats[0, 2].isnan()
    assert nats[1:].isfinite().all()
