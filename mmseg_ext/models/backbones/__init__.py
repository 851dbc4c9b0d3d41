"""Backbones, registered into MMSegmentation's ``BACKBONES``."""

from .mscan import MSCAN

__all__ = ["MSCAN"]
