"""Networks; importing this package registers them."""

from .backbones import MSCAN
from .decode_heads import LightHamHead
from .layers import HDMSCA, MSCA, Hamburger

__all__ = ["HDMSCA", "MSCA", "MSCAN", "Hamburger", "LightHamHead"]
