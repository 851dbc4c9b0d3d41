"""Networks; importing this package registers them."""

from .backbones import MSCAN, DLinkNet34, DUNet, LinkNet34, NLLinkNet34, SevenLevelUNet
from .decode_heads import LightHamHead
from .layers import HDMSCA, MSCA, Hamburger
from .losses import SoftClDiceLoss

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
]
