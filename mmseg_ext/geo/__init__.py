"""Georeferenced rasters and vectors: the only room that imports rasterio, shapely and pyogrio."""

from .cog import disk_needed, write_cog
from .georeference import disagreement, ground_sampling_distance
from .ground_grid import GridSource, GroundGrid, grid_of
from .metric import Metric, metric_of
from .pixel_frame import PixelFrame
from .raster import RasterInfo, write_geotiff
from .raster_source import Georeference, GroundControlPoint, RasterSource, raster_info, read_raster
from .vector import (
    VECTOR_SUFFIXES,
    RoadLines,
    VectorLayer,
    burn_lines,
    clipped,
    joined,
    metric_crs,
    read_layer,
    read_lines,
    reprojected,
)

__all__ = [
    "VECTOR_SUFFIXES",
    "Georeference",
    "GridSource",
    "GroundControlPoint",
    "GroundGrid",
    "Metric",
    "PixelFrame",
    "RasterInfo",
    "RasterSource",
    "RoadLines",
    "VectorLayer",
    "burn_lines",
    "clipped",
    "disagreement",
    "disk_needed",
    "grid_of",
    "ground_sampling_distance",
    "joined",
    "metric_crs",
    "metric_of",
    "raster_info",
    "read_layer",
    "read_lines",
    "read_raster",
    "reprojected",
    "write_cog",
    "write_geotiff",
]
