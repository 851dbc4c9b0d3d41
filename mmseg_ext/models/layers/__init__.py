"""Layers shared by the networks."""

from .hamburger import Hamburger
from .hdmsca import HDMSCA
from .msca import MSCA
from .nmf import nmf_reconstruct

__all__ = ["HDMSCA", "MSCA", "Hamburger", "nmf_reconstruct"]
