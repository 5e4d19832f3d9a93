"""Digits, written one at a time by the prediction network of Graves (2013) with one layer."""

from seqdens import Experiment

DIGITS = Experiment(
    summary="Handwritten digits, each from its first point to its last: UCI's pendigits with --data.",
    dataset={"name": "unipen"},
    encoder={"name": "stacked-lstm"},
    head={"name": "gmm-bernoulli"},
    presets={
        # A network that learns pendigits in two to three minutes on one CPU core.
        "quick": {
            "encoder": {"hidden_size": 256, "layers": 1},
            "training": {
                "epochs": 12,
                "optimiser": "adam",
                "learning_rate": 5e-3,
                "decay": 0.7,
                "batch_size": 32,
            },
            "sampling": {"count": 36, "steps": 200, "bias": 0.75},
        },
    },
    preset="quick",
    own_preset="quick",
)
