"""Heights of roads from a DEM or DSM: lines in 3-D, grades and cross-falls.

Heights are taken across and along each road (`profile_along`), lines that outliers do not move are fitted to them
(`fitted_lines`), and the slopes of these lines are the grades.
"""

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
from ..roads.polyline import points_at, stations
from .dem import Dem, Ground
from .extraction import RoadLayers, check_not_negative

_NEAR_M = 0.3  # what is so near to a line is no outlier
_FITS = 4096  # lines fitted at a time
_SAMPLES = 20  # steps between heights over the distance of a grade
_ACROSS = np.linspace(-0.3, 0.3, 10)  # where heights are taken across the road, in widths; off its edges and berms
_FINE = 0.2  # largest pixel of the DEM, in widths, for which these heights are of the carriageway alone
_NOWHERE_M = 1e-9  # a road that goes no farther has no direction
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

    Lines and nodes are 3-D where the DEM has their heights, those of a line all along it; else they stay 2-D, for
    GeoJSON has no way to say that a height is unknown. A road from which the DEM tells nothing has nan, and no flag.

    Attributes:
        edges: as in `RoadLayers`, with a vertex more at the ends of each stretch of ``grades``, and
            ``grade_mean_percent`` (rise from the first to the last known height, over the distance between; positive
            where the line climbs from ``node_from``), ``grade_max_percent`` (largest absolute grade over the stated
            distance), ``cross_fall_percent`` (median of the absolute cross-falls), ``grade_exceeded`` and
            ``cross_fall_exceeded`` (one of these is above its limit), ``height_share`` (share of the line where the
            DEM itself has a height).
        nodes: as in `RoadLayers`; where its edges meet, all have its height.
        grades: the edges in stretches of about the stated distance: ``edge_id``, ``from_m`` and ``to_m`` (distances
            from the start of the edge), ``grade_percent`` (at the middle, positive where the line climbs),
            ``cross_fall_percent`` (median, positive where the road falls to the right of its line),
            ``grade_exceeded`` (by a grade of which the middle is in the stretch) and ``cross_fall_exceeded``.
    """

    grades: gpd.GeoDataFrame = field(kw_only=True)


def check_dem(dem: str, roads: str) -> None:
    """Refuse, before the work, a raster of heights that does not fit a raster of roads.

    Raises:
        DataError: one cannot be read or has no georeference, the DEM has several bands, or they do not overlap.
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

    Heights are taken across and along the road, and straight lines are fitted to them. Outliers do not affect these: a
    parked truck or the foot of a bench changes no grade unless it covers more than a third of the width or distance.
    The cross-fall is that of a straight line from side to side, so that of a crowned road is about 0. A DEM whose
    pixels are too coarse for the width of a road gives grades there but no cross-falls; edges of less than half the
    stated distance have no grade. Distances are metres on the ground in any map.

    Args:
        layers: network in a map with metres, feet or degrees.
        dem: raster of one band, of any resolution and coordinate reference system; where one of the two has none, that
            of the other is assumed. Heights are above any level, in the unit (metres or feet) that the band states,
            else the vertical axis of its coordinate reference system, else in metres. Read by windows.
        settings: how.
        progress: called with the edges done and the edges in all.

    Raises:
        DataError: the DEM cannot be read, has several bands or does not overlap the roads, or one of them has no
            georeference.
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
        logger.warning("%s: is nodata on all of the roads", dem)
    return _with_heights(layers, lines, profiles, settings)


def _with_heights(
    layers: RoadLayers, lines: list[np.ndarray], profiles: list[Profile], settings: HeightSettings
) -> HeightLayers:
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
    """Return the columns that heights add to the table of edges."""
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
    """Part an edge evenly; return of each stretch its row in the table and its points (x, y, z) on the map (M, 3)."""
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
    """Return lines through points (M, 3) each, in 2-D where a height is unknown."""
    shapes = [shapely.LineString(line if np.isfinite(line[:, 2]).all() else line[:, :2]) for line in xyz]
    return gpd.GeoSeries(shapes, crs=crs)


