"""Georeferenced rasters and vectors: the only room that imports rasterio, shapely and pyogrio."""

from .cog import disk_needed, write_cog
from .metric import GridSource, GroundGrid, Metric, PixelFrame, grid_of, metric_of
from .raster import (
    Georeference,
    GroundControlPoint,
    RasterInfo,
    RasterSource,
    disagreement,
    ground_sampling_distance,
    raster_info,
    read_raster,
    write_geotiff,
)
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
