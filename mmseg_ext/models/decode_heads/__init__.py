"""Decode heads, registered into MMSegmentation's ``HEADS``."""

from .light_ham_head import LightHamHead

__all__ = ["LightHamHead"]
