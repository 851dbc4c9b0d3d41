"""Raw data into the VOC layout that `mmseg_ext.datasets.RoadDataset` reads."""

from .conversion import Conversion
from .gis_layers import convert_layers
from .published import CATALOGUE, convert, describe, repair_dataset
from .road_drawing import RoadDrawing
from .scenes import Settings
from .synthetic_mines import write_synthetic_mines
from .voc_writer import VocWriter

__all__ = [
    "CATALOGUE",
    "Conversion",
    "RoadDrawing",
    "Settings",
    "VocWriter",
    "convert",
    "convert_layers",
    "describe",
    "repair_dataset",
    "write_synthetic_mines",
]
