"""Encoders, and the CNN baselines that bring their own decoder."""

from .linknet import DLinkNet34, LinkNet34, NLLinkNet34
from .mscan import MSCAN
from .unet import DUNet, SevenLevelUNet

__all__ = ["MSCAN", "DLinkNet34", "DUNet", "LinkNet34", "NLLinkNet34", "SevenLevelUNet"]
