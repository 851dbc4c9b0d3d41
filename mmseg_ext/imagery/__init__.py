"""Image and mask files: how their pixels are read, and the folders that they lie in. Imports no PyTorch."""

from .reading import ImageReading, reading_of
from .voc import read_metadata

__all__ = ["ImageReading", "read_metadata", "reading_of"]
