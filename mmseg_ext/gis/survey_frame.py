"""The metres in which two surveys are compared, whatever their maps."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import geopandas as gpd
import numpy as np
import shapely

from ..errors import DataError
from ..geo import metric_of
from ..geo.vector import check_degrees
from .survey import Survey

logger = logging.getLogger(__name__)


class SurveyFrame:
    """From maps to metres, and back to the map of the old survey.

    The metres are those of its map, or of its UTM zone where its units are no true lengths, as `metric_of` says.

    Args:
        old: the survey whose map counts.
        new: the other one.

    Raises:
        DataError: one has a coordinate reference system and the other has none, or it is none for its places.
    """

    def __init__(self, old: Survey, new: Survey) -> None:
        self._old, self._map = old.name, old.edges.crs
        self._metric, self._factor = self._map, 1.0
        self._check(old.edges, old.name)
        self._check(new.edges, new.name)
        if self._map is None:
            logger.warning("both surveys have no coordinate reference system; their units are taken for metres")
        elif len(some := old.edges if len(old.edges) else new.edges.to_crs(self._map)):
            left, bottom, right, top = some.total_bounds
            place = np.array([left + right, bottom + top]) / 2
            self._metric, self._factor = metric_of(self._map.to_string(), place, old.name)

    def to_metres(self, table: gpd.GeoDataFrame, name: str) -> np.ndarray:
        """Return the geometries (N,) of a table in metres.

        Args:
            table: in any coordinate reference system.
            name: for the message.

        Raises:
            DataError: it has a coordinate reference system and the old survey has none, the other way round, or it is
                none for these places.
        """
        self._check(table, name)
        shapes = table.geometry if self._map is None else table.geometry.to_crs(self._metric)
        if not np.isfinite(shapely.get_coordinates(shapes)).all():
            claimed = "finite" if table.crs is None else f"of {table.crs.name}, which it claims"
            raise DataError(f"{name}: has coordinates that are not {claimed}; correct that")
        return shapely.transform(shapes.to_numpy(), lambda points: points * self._factor)

    def to_map(self, lines: Sequence[np.ndarray]) -> gpd.GeoSeries:
        """Return lines (N, 2) in metres on the map of the old survey."""
        shapes = gpd.GeoSeries([shapely.LineString(line / self._factor) for line in lines], crs=self._metric)
        return shapes if self._map is None else shapes.to_crs(self._map)

    def _check(self, table: gpd.GeoDataFrame, name: str) -> None:
        if table.crs is None and self._map is not None:
            raise DataError(f"{name}: has no coordinate reference system, but {self._old} has one; give it its own")
        if table.crs is not None:
            if self._map is None:
                raise DataError(f"{self._old}: has no coordinate reference system, but {name} has one; give it its own")
            check_degrees(name, table.geometry.to_numpy(), table.crs.to_string())