def _points(xy: np.ndarray, z: np.ndarray, crs: object) -> gpd.GeoSeries:
    """Return points (N, 2) with heights (N,), 2-D where unknown."""
    return gpd.GeoSeries(np.where(np.isfinite(z), shapely.points(*xy.T, z), shapely.points(xy)), crs=crs)


@dataclass
class Profile:
    """What is known along an edge.

    Attributes:
        vertices: distances (V,) of the line's points from its start, metres.
        at: distances (N,) of the stations from the start, metres; evenly spaced.
        height: of the stations (N,), metres, smoothed; nan where unknown, as in all below.
        grade: at the stations (N,), percent.
        cross_fall: at the stations (N,), percent, positive where the road falls to the right.
        share: of the stations where the DEM has a height.
    """

    vertices: np.ndarray
    at: np.ndarray
    height: np.ndarray
    grade: np.ndarray
    cross_fall: np.ndarray
    share: float

    @property
    def mean_grade(self) -> float:
        """Rise from the first to the last known height over the distance between, percent; nan without any grade."""
        if not np.isfinite(self.grade).any():
            return np.nan
        first, last = np.flatnonzero(np.isfinite(self.height))[[0, -1]]
        return float(100 * (self.height[last] - self.height[first]) / (self.at[last] - self.at[first]))

    def meet(self, start: float, end: float, distance_m: float) -> None:
        """Move the ends to their nodes' heights (nan: unknown), fading out over a distance, so that no step is left."""
        reach = min(distance_m, self.at[-1]) or distance_m
        ends = ((0, start, self.at), (-1, end, self.at[-1] - self.at))
        steps = [height - self.height[place] for place, height, _ in ends]
        for (place, height, away), step in zip(ends, steps, strict=True):
            if np.isfinite(step):
                self.height += step * (1 - away / reach).clip(0)
            if np.isfinite(height):
                self.height[place] = height


