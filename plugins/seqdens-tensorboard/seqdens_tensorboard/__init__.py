"""The runs of seqdens in TensorBoard."""

from seqdens_tensorboard.listener import TensorBoard

__all__ = ["TensorBoard"]
