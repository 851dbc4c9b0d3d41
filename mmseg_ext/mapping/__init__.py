"""Road maps of rasters of any size; no module here imports PyTorch: whatever predicts is given as an object."""

from .map_files import MapFiles, find_rasters, threshold_of
from .road_map import Group, MapSettings, check_rasters, map_raster
from .strips import TilePlan, map_strips

__all__ = [
    "Group",
    "MapFiles",
    "MapSettings",
    "TilePlan",
    "check_rasters",
    "find_rasters",
    "map_raster",
    "map_strips",
    "threshold_of",
]
