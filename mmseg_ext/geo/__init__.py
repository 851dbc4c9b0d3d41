"""Georeferenced rasters and vectors: the only room that imports rasterio and shapely."""

from .georeference import disagreement
from .raster import RasterInfo, raster_info, read_raster, write_geotiff
from .vector import burn_lines

__all__ = ["RasterInfo", "burn_lines", "disagreement", "raster_info", "read_raster", "write_geotiff"]
