"""Raw data into the VOC layout that `mmseg_ext.datasets.RoadDataset` reads; a new kind is an entry in `published`."""

from .conversion import convert, repair_dataset
from .gis_layers import convert_layers
from .mines import write_mine_views
from .published import CATALOGUE, describe
from .road_drawing import RoadDrawing
from .scenes import ConversionSettings
from .voc_writer import VocWriter, write_synthetic_mines

__all__ = [
    "CATALOGUE",
    "ConversionSettings",
    "RoadDrawing",
    "VocWriter",
    "convert",
    "convert_layers",
    "describe",
    "repair_dataset",
    "write_mine_views",
    "write_synthetic_mines",
]
