"""Road maps of rasters of any size."""

from .road_network import RoadNetwork
from .strip_mapper import Strip, map_strips
from .tile_plan import TilePlan

__all__ = ["RoadNetwork", "Strip", "TilePlan", "map_strips"]
