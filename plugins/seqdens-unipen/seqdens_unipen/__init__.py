"""Pen recordings in two public formats, UNIPEN and InkML, as data sets of seqdens; an experiment that writes digits."""

from seqdens_unipen.digits import DIGITS
from seqdens_unipen.inkml import InkML
from seqdens_unipen.unipen import Unipen

__all__ = ["DIGITS", "InkML", "Unipen"]
