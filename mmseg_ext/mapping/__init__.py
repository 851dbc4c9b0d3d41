"""Road maps of rasters of any size; no module here imports PyTorch: whatever predicts is given as an object."""

from .many import Outcomes, check_rasters, finish_raster, inventory, map_each, map_share, shard_of
from .map_files import MapFiles, find_rasters, threshold_of
from .road_map import Group, MapSettings, map_raster
from .strips import TilePlan, map_strips

__all__ = [
    "Group",
    "MapFiles",
    "MapSettings",
    "Outcomes",
    "TilePlan",
    "check_rasters",
    "find_rasters",
    "finish_raster",
    "inventory",
    "map_each",
    "map_raster",
    "map_share",
    "map_strips",
    "shard_of",
    "threshold_of",
]
