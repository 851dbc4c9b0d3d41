"""Data sets; importing this package registers them."""

from .pipelines import LoadRoadImage, LoadRoadMask
from .road_dataset import RoadDataset
from .synthetic_mine import Road, SyntheticMine, generate_mine

__all__ = ["LoadRoadImage", "LoadRoadMask", "Road", "RoadDataset", "SyntheticMine", "generate_mine"]
