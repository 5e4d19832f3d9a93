"""Sketches: the next pen offset of a drawing from all before it, until it is finished."""

from seqdens import Experiment

SKETCH = Experiment(
    summary="Sketches: drawings of a word, stroke by stroke, that end when they are finished.",
    dataset={"name": "quickdraw"},
    encoder={"name": "stacked-lstm"},
    head={"name": "gmm-bernoulli"},
    sampling={"steps": 250, "count": 12},
    presets={
        # One word in minutes on two CPU cores, from its first drawings and bent copies of them. So few say nothing
        # when held out: a validation loss of one or two drawings stops before anything is learnt.
        "quick": {
            "dataset": {"limit": 40, "held_out": 0.0, "variants": 100},
            "encoder": {"hidden_size": 192, "layers": 1},
            "head": {"components": 10},
            "training": {
                "epochs": 20,
                "optimiser": "adam",
                "learning_rate": 5e-3,
                "decay": 0.7,
                "batch_size": 16,
                "precision": "float32",
            },
            "sampling": {"bias": 0.5},
        },
        # All drawings of a word, with the size and batches of sketch-rnn's decoder; epochs and decay are ours.
        "sketch-rnn": {
            "encoder": {"hidden_size": 512, "layers": 1},
            "head": {"components": 20},
            "training": {"epochs": 20, "optimiser": "adam", "learning_rate": 1e-3, "decay": 0.5, "batch_size": 100},
        },
    },
    preset="quick",
    own_preset="quick",
)
