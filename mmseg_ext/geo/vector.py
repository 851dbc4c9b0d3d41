"""Vector roads onto the pixels of a raster."""

from __future__ import annotations

import json
import math

import numpy as np

from ..errors import DataError, lazy_import
from .raster import RasterInfo, Window, moved, rasterio_module

_WGS84 = "EPSG:4326"
_PURPOSE = "burning road lines into masks"


def _utm(longitude: float, latitude: float) -> str:
    """Return the UTM zone of a place in degrees, as an EPSG code."""
    zone = min(max(math.floor((longitude + 180) / 6) + 1, 1), 60)
    return f"EPSG:{(32600 if latitude >= 0 else 32700) + zone}"


def _read_lines(path: str) -> tuple[list[dict], str]:
    """Return the line geometries of a GeoJSON file and its coordinate reference system."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        features = content["features"]
        name = content.get("crs", {}).get("properties", {}).get("name", _WGS84)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read as GeoJSON ({error}); replace it or take it out") from None
    geometries = [feature.get("geometry") for feature in features]
    lines = [g for g in geometries if g and g.get("type") in ("LineString", "MultiLineString") and g.get("coordinates")]
    return lines, _WGS84 if name.endswith("CRS84") else name


def burn_lines(path: str, grid: RasterInfo, width_m: float, window: Window | None = None) -> np.ndarray:
    """Return the centrelines of a GeoJSON file as road areas on a raster's pixels.

    Lines are widened in metres, in the UTM zone of their first point. Geometries other than lines are passed over.

    Args:
        path: GeoJSON of (Multi)LineStrings; without a ``crs`` member in longitude and latitude.
        grid: header of the raster, georeferenced.
        width_m: full width of a road in metres.
        window: (row, column, height, width) of the part to burn; all of it when None.

    Returns:
        uint8 (H, W): 1 where the pixel's centre lies within half the width of a line, else 0.

    Raises:
        DataError: no GeoJSON, or the raster has no georeference.
        MissingExtraError: rasterio or shapely is not installed.
    """
    rasterio = rasterio_module(_PURPOSE)
    geometry = lazy_import("shapely.geometry", "geo", _PURPOSE)
    warp = lazy_import("rasterio.warp", "geo", _PURPOSE)
    features = lazy_import("rasterio.features", "geo", _PURPOSE)
    if grid.crs is None or grid.transform is None:
        raise DataError(f"{grid.path}: has no georeference, so the lines of {path} cannot be placed; add one")
    row, column, height, width = window or (0, 0, grid.height, grid.width)
    lines, crs = _read_lines(path)
    if not lines:
        return np.zeros((height, width), np.uint8)
    in_degrees = warp.transform_geom(crs, _WGS84, lines[0])
    place = in_degrees["coordinates"]
    while isinstance(place[0], (list, tuple)):
        place = place[0]
    metric = _utm(place[0], place[1])
    areas = []
    for line in lines:
        area = geometry.shape(warp.transform_geom(crs, metric, line)).buffer(width_m / 2)
        areas.append(warp.transform_geom(metric, grid.crs, geometry.mapping(area)))
    transform = rasterio.Affine(*moved(grid.transform, row, column))
    return features.rasterize(areas, (height, width), transform=transform, default_value=1, dtype=np.uint8)
