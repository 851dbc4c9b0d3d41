"""Heights of roads from a DEM or DSM: lines in 3-D, grade and cross-fall."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from ..errors import ConfigError, DataError
from ..geo import PixelFrame, raster_info
from .dem import Dem, Ground
from .extraction import RoadLayers
from .grade_profile import Profile, profile_along
from .limits import check_not_negative
from .robust_line import median

_GRADES = {
    "from_m": float,
    "to_m": float,
    "grade_percent": float,
    "cross_fall_percent": float,
    "grade_exceeded": bool,
    "cross_fall_exceeded": bool,
}
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeightSettings:
    """How grades are measured, and their limits.

    Attributes:
        grade_over_m: distance over which a grade is measured, in metres along the road.
        max_grade_percent: largest grade that is not flagged.
        max_cross_fall_percent: largest cross-fall that is not flagged.
        bridge_m: longest stretch without heights, in metres along the road, that is bridged by a straight line, or at
            the end of an edge reached by going on straight.
    """

    grade_over_m: float = 20.0
    max_grade_percent: float = 10.0
    max_cross_fall_percent: float = 4.0
    bridge_m: float = 10.0

    def __post_init__(self) -> None:
        check_not_negative(self, "max_grade_percent", "max_cross_fall_percent", "bridge_m")
        if not 1 <= self.grade_over_m < np.inf:
            raise ConfigError(f"grades over {self.grade_over_m:g} m: give a distance of 1 m or more")


@dataclass(frozen=True)
class HeightLayers(RoadLayers):
    """A road network with heights in metres.

    Lines and nodes are 3-D where the DEM knows their heights, those of a line all along it; else they stay 2-D, for
    GeoJSON has no way to say that a height is unknown. A road from which the DEM tells nothing has nan, and no flag.

    Attributes:
        edges: as in `RoadLayers`, with a vertex more at the ends of each stretch of ``grades``, and
            ``grade_mean_percent`` (rise from the first to the last known height, over the distance between; positive
            where the line climbs from ``node_from``), ``grade_max_percent`` (largest absolute grade over the stated
            distance), ``cross_fall_percent`` (median of the absolute cross-falls), ``grade_exceeded`` and
            ``cross_fall_exceeded`` (one of these is above its limit), ``height_share`` (share of the line where the
            DEM itself knows the height).
        nodes: as in `RoadLayers`; where its edges meet, all have its height.
        grades: the edges in stretches of about the stated distance: ``edge_id``, ``from_m`` and ``to_m`` (distances
            from the start of the edge), ``grade_percent`` (at the middle, positive where the line climbs),
            ``cross_fall_percent`` (median, positive where the road falls to the right of its line),
            ``grade_exceeded`` (by a grade of which the middle is in the stretch) and ``cross_fall_exceeded``.
    """

    grades: gpd.GeoDataFrame = field(kw_only=True)

    def named(self) -> dict[str, gpd.GeoDataFrame]:
        """Return the tables by the names of their layers."""
        return {**super().named(), "grades": self.grades}


def check_dem(dem: str, roads: str) -> None:
    """Refuse, before the work, a DEM that is of no use for a road map.

    Args:
        dem: raster of heights.
        roads: raster of roads.

    Raises:
        DataError: one cannot be read or has no georeference, the DEM is none, or they do not overlap.
    """
    info = raster_info(roads)
    frame = PixelFrame(info)
    if frame.unit != "m":
        raise DataError(f"{roads}: has no georeference, so the heights of {dem} cannot be placed; add one")
    corners = np.array([(x, y) for x in (0, info.width) for y in (0, info.height)]) - 0.5
    with Dem(dem) as heights:
        Ground(frame.to_map(corners), frame.crs, heights).check_overlap(roads)


def add_heights(
    layers: RoadLayers,
    dem: str,
    settings: HeightSettings | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> HeightLayers:
    """Return a road network with the heights of a DEM or DSM.

    Heights are taken across and along the road, and lines fitted to them that outliers do not move: what covers no
    more than a third of the width or of the distance, such as a parked truck or the foot of a bench, makes no grade.
    The cross-fall is that of a straight line from side to side, so that of a crowned road is about 0. A DEM whose
    pixels are too coarse for the width of a road gives grades there but no cross-falls; edges of less than half the
    stated distance have no grade. Distances are metres on the ground in any map.

    Args:
        layers: network in a map with metres, feet or degrees.
        dem: raster of one band, of any resolution and coordinate reference system; where one of the two has none, it
            is taken for the other's. Heights are above any level, in the unit (metres or feet) that the band states,
            else the vertical axis of its coordinate reference system, else in metres. Read by windows.
        settings: how.
        progress: is told how many of how many edges are done.

    Raises:
        DataError: the DEM cannot be read, is none, does not overlap the roads, or one of them has no georeference.
    """
    settings = settings or HeightSettings()
    edges = layers.edges
    if "length_px" in edges:
        raise DataError(f"the roads have no georeference, so the heights of {dem} cannot be placed; add one")
    lines = [shapely.get_coordinates(line) for line in edges.geometry]
    with Dem(dem) as heights:
        profiles = []
        if lines:
            ground = Ground(np.concatenate(lines), edges.crs and edges.crs.to_string(), heights)
            ground.check_overlap("the road network")
            for line, width in zip(lines, edges["width_median_m"], strict=True):
                profiles.append(profile_along(ground, line, float(width), settings.grade_over_m, settings.bridge_m))
                progress(len(profiles), len(lines))
    if profiles and not any(np.isfinite(profile.height).any() for profile in profiles):
        logger.warning("%s: knows no height on any of the roads", dem)
    return _with_heights(layers, lines, profiles, settings)


def _with_heights(
    layers: RoadLayers, lines: list[np.ndarray], profiles: list[Profile], settings: HeightSettings
) -> HeightLayers:
    """Return the tables with what the ``profiles`` of their ``lines`` tell."""
    edges, nodes = layers.edges, layers.nodes
    ends = np.concatenate([edges["node_from"], edges["node_to"]])
    heights = np.array([profile.height[end] for end in (0, -1) for profile in profiles], float)
    at_nodes = pd.Series(heights).groupby(ends).median().reindex(nodes["node_id"])
    for profile, start, end in zip(profiles, edges["node_from"], edges["node_to"], strict=True):
        profile.meet(float(at_nodes[start]), float(at_nodes[end]), settings.grade_over_m)
    stretches = [_stretches(line, profile, settings) for line, profile in zip(lines, profiles, strict=True)]
    grades: dict[str, object] = {"edge_id": np.repeat(edges["edge_id"].to_numpy(), [len(parts) for parts in stretches])}
    for name, kind in _GRADES.items():
        grades[name] = np.array([row[name] for parts in stretches for row, _ in parts], kind)
    parted = [[xyz for _, xyz in parts] for parts in stretches]
    whole = [np.concatenate([parts[0], *(xyz[1:] for xyz in parts[1:])]) for parts in parted]
    return HeightLayers(
        edges.assign(**_grade_columns(profiles, settings)).set_geometry(_lines(whole, edges.crs)),
        nodes.set_geometry(_points(shapely.get_coordinates(nodes.geometry), at_nodes.to_numpy(float), nodes.crs)),
        layers.surface,
        layers.wide,
        grades=gpd.GeoDataFrame(grades, geometry=_lines([xyz for parts in parted for xyz in parts], edges.crs)),
    )


def _grade_columns(profiles: list[Profile], settings: HeightSettings) -> dict[str, np.ndarray]:
    """Return what the edges' table has more."""
    largest = np.array([np.fmax.reduce(np.abs(profile.grade)) for profile in profiles], float)
    cross_fall = np.array([median(np.abs(profile.cross_fall)) for profile in profiles], float)
    return {
        "grade_mean_percent": np.array([profile.mean_grade for profile in profiles], float),
        "grade_max_percent": largest,
        "cross_fall_percent": cross_fall,
        "grade_exceeded": largest > settings.max_grade_percent,
        "cross_fall_exceeded": cross_fall > settings.max_cross_fall_percent,
        "height_share": np.array([profile.share for profile in profiles], float),
    }


