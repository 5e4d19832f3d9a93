"""The likelihood to beat: one Gaussian over all real columns, one probability for each binary column.

N offsets, R real and S binary columns.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch

from seqdens import components
from seqdens.cache import Prepared
from seqdens.errors import DataError
from seqdens.heads.gmm_bernoulli import GMMBernoulli
from seqdens.model import SequenceModel


def static_gaussian(data: Prepared, *, like: SequenceModel | None = None) -> SequenceModel:
    """The most likely model without memory: full covariance, constant probabilities, of the training split.

    Its units are those of `like`, else of the data's own scaling. Raises `UsageError` for category columns, and
    `DataError` where columns of the training split have no Gaussian density.
    """
    encoder, head = components.encoder("memoryless"), components.head("gmm-bernoulli", components=1)
    model = SequenceModel.for_data(data, encoder, head, like=like)
    mean, covariance, probabilities = moments(data)
    if np.linalg.det(np.nan_to_num(covariance / np.outer(data.std, data.std))) < 1e-12:
        raise DataError(
            f"the real columns of {data.provenance.dataset} have no Gaussian density over the training split: "
            "one is constant, has missing values, or follows from the others."
        )
    shift, scale = np.array(model.mean), np.array(model.std)
    fitted = (mean - shift) / scale, covariance / np.outer(scale, scale), probabilities
    cast(GMMBernoulli, model.head).set_gaussian(*map(torch.from_numpy, fitted))
    return model


def moments(data: Prepared) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (R,) and covariance (R, R) in raw units, and shares of ones (S,), of the training offsets; float64.

    A share is at least half a point away from 0 and 1, so that nothing that training lacks is impossible.
    """
    kinds = np.array([column.kind for column in data.columns])
    points, sums, squares, ones = 0, 0.0, 0.0, 0.0
    for record in data.split("train"):
        offsets = data.offsets(record).astype(np.float64)
        centred = offsets[:, kinds == "real"] - data.mean  # the mean but for rounding, so that squares do not cancel
        points += len(offsets)
        sums = sums + centred.sum(0)
        squares = squares + centred.T @ centred
        ones = ones + offsets[:, kinds == "binary"].sum(0)
    offset = sums / points
    shares = np.clip(ones / points, 0.5 / points, 1 - 0.5 / points)
    return data.mean + offset, squares / points - np.outer(offset, offset), shares
