"""Writing as a whole, the network, stopping, priming and coverage, held to the paper's equations in float64.

H cells of a layer, U characters of the text, K Gaussians of the window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pytest

from seqdens import writing
from seqdens.model import SequenceModel
from seqdens.sampling import gather
from seqdens.styles import Style
from seqdens.writing import attention, batch_of

PRIME = np.array([[4, 0, 0], [30, 20, 0], [-9, 14, 1], [5, 8, 0], [7, 40, 1]], np.float32)


class Step(NamedTuple):
    features: np.ndarray  # (L*H,)
    phi: np.ndarray  # (U,)
    finished: bool

    @property
    def shares(self) -> np.ndarray:
        return self.phi / self.phi.sum()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def transcribed(model: SequenceModel, text: str, points: np.ndarray) -> Iterator[Step]:
    """Graves 2013, Eqs 7-11 and 46-52, at the step before each of the raw points (T, 3), and at the one after all."""
    weights = {name: value.double().numpy() for name, value in model.encoder.state_dict().items()}
    layers = sorted({name.split(".")[1] for name in weights if name.startswith("layers")})
    size = weights["layers.0.recurrent_weight"].shape[1]
    hidden, cell = np.zeros((len(layers), size)), np.zeros((len(layers), size))
    kappa, window = np.zeros(len(weights["window.bias"]) // 3), np.zeros(len(model.alphabet))
    scaled = (points - model.shift.double().numpy()) / model.scale.double().numpy()
    for x in np.concatenate([np.zeros((1, 3)), scaled]):
        for number, layer in enumerate(layers):
            seen = [x, window] + [hidden[number - 1]] * (number > 0)
            own = [
                weights[f"layers.{layer}.{name}"] for name in ("input_weight", "recurrent_weight", "bias", "peepholes")
            ]
            z = own[0] @ np.concatenate(seen) + own[1] @ hidden[number] + own[2]
            z_i, z_f, z_g, z_o = np.split(z, 4)
            i, f = sigmoid(z_i + own[3][0] * cell[number]), sigmoid(z_f + own[3][1] * cell[number])
            cell[number] = f * cell[number] + i * np.tanh(z_g)
            hidden[number] = sigmoid(z_o + own[3][2] * cell[number]) * np.tanh(cell[number])
            if number == 0:
                alpha, beta, advance = np.split(
                    np.exp(weights["window.weight"] @ hidden[0] + weights["window.bias"]), 3
                )
                kappa = kappa + advance
                phi = np.array([(alpha * np.exp(-beta * (kappa - u) ** 2)).sum() for u in range(1, len(text) + 2)])
                window = np.zeros(len(model.alphabet))
                for weight, character in zip(phi, text, strict=False):
                    window[model.alphabet.index(character)] += weight
        yield Step(hidden.flatten(), phi[:-1], bool((phi[-1] > phi[:-1]).all()))


@pytest.mark.parametrize("prime_text", ["", "bad c"])
def test_a_line_is_drawn_and_ends_as_the_equations_say(writer: SequenceModel, prime_text: str) -> None:
    primer = PRIME if prime_text else PRIME[:0]
    prime = {"prime": PRIME, "prime_text": prime_text} if prime_text else {}
    (record,) = writer.sample(1, text="cab", bias=2, seed=6, **prime)
    read = np.concatenate([primer, record])
    text = f"{prime_text} cab" if prime_text else "cab"
    *steps, _ = transcribed(writer, text, read)
    assert [step.finished for step in steps[len(primer) :]] == [False] * (len(record) - 1) + [True]
    (shares,) = attention(writer, ["cab"], [record], Style(PRIME, prime_text) if prime_text else None)
    np.testing.assert_allclose(shares, [step.shares for step in steps[len(primer) :]], atol=1e-5)
    encoded = writer.double().encoded(batch_of([text], [read], writer))
    np.testing.assert_allclose(encoded.features[0].detach(), [step.features for step in steps], rtol=0, atol=1e-12)
    np.testing.assert_allclose(encoded.extras["window"][0].detach(), [step.phi for step in steps], rtol=0, atol=1e-12)


def test_coverage_is_the_sum_of_the_window_s_shares(writer: SequenceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[np.ndarray] = []

    def kept(points: Iterable[np.ndarray]) -> list[np.ndarray]:
        drawn.extend(gather(points))
        return drawn

    monkeypatch.setattr(writing, "gather", kept)
    lines = writing.write("cab\nd", writer, style=Style(PRIME, "bad c"), seed=3, tries=1).lines
    for line, record in zip(lines, drawn, strict=True):
        *steps, _ = transcribed(writer, f"bad c {line.text}", np.concatenate([PRIME, record]))
        shares = np.sum([step.shares for step in steps[len(PRIME) :]], axis=0)
        np.testing.assert_allclose(line.written, shares[-len(line.text) :], atol=1e-4)
