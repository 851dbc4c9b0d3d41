"""Heights of roads from a DEM or DSM: lines in 3-D, grade and cross-fall."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely

from ..errors import ConfigError, DataError
from ..geo import PixelFrame, RasterSource, metric_crs, raster_info
from ..geo.raster import rasterio_module
from ..roads.polyline import points_at, stations
from .extraction import RoadLayers

_SAMPLES = 20  # steps between heights over the distance of a grade
_ACROSS = np.linspace(-0.3, 0.3, 10)  # where heights are taken across the road, in widths; off its edges and berms
_FINE = 0.2  # largest pixel of the DEM, in widths, for which these heights are of the carriageway alone
_NEAR_M = 0.3  # what is so near to a road's line is no outlier
_TILE_PX = 512  # rows and columns of the DEM in memory at a time
_FITS = 4096  # lines fitted at a time
_ON_EARTH = (-1000.0, 9000.0)  # metres; what is beyond, such as an undeclared -9999, is no height
_GRADES = {
    "from_m": float,
    "to_m": float,
    "grade_percent": float,
    "cross_fall_percent": float,
    "grade_exceeded": bool,
    "cross_fall_exceeded": bool,
}
_WGS84 = pyproj.CRS(4326)
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
        for name in ("max_grade_percent", "max_cross_fall_percent", "bridge_m"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ConfigError(f"{name} of {getattr(self, name):g}: give 0 or more")
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
        DataError: one cannot be read or has no georeference, or they do not overlap.
    """
    info = raster_info(roads)
    frame = PixelFrame(info)
    if frame.unit != "m":
        raise DataError(f"{roads}: has no georeference, so the heights of {dem} cannot be placed; add one")
    corners = np.array([(x, y) for x in (0, info.width) for y in (0, info.height)]) - 0.5
    with _Dem(dem) as heights:
        _Ground(frame.to_map(corners), frame.crs, heights).check_overlap(roads)


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
        dem: raster of one band, metres above any level, of any resolution and coordinate reference system; where one
            of the two has none, it is taken for the other's. Read by windows.
        settings: how.
        progress: is told how many of how many edges are done.

    Raises:
        DataError: the DEM cannot be read, does not overlap the roads, or one of them has no georeference.
    """
    settings = settings or HeightSettings()
    edges = layers.edges
    if "length_px" in edges:
        raise DataError(f"the roads have no georeference, so the heights of {dem} cannot be placed; add one")
    lines = [shapely.get_coordinates(line) for line in edges.geometry]
    with _Dem(dem) as heights:
        profiles = []
        if lines:
            ground = _Ground(np.concatenate(lines), edges.crs and edges.crs.to_string(), heights)
            ground.check_overlap("the road network")
            for line, width in zip(lines, edges["width_median_m"], strict=True):
                profiles.append(_profile(ground, line, float(width), settings))
                progress(len(profiles), len(lines))
    if profiles and not any(np.isfinite(profile.height).any() for profile in profiles):
        logger.warning("%s: knows no height on any of the roads", dem)
    return _with_heights(layers, lines, profiles, settings)


class _Dem:
    """A raster of heights that stays open; a context manager.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        info = raster_info(path)
        if info.bands != 1:
            raise DataError(f"{path}: has {info.bands} bands; give a DEM or DSM, which has one")
        if info.transform is None:
            raise DataError(f"{path}: has no georeference, so its heights cannot be placed; add one")
        transform = rasterio_module().Affine(*info.transform)
        if transform.is_degenerate:
            raise DataError(f"{path}: its georeference is degenerate; give it another")
        self.info = info
        self._to_pixels = ~transform
        self._source = RasterSource(path)

    def __enter__(self) -> _Dem:
        return self

    def __exit__(self, *error: object) -> None:
        self._source.close()

    def pixels(self, xy: np.ndarray) -> np.ndarray:
        """Return points (N, 2) of its map in pixels (x, y), whole numbers at pixel centres."""
        with np.errstate(invalid="ignore"):  # places that its coordinate reference system does not have
            return np.stack(self._to_pixels @ (xy[:, 0], xy[:, 1]), axis=1) - 0.5

    def at(self, xy: np.ndarray) -> np.ndarray:
        """Return the heights (N,) at points (N, 2) of its map, bilinearly; nan where one of the pixels is unknown.

        To leave out only the unknown pixel would take the height from somewhere beside the point.
        """
        x, y = self.pixels(xy).T
        size = np.array([self.info.width, self.info.height])
        heights = np.full(len(xy), np.nan)
        inside = np.flatnonzero((x >= 0) & (y >= 0) & (x <= size[0] - 1) & (y <= size[1] - 1))
        points = np.stack([x, y], axis=1)[inside]
        low = np.minimum(points.astype(int), np.maximum(size - 2, 0))
        tiles, tile = np.unique(low // _TILE_PX, axis=0, return_inverse=True)
        for number in range(len(tiles)):
            here = tile.ravel() == number
            heights[inside[here]] = self._bilinear(points[here], low[here])
        return heights

    def _bilinear(self, points: np.ndarray, low: np.ndarray) -> np.ndarray:
        left, top = low.min(axis=0)
        right, bottom = np.minimum(low.max(axis=0) + 2, [self.info.width, self.info.height])
        values, valid = self._source.read(top, left, bottom - top, right - left)
        known = values[:, :, 0].astype(float) * self.info.scale
        with np.errstate(invalid="ignore"):
            known[~((known > _ON_EARTH[0]) & (known < _ON_EARTH[1]))] = np.nan
        if valid is not None:
            known[~valid] = np.nan
        column, row = (low - [left, top]).T
        share_x, share_y = (points - low).T
        total = np.zeros(len(points))
        for down, weight_y in ((0, 1 - share_y), (1, share_y)):
            for across, weight_x in ((0, 1 - share_x), (1, share_x)):
                weight = weight_x * weight_y
                at = np.minimum(row + down, bottom - top - 1), np.minimum(column + across, right - left - 1)
                total += np.where(weight > 0, weight * known[at], 0)
        return total


class _Ground:
    """The ground around some roads: their map, metres on it, and the pixels of a DEM.

    Metres are those of a UTM zone wherever there is one: the metres of Web Mercator are not metres on the ground.

    Args:
        points: places of the roads (N, 2) on their map.
        crs: of the roads' map, None without one.
        dem: raster of heights.
    """

    def __init__(self, points: np.ndarray, crs: str | None, dem: _Dem) -> None:
        self._dem, self._points = dem, points
        known = pyproj.CRS(crs or dem.info.crs) if crs or dem.info.crs else None
        target = pyproj.CRS(dem.info.crs) if dem.info.crs else known
        if (crs is None) != (dem.info.crs is None):
            logger.warning(
                "%s: it or the roads have no coordinate reference system; that of the other is taken",
                dem.info.path,
            )
        metric, self._factor = known, 1.0
        if known is not None and (known.is_geographic or known.is_projected):
            centre = (points.min(axis=0, keepdims=True) + points.max(axis=0)) / 2
            longitude, latitude = _transformation(known, _WGS84)(centre)[0]
            if not (abs(longitude) <= 360 and abs(latitude) <= 90):
                raise DataError(
                    f"the roads lie around {centre[0, 0]:g} {centre[0, 1]:g}, which is nowhere in {known.name}; "
                    "correct their coordinate reference system"
                )
            metric = pyproj.CRS(metric_crs(_WGS84.to_string(), (longitude, latitude)))
        elif known is not None:
            self._factor = known.axis_info[0].unit_conversion_factor or 1.0
        try:
            self._map_to_metric, self._map_to_dem = _transformation(known, metric), _transformation(known, target)
            self._metric_to_dem = _transformation(metric, target)
        except pyproj.exceptions.ProjError:
            raise DataError(
                f"{dem.info.path}: there is no way from the roads' coordinate reference system to its own; reproject it"
            ) from None

    def metres(self, xy: np.ndarray) -> np.ndarray:
        """Return points (N, 2) of the map in metres."""
        return self._map_to_metric(xy) * self._factor

    def heights(self, xy: np.ndarray) -> np.ndarray:
        """Return the heights (N,) at points (N, 2) in metres, nan where they are unknown."""
        return self._dem.at(self._metric_to_dem(xy / self._factor))

    def dem_pixel_m(self, place: np.ndarray) -> float:
        """Return how many metres a pixel of the DEM has around a ``place`` (2,) in metres."""
        corner, right, up = self._dem.pixels(self._metric_to_dem((place + np.eye(3, 2, -1)) / self._factor))
        return float(1 / np.sqrt(abs(np.linalg.det([right - corner, up - corner]))))

    def check_overlap(self, name: str) -> None:
        """Raise a DataError if the bounds of the roads, called ``name``, are beside the DEM."""
        pixels = self._dem.pixels(self._map_to_dem(self._points))
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        if not ((high >= 0) & (low <= [self._dem.info.width - 1, self._dem.info.height - 1])).all():
            raise DataError(
                f"{self._dem.info.path}: does not overlap {name}, which would be at its columns {low[0]:.0f} to "
                f"{high[0]:.0f} of {self._dem.info.width} and rows {low[1]:.0f} to {high[1]:.0f} of "
                f"{self._dem.info.height}; give the DEM of the same place, or correct its georeference"
            )


def _transformation(source: pyproj.CRS | None, target: pyproj.CRS | None) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that takes points (N, 2) from one coordinate reference system to another."""
    if source is None or target is None or source == target:
        return lambda xy: xy
    transformer = pyproj.Transformer.from_crs(source, target, always_xy=True)
    return lambda xy: np.stack(transformer.transform(xy[:, 0], xy[:, 1]), axis=1)


@dataclass
class _Profile:
    """What is known along an edge.

    Attributes:
        vertices: distances (V,) of the line's points from its start, metres.
        at: distances (N,) of the stations from the start, metres; evenly spaced.
        height: of the stations (N,), metres, smoothed; nan where unknown, as in all below.
        grade: at the stations (N,), percent.
        cross_fall: at the stations (N,), percent, positive where the road falls to the right.
        share: of the stations where the DEM knows a height.
    """

    vertices: np.ndarray
    at: np.ndarray
    height: np.ndarray
    grade: np.ndarray
    cross_fall: np.ndarray
    share: float


def _profile(ground: _Ground, line: np.ndarray, width_m: float, settings: HeightSettings) -> _Profile:
    """Return what the DEM tells along a ``line`` (V, 2) of the map."""
    metres = ground.metres(line)
    vertices = stations(metres)
    step = settings.grade_over_m / _SAMPLES
    at = np.linspace(0, vertices[-1], max(1, int(np.ceil(vertices[-1] / step))) + 1)
    places = points_at(metres, at)
    if ground.dem_pixel_m(places[len(places) // 2]) <= _FINE * width_m:
        reach = 0.3 * width_m
        ahead = points_at(metres, at + reach) - points_at(metres, at - reach)
        right = np.stack([ahead[:, 1], -ahead[:, 0]], axis=1) / np.maximum(np.hypot(*ahead.T), 1e-9)[:, None]
        offsets = _ACROSS * width_m
        across = places[:, None] + offsets[:, None] * right[:, None]
        slope, height = _fitted(offsets, ground.heights(across.reshape(-1, 2)).reshape(len(at), -1))
        cross_fall = -100 * slope
    else:
        height = ground.heights(places)
        cross_fall = np.full(len(at), np.nan)
    share = float(np.isfinite(height).mean())
    height, grade = _running(at, _bridged(at, height, settings.bridge_m), settings)
    return _Profile(vertices, at, height, grade, cross_fall, share)


def _bridged(at: np.ndarray, heights: np.ndarray, longest: float) -> np.ndarray:
    """Return ``heights`` (N,) with a straight line across unknown ones between known ones up to ``longest`` apart."""
    known = np.flatnonzero(np.isfinite(heights))
    if len(known) == 0:
        return heights
    after = np.searchsorted(known, np.arange(len(at))).clip(max=len(known) - 1)
    before = np.searchsorted(known, np.arange(len(at)), side="right") - 1
    near = (before >= 0) & (at[known[after]] - at[known[before]] <= longest) & (known[after] >= np.arange(len(at)))
    return np.where(near, np.interp(at, at[known], heights[known]), heights)


def _running(at: np.ndarray, heights: np.ndarray, settings: HeightSettings) -> tuple[np.ndarray, np.ndarray]:
    """Return height (N,) and grade (N,), in percent, of the line fitted to the ``heights`` (N,) around each station.

    Each line is over the stated distance, or over the whole edge where that is shorter; at the ends of an edge the
    last one holds, also for heights that are unknown there: at the border of a map the road goes on, the DEM does not.
    Where less than half of the distance is known there is no grade, and the height stays as it is.
    """
    distance = settings.grade_over_m
    spacing = at[1] - at[0] or distance
    count = min(len(at), round(distance / spacing) + 1)
    windows = np.lib.stride_tricks.sliding_window_view(heights, count)
    offsets = (np.arange(count) - (count - 1) / 2) * spacing
    slope, middle = _fitted(offsets, windows, max(2, int(np.ceil(distance / spacing / 2)) + 1))
    own = (np.arange(len(at)) - count // 2).clip(0, len(windows) - 1)
    smooth = middle[own] + slope[own] * (at - at[own] - (count - 1) / 2 * spacing)
    smooth = np.where(np.isfinite(smooth), smooth, heights)
    known = np.isfinite(heights)
    if known.any():
        first, last = at[known][[0, -1]]
        beyond = np.maximum(first - at, at - last)
        known |= (beyond > 0) & (beyond <= settings.bridge_m)
    return np.where(known, smooth, np.nan), 100 * slope[own]


def _fitted(offsets: np.ndarray, heights: np.ndarray, needed: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return slopes (N,), and heights (N,) at offset 0, of lines through rows of heights that outliers do not move.

    The line by repeated medians tells the outliers; that by least squares through the others is the result, for it
    is less sensitive to noise and where the slope changes.

    Args:
        offsets: places (K,) of the heights.
        heights: (N, K), nan where unknown.
        needed: with less known heights a row has no line; more than half of K when None.
    """
    needed = len(offsets) // 2 + 1 if needed is None else needed
    apart = offsets[:, None] - offsets
    np.fill_diagonal(apart, np.nan)
    fits = [np.empty((2, 0))]
    for start in range(0, len(heights), _FITS):
        part = heights[start : start + _FITS]
        slope = _median(_median((part[:, :, None] - part[:, None]) / apart))
        slope[np.isfinite(part).sum(axis=1) < needed] = np.nan
        level = part - slope[:, None] * offsets
        away = np.abs(level - _median(level)[:, None])
        inliers = away <= np.maximum(_NEAR_M, 3 * 1.4826 * _median(away))[:, None]  # 3 standard deviations
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


def _median(values: np.ndarray) -> np.ndarray:
    """Return the medians over the last axis, nan left out; NumPy's own takes ten times as long."""
    ordered = np.sort(values, axis=-1)
    count = np.isfinite(values).sum(axis=-1, keepdims=True)
    low, high = (np.take_along_axis(ordered, at.clip(min=0), -1)[..., 0] for at in ((count - 1) // 2, count // 2))
    return np.where(count[..., 0] > 0, (low + high) / 2, np.nan)


def _with_heights(
    layers: RoadLayers, lines: list[np.ndarray], profiles: list[_Profile], settings: HeightSettings
) -> HeightLayers:
    """Return the tables with what the ``profiles`` of their ``lines`` tell."""
    edges, nodes = layers.edges, layers.nodes
    ends = np.concatenate([edges["node_from"], edges["node_to"]])
    heights = np.array([profile.height[end] for end in (0, -1) for profile in profiles], float)
    at_nodes = pd.Series(heights).groupby(ends).median().reindex(nodes["node_id"])
    for profile, start, end in zip(profiles, edges["node_from"], edges["node_to"], strict=True):
        _meet(profile, float(at_nodes[start]), float(at_nodes[end]), settings.grade_over_m)
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


def _meet(profile: _Profile, start: float, end: float, distance: float) -> None:
    """Bring a profile to the heights of its nodes, over ``distance`` lest there be a step."""
    at, reach = profile.at, min(distance, profile.at[-1]) or distance
    ends = ((0, start, at), (-1, end, at[-1] - at))
    moves = [(height - profile.height[place]) * (1 - away / reach).clip(0) for place, height, away in ends]
    for (place, height, _), move in zip(ends, moves, strict=True):
        if np.isfinite(height):
            profile.height += move
            profile.height[place] = height


def _grade_columns(profiles: list[_Profile], settings: HeightSettings) -> dict[str, np.ndarray]:
    """Return what the edges' table has more."""
    largest = np.array([np.fmax.reduce(np.abs(profile.grade)) for profile in profiles], float)
    cross_fall = np.array([_median(np.abs(profile.cross_fall)) for profile in profiles], float)
    return {
        "grade_mean_percent": np.array([_mean_grade(profile) for profile in profiles], float),
        "grade_max_percent": largest,
        "cross_fall_percent": cross_fall,
        "grade_exceeded": largest > settings.max_grade_percent,
        "cross_fall_exceeded": cross_fall > settings.max_cross_fall_percent,
        "height_share": np.array([profile.share for profile in profiles], float),
    }


def _mean_grade(profile: _Profile) -> float:
    known = np.flatnonzero(np.isfinite(profile.height))
    if not np.isfinite(profile.grade).any():
        return np.nan
    first, last = known[[0, -1]]
    return float(100 * (profile.height[last] - profile.height[first]) / (profile.at[last] - profile.at[first]))


def _stretches(
    line: np.ndarray, profile: _Profile, settings: HeightSettings
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
        cross_fall = float(_median(profile.cross_fall[here]))
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
