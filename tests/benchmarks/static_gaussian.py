"""The likelihood to beat: one Gaussian over all real columns, one probability for each binary column.

Fitted on the training offsets, scored on the validation offsets, in nats and normalised units:
`python tests/benchmarks/static_gaussian.py iamondb root=DIR lists=LISTS`.
N offsets, R real and S binary columns.
"""

import sys

import numpy as np

import seqdens


def offsets(data: seqdens.Prepared, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Normalised real (N, R) and binary (N, S) columns of a split, in float64."""
    rows = np.concatenate([data.offsets(record) for record in data.split(split)]).astype(np.float64)
    kinds = np.array([column.kind for column in data.columns])
    return (rows[:, kinds == "real"] - data.mean) / data.std, rows[:, kinds == "binary"]


def main(name: str, *options: str) -> None:
    data = seqdens.load(name, **dict(option.split("=", 1) for option in options))
    (real, binary), (valid_real, valid_binary) = offsets(data, "train"), offsets(data, "valid")
    centred, covariance = valid_real - real.mean(0), np.cov(real.T, bias=True)
    square = np.einsum("nr,rs,ns->n", centred, np.linalg.inv(covariance), centred)
    gaussian = 0.5 * (square + np.linalg.slogdet(2 * np.pi * covariance)[1]).sum()
    probability = binary.mean(0)
    bernoulli = -np.log(np.where(valid_binary == 1, probability, 1 - probability)).sum()
    for unit, count in (("record", len(data.split("valid"))), ("point", len(valid_real))):
        total, part = (gaussian + bernoulli) / count, bernoulli / count
        print(f"{total:+.3f} nats per {unit}, of which {part:+.3f} from the binary columns")


if __name__ == "__main__":
    main(*sys.argv[1:])
