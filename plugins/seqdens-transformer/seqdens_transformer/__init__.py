"""A causal transformer as an encoder of seqdens."""

from seqdens_transformer.transformer import Transformer

__all__ = ["Transformer"]
