"""Drawings of Google's Quick, Draw! as a data set of seqdens."""

from seqdens_quickdraw.quickdraw import QuickDraw

__all__ = ["QuickDraw"]
