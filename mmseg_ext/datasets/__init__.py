"""Data sets; importing this package registers them."""

from .. import registration  # noqa: F401  first
from . import augmentation  # noqa: F401  registers its steps
from .loading import LoadRoadImage
from .mine_views import generate_view
from .road_dataset import RoadDataset
from .synthetic_mine import generate_mine

__all__ = ["LoadRoadImage", "RoadDataset", "generate_mine", "generate_view"]
