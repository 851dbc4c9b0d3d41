"""A trained network on rasters of any size."""

from .plan import TilePlan, find_rasters
from .road_map import MapFiles, MapSettings, check_rasters, map_raster
from .road_network import RoadNetwork
from .strips import Strip, map_strips

__all__ = [
    "MapFiles",
    "MapSettings",
    "RoadNetwork",
    "Strip",
    "TilePlan",
    "check_rasters",
    "find_rasters",
    "map_raster",
    "map_strips",
]
