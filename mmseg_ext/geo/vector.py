"""Vector roads: lines of any GIS format, in metres, and onto the pixels of a raster."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError, lazy_import
from .raster import RasterInfo, Window, moved, rasterio_module

VECTOR_SUFFIXES = (".geojson", ".json", ".gpkg", ".shp", ".fgb")
_WGS84 = "EPSG:4326"
_PURPOSE = "reading road lines"


@dataclass(frozen=True)
class RoadLines:
    """The lines of a vector file.

    Attributes:
        path: the file.
        lines: map (x, y) of each line's points, (N, 2) each.
        crs: coordinate reference system as an authority code or WKT, None without one.
    """

    path: str
    lines: list[np.ndarray]
    crs: str | None


def read_lines(path: str) -> RoadLines:
    """Return the (Multi)LineStrings of a vector file (GeoJSON, GeoPackage, Shapefile, ...); others are passed over.

    Raises:
        DataError: missing or unreadable.
        MissingExtraError: pyogrio or shapely is not installed.
    """
    pyogrio = lazy_import("pyogrio", "geo", _PURPOSE)
    shapely = lazy_import("shapely", "geo", _PURPOSE)
    if not os.path.isfile(path):
        raise DataError(f"{path}: no such file")
    try:
        meta, _, geometries, _ = pyogrio.raw.read(path, columns=[], force_2d=True)
    except (RuntimeError, ValueError):
        raise DataError(f"{path}: cannot be read as vector data; replace it or take it out") from None
    parts = shapely.get_parts(shapely.from_wkb([one for one in geometries if one is not None]))
    lines = [shapely.get_coordinates(part) for part in parts if part.geom_type == "LineString" and not part.is_empty]
    return RoadLines(path, lines, meta["crs"])


def metric_crs(crs: str, point: Sequence[float]) -> str:
    """Return the UTM zone of a ``point`` (x, y) in ``crs``, as an EPSG code."""
    warp = lazy_import("rasterio.warp", "geo", _PURPOSE)
    (longitude,), (latitude,) = warp.transform(crs, _WGS84, [point[0]], [point[1]])
    zone = min(max(math.floor((longitude + 180) / 6) + 1, 1), 60)
    return f"EPSG:{(32600 if latitude >= 0 else 32700) + zone}"


def reprojected(lines: Sequence[np.ndarray], crs: str, target: str) -> list[np.ndarray]:
    """Return ``lines``, map (x, y) in ``crs``, (N, 2) each, in the coordinate reference system ``target``."""
    warp = lazy_import("rasterio.warp", "geo", _PURPOSE)
    return [np.stack(warp.transform(crs, target, line[:, 0], line[:, 1]), axis=1) for line in lines]


def burn_lines(path: str, grid: RasterInfo, width_m: float, window: Window | None = None) -> np.ndarray:
    """Return the centrelines of a vector file as road areas on a raster's pixels.

    Lines are widened in metres, in the UTM zone of their first point. Geometries other than lines are passed over.

    Args:
        path: vector file of (Multi)LineStrings; lines without a coordinate reference system are in the raster's.
        grid: header of the raster, georeferenced.
        width_m: full width of a road in metres.
        window: (row, column, height, width) of the part to burn; all of it when None.

    Returns:
        uint8 (H, W): 1 where the pixel's centre lies within half the width of a line, else 0.

    Raises:
        DataError: unreadable, or the raster has no georeference.
        MissingExtraError: rasterio, pyogrio or shapely is not installed.
    """
    rasterio = rasterio_module(_PURPOSE)
    shapely = lazy_import("shapely", "geo", _PURPOSE)
    features = lazy_import("rasterio.features", "geo", _PURPOSE)
    if grid.crs is None or grid.transform is None:
        raise DataError(f"{grid.path}: has no georeference, so the lines of {path} cannot be placed; add one")
    row, column, height, width = window or (0, 0, grid.height, grid.width)
    found = read_lines(path)
    if not found.lines:
        return np.zeros((height, width), np.uint8)
    crs = found.crs or grid.crs
    metric = metric_crs(crs, found.lines[0][0])
    areas = []
    for line in reprojected(found.lines, crs, metric):
        area = shapely.LineString(line).buffer(width_m / 2)
        areas.append(shapely.transform(area, lambda points: reprojected([points], metric, grid.crs)[0]))
    transform = rasterio.Affine(*moved(grid.transform, row, column))
    return features.rasterize(areas, (height, width), transform=transform, default_value=1, dtype=np.uint8)
