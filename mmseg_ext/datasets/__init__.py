"""Data sets; importing this package registers them."""

from .pipelines import LoadRoadImage, LoadRoadMask
from .road_dataset import RoadDataset


__all__ = ["LoadRoadImage", "LoadRoadMask", "RoadDataset"]
