"""How fast the network that reads a text is, compiled against plain torch: training, and lines drawn.

Training is forward and backward of the encoder alone, 32 lines of 600 points with texts of 30 characters of 80. What is
drawn are lines of 200 points, one and 32 at once, whose texts are too long to be finished. The two implementations have
equal weights, and before anything is timed their features must agree.

`python tests/benchmarks/bench_window.py [ROUNDS]`
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from comparing import command_line, compare, machine, report, report_ratio, sized

import seqdens
from seqdens.encoders.window_lstm import WindowLSTM

BATCH, STEPS, DRAWN = sized((32, 600, 200), (2, 20, 10))
LETTERS, ALPHABET = 30, 80
NETWORKS = ((256, 1), (400, 1), (400, 3))  # cells of a layer, layers
PRECISIONS = ("float32", "bf16")
IMPLEMENTATIONS = ("reference", "cpu")


def texts(lines: int) -> seqdens.Context:
    generator = torch.Generator().manual_seed(0)
    return seqdens.Context(
        torch.randint(ALPHABET, (lines, LETTERS), generator=generator), torch.full((lines,), LETTERS)
    )


def encoder(cells: int, layers: int, recurrence: str) -> WindowLSTM:
    torch.manual_seed(0)
    return WindowLSTM(3, ALPHABET, hidden_size=cells, layers=layers, recurrence=recurrence)


def train(encoder: WindowLSTM, precision: str) -> torch.Tensor:
    """Features of a batch; the gradients are found as well."""
    inputs = torch.randn(BATCH, STEPS, 3, generator=torch.Generator().manual_seed(0))
    text, lengths = texts(BATCH), torch.full((BATCH,), STEPS)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        features = encoder(inputs, lengths, encoder.start(BATCH, text), text).features
    encoder.zero_grad(set_to_none=True)
    features.backward(torch.ones_like(features))
    return features.detach().float()


def model(cells: int, layers: int, recurrence: str) -> seqdens.SequenceModel:
    torch.manual_seed(0)
    parts = (
        seqdens.encoder("window-lstm", hidden_size=cells, layers=layers, recurrence=recurrence),
        seqdens.head("gmm-bernoulli", components=20),
    )
    columns = (seqdens.X, seqdens.Y, seqdens.STROKE_END)
    alphabet = "".join(map(chr, range(ord("0"), ord("0") + ALPHABET)))
    return seqdens.SequenceModel(columns, *parts, mean=[0, 0], std=[1, 1], alphabet=alphabet)


def draw(model: seqdens.SequenceModel, lines: int, precision: str) -> None:
    text = model.alphabet[:LETTERS]
    drawn = model.sample(lines, steps=DRAWN, seed=0, precision=precision, text=text)
    assert {len(line) for line in drawn} == {DRAWN}


def compared(sides: dict[str, Callable[[], object]], rounds: int, points: int, what: str) -> None:
    taken = compare(sides, rounds, warm_up=1)
    print(what)
    report(taken, points, "points")
    report_ratio("cpu against reference", taken["cpu"], taken["reference"], 1.0)


def main(rounds: int = 3) -> None:
    print(f"The network that reads a text, {machine()}, {rounds} rounds")
    for cells, layers in NETWORKS:
        for precision in PRECISIONS:
            encoders = {name: encoder(cells, layers, name) for name in IMPLEMENTATIONS}
            features = [train(each, precision) for each in encoders.values()]
            assert (features[0] - features[1]).norm() < 0.05 * features[0].norm()
            sides = {name: partial(train, each, precision) for name, each in encoders.items()}
            compared(sides, rounds, BATCH * STEPS, f"training, {cells} x {layers}, {precision}")
    for precision in PRECISIONS:
        models = {name: model(*NETWORKS[-1], name) for name in IMPLEMENTATIONS}
        for lines in (1, BATCH):
            sides = {name: partial(draw, each, lines, precision) for name, each in models.items()}
            cells, layers = NETWORKS[-1]
            compared(sides, rounds, lines * DRAWN, f"{lines} line(s) drawn, {cells} x {layers}, {precision}")


if __name__ == "__main__":
    command_line(main, partial(main, rounds=2))
