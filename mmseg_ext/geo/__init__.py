"""Georeferenced rasters and vectors, and what a metre is: every raster is opened here.

What needs a package that is not installed raises a MissingExtraError that says how to get it.
"""

from .cog import disk_needed, write_cog
from .doubts import glimpses, log_doubts
from .grid import GridSource, GroundGrid, common_ground, disagreement, grid_of
from .metric import (
    PixelFrame,
    check_same_ground,
    ground_sampling_distance,
    height_unit_m,
    is_placed,
    metric_crs,
    metric_of,
    reprojected,
    same_map,
)
from .raster import Georeference, RasterInfo, RasterSource, raster_info, read_raster, write_geotiff
from .sources import fingerprint, is_remote, public_name, result_name, source_files
from .stac import stac_rasters
from .vector import (
    VECTOR_SUFFIXES,
    RasterArea,
    VectorLayer,
    burn_lines,
    clipped,
    joined,
    read_areas,
    read_layer,
    read_lines,
)

__all__ = [
    "VECTOR_SUFFIXES",
    "Georeference",
    "GridSource",
    "GroundGrid",
    "PixelFrame",
    "RasterArea",
    "RasterInfo",
    "RasterSource",
    "VectorLayer",
    "burn_lines",
    "check_same_ground",
    "clipped",
    "common_ground",
    "disagreement",
    "disk_needed",
    "fingerprint",
    "glimpses",
    "grid_of",
    "ground_sampling_distance",
    "height_unit_m",
    "is_placed",
    "is_remote",
    "joined",
    "log_doubts",
    "metric_crs",
    "metric_of",
    "public_name",
    "raster_info",
    "read_areas",
    "read_layer",
    "read_lines",
    "read_raster",
    "reprojected",
    "result_name",
    "same_map",
    "source_files",
    "stac_rasters",
    "write_cog",
    "write_geotiff",
]
