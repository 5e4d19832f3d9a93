"""Paths and other tracks of real numbers; text as in section 3 of Graves (2013)."""

from seqdens import Experiment

TRAJECTORIES = Experiment(
    summary="Trajectories: the next move in x and y, and other columns of a table, from all before it.",
    dataset={"name": "table", "difference": ("x", "y")},
    encoder={"name": "stacked-lstm"},
    head={"name": "gmm"},
    presets={
        # Half a minute on one CPU core for 100 to 500 tracks. Batches are small since so few tracks give few steps; a
        # hundred use all epochs, for several hundred the patience ends it.
        "quick": {
            "encoder": {"hidden_size": 128, "layers": 1},
            "head": {"components": 10, "sigma_floor": 1e-3},
            "training": {
                "epochs": 80,
                "optimiser": "adam",
                "learning_rate": 5e-3,
                "decay": 1.0,
                "batch_size": 8,
                "patience": 20,
                "precision": "float32",
            },
        },
    },
    preset="quick",
    own_preset="quick",
)

CHARACTERS = Experiment(
    summary="Text prediction (Graves 2013, section 3): the next byte of a text from all before it.",
    dataset={"name": "text"},
    encoder={"name": "stacked-lstm"},
    head={"name": "categorical"},
    sampling={"steps": 1000, "count": 4},
    presets={
        # Minutes on two CPU cores for half a megabyte of text.
        "quick": {
            "encoder": {"hidden_size": 256, "layers": 1},
            "training": {
                "epochs": 6,
                "optimiser": "adam",
                "learning_rate": 1e-2,
                "decay": 0.7,
                "batch_size": 16,
                "precision": "float32",
            },
            "sampling": {"bias": 0.5},
        },
        # The network of section 3.2, for all of Wikipedia; how it is trained is ours.
        "paper": {
            "encoder": {"hidden_size": 700, "layers": 7},
            "training": {"epochs": 4, "optimiser": "graves-rmsprop", "learning_rate": 1e-4, "batch_size": 32},
        },
    },
    preset="quick",
    own_preset="quick",
)
