"""The handwriting synthesis network of Graves (2013), section 5."""

from seqdens.experiments.base import Experiment

SYNTHESIS = Experiment(
    summary="Handwriting synthesis (Graves 2013, section 5): a given text, written.",
    dataset={"name": "hershey"},
    encoder={"name": "window-lstm"},
    head={"name": "gmm-bernoulli"},
    presets={
        # Batches of four: how far a window has learnt to follow depends on the number of steps, little on their size;
        # a second layer sees the window of the same step, without which a letter is begun before it is read.
        "quick": {
            "dataset": {
                "lines": 24000,
                "writers": 20,
                "characters": 32,
                "shortest": 4,
                "scrambled": 0.4,
                "variation": 0.5,
                "printed": True,
            },
            "encoder": {"hidden_size": 128, "layers": 2, "window_components": 1},
            "training": {
                "epochs": 1,
                "optimiser": "adam",
                "learning_rate": 3e-3,
                "decay": 0.6,
                "batch_size": 4,
                "precision": "float32",
            },
            "sampling": {"bias": 1.0, "steps": 1200},
        },
        # The weights that come with seqdens: hands that print and hands that join, lines as long as those of a page.
        "hour": {
            "dataset": {
                "lines": 32000,
                "writers": 100,
                "characters": 44,
                "shortest": 4,
                "scrambled": 0.3,
                "variation": 0.5,
            },
            "encoder": {"hidden_size": 192, "layers": 2, "window_components": 1},
            "training": {
                "epochs": 3,
                "optimiser": "adam",
                "learning_rate": 2e-3,
                "decay": 0.6,
                "batch_size": 4,
                "precision": "float32",
            },
            "sampling": {"bias": 1.0, "steps": 1800},
        },
        # The paper's network and optimiser. It states neither batch size nor epochs: those are ours.
        "paper": {
            "encoder": {"hidden_size": 400, "layers": 3, "window_components": 10, "gate_clip": 10.0},
            "head": {"components": 20, "output_clip": 100.0, "sigma_floor": 0.0},
            "training": {
                "epochs": 30,
                "optimiser": "graves-rmsprop",
                "learning_rate": 1e-4,
                "batch_size": 32,
            },
            "sampling": {"steps": 2000},
        },
    },
    preset="paper",
    own_preset="quick",
)
