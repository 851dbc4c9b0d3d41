"""Data sets; importing this package registers them."""

from . import augmentation  # noqa: F401  registers its steps
from .loading import LoadRoadImage
from .mine_views import generate_view
from .reading import ImageReading, reading_of
from .road_dataset import RoadDataset
from .synthetic_mine import generate_mine
from .voc import read_metadata

__all__ = [
    "ImageReading",
    "LoadRoadImage",
    "RoadDataset",
    "generate_mine",
    "generate_view",
    "read_metadata",
    "reading_of",
]
