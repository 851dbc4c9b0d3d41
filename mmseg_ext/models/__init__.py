"""Networks and losses, a family a file; importing this package registers them.

A new gating unit or encoder block goes to `mscan`, a decoder to `light_ham_head`, a loss to `losses`.
"""

from .. import registration  # noqa: F401  first
from .light_ham_head import Hamburger, LightHamHead
from .linknet import DLinkNet34, LinkNet34, NLLinkNet34
from .losses import SoftClDiceLoss
from .mscan import HDMSCA, MSCA, MSCAN
from .timm_encoder import TimmEncoder, UNetHead
from .unet import DUNet, SevenLevelUNet

__all__ = [
    "HDMSCA",
    "MSCA",
    "MSCAN",
    "DLinkNet34",
    "DUNet",
    "Hamburger",
    "LightHamHead",
    "LinkNet34",
    "NLLinkNet34",
    "SevenLevelUNet",
    "SoftClDiceLoss",
    "TimmEncoder",
    "UNetHead",
]