def profile_along(ground: Ground, line: np.ndarray, width_m: float, grade_over_m: float, bridge_m: float) -> Profile:
    """Return what the DEM tells along a road, a ``line`` (V, 2) on the map; distances as in `HeightSettings`."""
    metres = ground.metres(line)
    vertices = stations(metres)
    step = grade_over_m / _SAMPLES
    at = np.linspace(0, vertices[-1], max(1, int(np.ceil(vertices[-1] / step))) + 1)
    places = points_at(metres, at)
    if ground.dem_pixel_m(places[len(places) // 2]) <= _FINE * width_m:
        height, cross_fall = _across(ground, metres, at, width_m)
    else:
        height, cross_fall = ground.heights(places), np.full(len(at), np.nan)
    share = float(np.isfinite(height).mean())
    height, grade = _running(at, _bridged(at, height, bridge_m), grade_over_m, bridge_m)
    return Profile(vertices, at, height, grade, cross_fall, share)


def _across(ground: Ground, metres: np.ndarray, at: np.ndarray, width_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Return height (N,) and cross-fall (N,), percent, of the lines fitted across a road at its stations ``at``."""
    reach, offsets = _ACROSS[-1] * width_m, _ACROSS * width_m
    ahead = points_at(metres, at + reach) - points_at(metres, at - reach)
    apart = np.hypot(*ahead.T)[:, None]
    right = np.stack([ahead[:, 1], -ahead[:, 0]], axis=1) / np.maximum(apart, _NOWHERE_M)
    across = points_at(metres, at)[:, None] + offsets[:, None] * right[:, None]
    slope, height = fitted_lines(offsets, ground.heights(across.reshape(-1, 2)).reshape(len(at), -1))
    return height, np.where(apart[:, 0] > _NOWHERE_M, -100 * slope, np.nan)


def _bridged(at: np.ndarray, heights: np.ndarray, longest: float) -> np.ndarray:
    """Return ``heights`` (N,) with a straight line across unknown ones between known ones up to ``longest`` apart."""
    known = np.flatnonzero(np.isfinite(heights))
    if len(known) == 0:
        return heights
    after = np.searchsorted(known, np.arange(len(at))).clip(max=len(known) - 1)
    before = np.searchsorted(known, np.arange(len(at)), side="right") - 1
    near = (before >= 0) & (at[known[after]] - at[known[before]] <= longest) & (known[after] >= np.arange(len(at)))
    return np.where(near, np.interp(at, at[known], heights[known]), heights)


def _running(at: np.ndarray, heights: np.ndarray, distance: float, bridge_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Return height (N,) and grade (N,), in percent, of the line fitted to the ``heights`` (N,) around each station.

    Each line is over the stated distance, or over the whole edge where that is shorter; at the ends of an edge the
    last one holds, also for heights that are unknown there: at the border of a map the road goes on, the DEM does not.
    Where less than half of the distance is known there is no grade, and the height stays as it is.
    """
    spacing = at[1] - at[0]
    if spacing == 0:
        return heights, np.full(len(at), np.nan)
    count = min(len(at), round(distance / spacing) + 1)
    windows = np.lib.stride_tricks.sliding_window_view(heights, count)
    offsets = (np.arange(count) - (count - 1) / 2) * spacing
    slope, middle = fitted_lines(offsets, windows, max(2, int(np.ceil(distance / spacing / 2)) + 1))
    own = (np.arange(len(at)) - count // 2).clip(0, len(windows) - 1)
    smooth = middle[own] + slope[own] * (at - at[own] - (count - 1) / 2 * spacing)
    smooth = np.where(np.isfinite(smooth), smooth, heights)
    known = np.isfinite(heights)
    if known.any():
        first, last = at[known][[0, -1]]
        beyond = np.maximum(first - at, at - last)
        known |= (beyond > 0) & (beyond <= bridge_m)
    return np.where(known, smooth, np.nan), 100 * slope[own]


def fitted_lines(offsets: np.ndarray, heights: np.ndarray, needed: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return slopes (N,), and heights (N,) at offset 0, of lines that outliers do not move.

    The line by repeated medians tells the outliers; that by least squares through the others is the result, for it
    is less sensitive to noise and where the slope changes. ``offsets`` (K,) are the places of ``heights`` (N, K), nan
    where unknown. A row with fewer than ``needed`` known heights (more than half of K when None) has no line.
    """
    needed = len(offsets) // 2 + 1 if needed is None else needed
    apart = offsets[:, None] - offsets
    np.fill_diagonal(apart, np.nan)
    fits = [np.empty((2, 0))]
    for start in range(0, len(heights), _FITS):
        part = heights[start : start + _FITS]
        slope = median(median((part[:, :, None] - part[:, None]) / apart))
        slope[np.isfinite(part).sum(axis=1) < needed] = np.nan
        level = part - slope[:, None] * offsets
        away = np.abs(level - median(level)[:, None])
        inliers = away <= np.maximum(_NEAR_M, 3 * 1.4826 * median(away))[:, None]  # 3 standard deviations
        fits.append(_least_squares(offsets, np.where(inliers, part, np.nan)))
    slopes, middles = np.concatenate(fits, axis=1)
    return slopes, middles


def _least_squares(offsets: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Return slopes and heights at offset 0 (2, N) of lines through rows (N, K), nan left out."""
    known = np.isfinite(heights)
    with np.errstate(invalid="ignore"):  # of rows where nothing is known
        count = known.sum(axis=1)
        x, z = (known * offsets).sum(axis=1) / count, np.nansum(heights, axis=1) / count
        from_x = known * (offsets - x[:, None])
        slope = np.nansum(from_x * heights, axis=1) / (from_x**2).sum(axis=1)
    return np.stack([slope, z - slope * x])


def median(values: np.ndarray) -> np.ndarray:
    """Return the medians over the last axis, nan left out; NumPy's own takes ten times as long."""
    ordered = np.sort(values, axis=-1)
    count = np.isfinite(values).sum(axis=-1, keepdims=True)
    low, high = (np.take_along_axis(ordered, at.clip(min=0), -1)[..., 0] for at in ((count - 1) // 2, count // 2))
    return np.where(count[..., 0] > 0, (low + high) / 2, np.nan)
