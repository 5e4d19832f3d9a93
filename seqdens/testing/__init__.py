"""Tests for authors of components: subclass a contract in a test file, name the component, and inherit its tests.

    # tests/test_my_encoder.py
    import seqdens
    from seqdens.testing import EncoderContract

    class TestMyEncoder(EncoderContract):
        encoder = seqdens.encoder("my-encoder", hidden_size=5)
        impossible = (("hidden_size", 0),)

`EncoderContract`, `HeadContract`, `DatasetContract` and `ExperimentContract` say what each wants to be told. What a
test cannot know beforehand (a component that is registered in a fixture) may be a property instead of an attribute.
Choose options that make a component small: the tests build it often. Needs pytest: `pip install "seqdens[test]"`.
"""

from __future__ import annotations

try:
    import pytest
except ImportError as error:
    raise ImportError('seqdens.testing needs pytest: pip install "seqdens[test]".') from error

_HOMES = ("components", "models", "densities", "encoders", "heads", "datasets", "experiments")
pytest.register_assert_rewrite(*(f"{__name__}.{home}" for home in _HOMES))  # so that a failure shows its values

from seqdens.testing.datasets import DatasetContract  # noqa: E402
from seqdens.testing.encoders import EncoderContract  # noqa: E402
from seqdens.testing.experiments import ExperimentContract  # noqa: E402
from seqdens.testing.heads import HeadContract  # noqa: E402

__all__ = ["DatasetContract", "EncoderContract", "ExperimentContract", "HeadContract"]
