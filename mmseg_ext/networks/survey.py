"""A survey of a road network: its lines, their widths and the road's surface, from any vector file."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pyogrio
import shapely

from ..errors import DataError, lazy_import
from ..geo import check_same_ground, metric_of, same_map
from ..geo.vector import (
    NO_LINES,
    check_areas,
    check_degrees,
    field_of,
    file_and_layer,
    layers_of,
    lines_layer,
    one_layer,
    states_crs,
    unreadable,
    valid_parts,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Survey:
    """A road network as it was at one time.

    Attributes:
        edges: centrelines, LineStrings that have a length; where known ``width_median_m``, ``width_p10_m`` and
            ``width_p90_m``, as `extract_network` makes them.
        surface: polygons of the road, which tell its width at each place; None where only medians are known.
        name: what messages call it, such as its file; empty for the old or the new survey.
    """

    edges: gpd.GeoDataFrame
    surface: gpd.GeoDataFrame | None = None
    name: str = ""

    def widths(self, name: str) -> np.ndarray:
        """Return ``width_median``, ``width_p10`` or ``width_p90`` of each edge (N,) in metres, nan where it has none.

        A column that is not numeric is a DataError.
        """
        stored = (field_of(f"{name}_{unit}", self.edges.columns) for unit in ("m", "px"))
        column = next(filter(None, stored), None)
        if column is None:
            return np.full(len(self.edges), np.nan)
        try:
            widths = self.edges[column].to_numpy(float, na_value=np.nan)
        except (TypeError, ValueError):
            raise DataError(f"{self.name}: the field {column} is not numeric; correct it or take it out") from None
        return np.where((widths > 0) & (widths < np.inf), widths, np.nan)  # some formats store 0 for unknown


def read_survey(source: str) -> Survey:
    """Return the lines of a vector file, each part a row, with its columns, and the surface that belongs to them.

    The layer is that of `lines_layer`; points and areas in it are skipped, curves are as in `read_layer`. The surface
    is the layer ``surface`` beside ``edges``, or the file ``NAME_surface`` beside ``NAME_edges``. Invalid geometries
    are repaired, or left out where nothing remains of them; the log names both. ``source`` is a GeoPackage, GeoJSON,
    GeoParquet or any other vector file; ``file:layer`` for another layer.

    Raises:
        DataError: missing or unreadable, no such layer, several layers and none chosen, or no lines in it.
    """
    path, chosen = file_and_layer(source)
    layers = _layers(path)
    layer = lines_layer(source, chosen, layers)
    table = _table(source, path, layer)
    edges = table[table.geom_type == "LineString"].reset_index(drop=True)
    if len(table) and not len(edges):
        raise DataError(NO_LINES.format(source))
    stem, suffix = os.path.splitext(path)
    beside = f"{stem.removesuffix('_edges')}_surface{suffix}"
    if layer == "edges" and "surface" in dict(layers):
        surface = _table(f"{path}:surface", path, "surface")
    elif stem.endswith("_edges") and os.path.isfile(beside):
        surface = _table(beside, beside, one_layer(beside, None, _layers(beside)))
    else:
        return Survey(edges, name=source)
    return Survey(edges, surface[surface.geom_type == "Polygon"].reset_index(drop=True), source)


def read_area(source: str) -> gpd.GeoDataFrame:
    """Return the polygons of a vector file, repaired, each part a row; ``source`` as of `read_survey`.

    Raises:
        DataError: missing or unreadable, no such layer, several layers and none chosen, or other than polygons in it.
    """
    path, chosen = file_and_layer(source)
    table = _table(source, path, one_layer(source, chosen, _layers(path)))
    check_areas(source, table.geometry.to_numpy())
    return table


def _layers(path: str) -> Sequence[tuple[str, str | None]]:
    """Return the names of a file's layers and the kinds of their geometries."""
    if path.endswith(".parquet"):
        return [(os.path.basename(path).removesuffix(".parquet"), "Unknown")]
    return layers_of(path)


def _table(source: str, path: str, layer: str) -> gpd.GeoDataFrame:
    """Return the valid lines and polygons of a layer in two dimensions, each part a row, with their columns."""
    try:
        if path.endswith(".parquet"):
            lazy_import("pyarrow", "parquet", "GeoParquet")
            table = gpd.read_parquet(path).reset_index(drop=True)
        else:
            table = pyogrio.read_dataframe(path, layer=layer, fid_as_index=True, on_invalid="fix")
        shapes = shapely.force_2d(table.geometry.to_numpy())
    except (RuntimeError, ValueError, AttributeError, shapely.errors.ShapelyError):
        raise unreadable(source) from None
    parts, index = valid_parts(source, shapes, table.index.to_numpy())
    columns = table.drop(columns=table.geometry.name).iloc[index].reset_index(drop=True)
    return gpd.GeoDataFrame(columns, geometry=parts, crs=table.crs if states_crs(table.crs) else None)


class SurveyFrame:
    """From maps to metres, and back to the map of the old survey.

    The metres are those of its map, or of its UTM zone where its units are no true lengths, as `metric_of` says.

    Raises:
        DataError: their maps have no way to each other, or one is wrong for its places.
    """

    def __init__(self, old: Survey, new: Survey) -> None:
        self._old, self._map = old.name, old.edges.crs
        self._metric, self._factor = self._map, 1.0
        self._check(old.edges, old.name)
        self._check(new.edges, new.name)
        in_pixels = [survey for survey in (old, new) if "length_px" in survey.edges]
        if len(in_pixels) == 1:
            raise DataError(
                f"{in_pixels[0].name}: is a network in pixels, but the other is in metres; extract it from a raster "
                "with a georeference"
            )
        if in_pixels:
            logger.warning("both surveys are networks in pixels; all that is called metres are pixels")
        elif self._map is None:
            logger.warning("both surveys have no coordinate reference system; their units are assumed to be metres")
        elif len(some := old.edges.geometry if len(old.edges) else _brought(new.edges, self._map)):
            left, bottom, right, top = some.total_bounds
            place = np.array([left + right, bottom + top]) / 2
            self._metric, self._factor = metric_of(self._map.to_string(), place, old.name)

    def to_metres(self, table: gpd.GeoDataFrame, name: str) -> np.ndarray:
        """Return the geometries (N,) of a table, called ``name``, in metres; errors as of the class."""
        self._check(table, name)
        shapes = _brought(table, self._metric)
        if not np.isfinite(shapely.get_coordinates(shapes)).all():
            claimed = "finite" if table.crs is None else f"of {table.crs.name}, which it claims"
            raise DataError(f"{name}: has coordinates that are not {claimed}; correct that")
        return shapely.transform(shapes.to_numpy(), lambda points: points * self._factor)

    def to_map(self, lines: Sequence[np.ndarray]) -> gpd.GeoSeries:
        """Return lines (N, 2) in metres on the map of the old survey."""
        shapes = gpd.GeoSeries([shapely.LineString(line / self._factor) for line in lines], crs=self._metric)
        return shapes if self._map is None else shapes.to_crs(self._map)

    def _check(self, table: gpd.GeoDataFrame, name: str) -> None:
        check_same_ground(name, table.crs, self._old, self._map)
        if table.crs is not None:
            check_degrees(name, table.geometry.to_numpy(), table.crs.to_string())


def _brought(table: gpd.GeoDataFrame, crs: object) -> gpd.GeoSeries:
    """Return the geometries of a table on the map of ``crs``."""
    return table.geometry if same_map(table.crs, crs) else table.geometry.to_crs(crs)