def _stretches(
    line: np.ndarray, profile: Profile, settings: HeightSettings
) -> list[tuple[dict[str, float | bool], np.ndarray]]:
    """Part an edge evenly into stretches of about the stated distance.

    Returns:
        of each stretch its row in the table, and its points (x, y, z) on the map (M, 3).
    """
    at, vertices = profile.at, profile.vertices
    bounds = np.linspace(0, at[-1], max(1, round(at[-1] / settings.grade_over_m)) + 1)
    parts = []
    for start, end in pairwise(bounds):
        here = (at >= start) & (at <= end)
        cross_fall = float(median(profile.cross_fall[here]))
        row = {
            "from_m": start,
            "to_m": end,
            "grade_percent": profile.grade[np.abs(at - (start + end) / 2).argmin()],
            "cross_fall_percent": cross_fall,
            "grade_exceeded": bool((np.abs(profile.grade[here]) > settings.max_grade_percent).any()),
            "cross_fall_exceeded": abs(cross_fall) > settings.max_cross_fall_percent,
        }
        along = np.concatenate([[start], vertices[(vertices > start) & (vertices < end)], [end]])
        known = np.isfinite(profile.height[here]).all()
        height = np.interp(along, at, profile.height) if known else np.full(len(along), np.nan)
        columns = (*(np.interp(along, vertices, line[:, i]) for i in (0, 1)), height)
        parts.append((row, np.stack(columns, axis=1)))
    return parts


def _lines(xyz: list[np.ndarray], crs: object) -> gpd.GeoSeries:
    """Return lines through points (M, 3) each, 2-D where a height is unknown."""
    shapes = [shapely.LineString(line if np.isfinite(line[:, 2]).all() else line[:, :2]) for line in xyz]
    return gpd.GeoSeries(shapes, crs=crs)


def _points(xy: np.ndarray, z: np.ndarray, crs: object) -> gpd.GeoSeries:
    """Return points (N, 2) with heights (N,), 2-D where unknown."""
    return gpd.GeoSeries(np.where(np.isfinite(z), shapely.points(*xy.T, z), shapely.points(xy)), crs=crs)
