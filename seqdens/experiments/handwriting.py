"""The handwriting prediction network of Graves (2013), section 4."""

from seqdens.experiments.base import Experiment

HANDWRITING = Experiment(
    summary="Handwriting prediction (Graves 2013, section 4): the next pen offset from all before it.",
    dataset={"name": "hershey"},
    encoder={"name": "stacked-lstm"},
    head={"name": "gmm-bernoulli"},
    presets={
        # A network that learns the embedded data set in about five minutes on two CPU cores.
        "quick": {
            "dataset": {"lines": 3600},
            "encoder": {"hidden_size": 256, "layers": 1},
            "training": {
                "epochs": 4,
                "optimiser": "adam",
                "learning_rate": 5e-3,
                "decay": 0.7,
                "batch_size": 16,
                "precision": "float32",
            },
            "sampling": {"bias": 0.5},
        },
        # The paper's network and optimiser. It states neither batch size nor epochs: those are ours.
        "paper": {
            "encoder": {"hidden_size": 400, "layers": 3, "gate_clip": 10.0},
            "head": {"components": 20, "output_clip": 100.0, "sigma_floor": 0.0},
            "training": {
                "epochs": 30,
                "optimiser": "graves-rmsprop",
                "learning_rate": 1e-4,
                "batch_size": 32,
            },
            "sampling": {"steps": 700},
        },
    },
    preset="paper",
    own_preset="quick",
)
