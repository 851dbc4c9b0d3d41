"""Georeferenced rasters and vectors: the only room that imports rasterio, shapely and pyogrio."""

from .georeference import disagreement, ground_sampling_distance
from .raster import RasterInfo, raster_info, read_raster, write_geotiff
from .vector import VECTOR_SUFFIXES, RoadLines, burn_lines, clipped, joined, metric_crs, read_lines, reprojected

__all__ = [
    "VECTOR_SUFFIXES",
    "RasterInfo",
    "RoadLines",
    "burn_lines",
    "clipped",
    "disagreement",
    "ground_sampling_distance",
    "joined",
    "metric_crs",
    "raster_info",
    "read_lines",
    "read_raster",
    "reprojected",
    "write_geotiff",
]
