"""Raw data into the VOC layout that `mmseg_ext.datasets.RoadDataset` reads."""

from .folder_pair import Conversion, convert_folder_pair
from .synthetic_mines import write_synthetic_mines
from .voc_writer import VocWriter

__all__ = ["Conversion", "VocWriter", "convert_folder_pair", "write_synthetic_mines"]
