"""A trained network on rasters of any size."""

from .inputs import find_rasters
from .road_map import MapFiles, MapSettings, check_rasters, map_raster
from .road_network import RoadNetwork
from .strip_mapper import Strip, map_strips
from .tile_plan import TilePlan

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
