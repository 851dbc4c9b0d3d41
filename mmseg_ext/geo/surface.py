"""Outlines of the road's pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import lazy_import
from .raster import rasterio_module

_PURPOSE = "road outlines"


def traced_areas(road: np.ndarray, row: int = 0, column: int = 0) -> list:
    """Return the outlines of the road pixels of a part of a raster, with holes, along the pixels' edges.

    Args:
        road: bool (h, w).
        row: of the part's first pixel.
        column: of the part's first pixel.

    Returns:
        shapely polygons in pixels: x the column and y the row, whole numbers at the pixels' corners. Pixels that touch
        at a corner only are in two polygons.
    """
    shapely = lazy_import("shapely", "geo", _PURPOSE)
    features = lazy_import("rasterio.features", "geo", _PURPOSE)
    place = rasterio_module(_PURPOSE).Affine.translation(column, row)
    found = features.shapes(road.astype(np.uint8), mask=road, connectivity=4, transform=place)
    return [shapely.Polygon(rings[0], rings[1:]) for rings in (shape["coordinates"] for shape, _ in found)]


def merged(areas: Sequence, tolerance: float) -> list:
    """Return one polygon for all of ``areas`` that share an edge, simplified.

    Args:
        areas: shapely polygons that do not overlap.
        tolerance: farthest that an outline may move, in their unit.
    """
    if not areas:
        return []
    shapely = lazy_import("shapely", "geo", _PURPOSE)
    whole = shapely.get_parts(shapely.disjoint_subset_union_all(np.array(areas, object)))
    corners = shapely.simplify(shapely.normalize(whole), 0)  # the same, of however many parts it was made
    return list(shapely.simplify(corners, tolerance, preserve_topology=True))
