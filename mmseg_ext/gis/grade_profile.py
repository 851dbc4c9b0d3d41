"""Heights, grades and cross-falls along a road."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..roads.polyline import points_at, stations
from .dem import Ground
from .robust_line import fitted_lines

_SAMPLES = 20  # steps between heights over the distance of a grade
_ACROSS = np.linspace(-0.3, 0.3, 10)  # where heights are taken across the road, in widths; off its edges and berms
_FINE = 0.2  # largest pixel of the DEM, in widths, for which these heights are of the carriageway alone
_NOWHERE_M = 1e-9  # a road that goes no farther has no direction


@dataclass
class Profile:
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

    @property
    def mean_grade(self) -> float:
        """Rise from the first to the last known height over the distance between, percent; nan without any grade."""
        if not np.isfinite(self.grade).any():
            return np.nan
        first, last = np.flatnonzero(np.isfinite(self.height))[[0, -1]]
        return float(100 * (self.height[last] - self.height[first]) / (self.at[last] - self.at[first]))

    def meet(self, start: float, end: float, distance_m: float) -> None:
        """Bring the ends to the heights of their nodes, nan where unknown, over a distance lest there be a step."""
        reach = min(distance_m, self.at[-1]) or distance_m
        ends = ((0, start, self.at), (-1, end, self.at[-1] - self.at))
        steps = [height - self.height[place] for place, height, _ in ends]
        for (place, height, away), step in zip(ends, steps, strict=True):
            if np.isfinite(step):
                self.height += step * (1 - away / reach).clip(0)
            if np.isfinite(height):
                self.height[place] = height


def profile_along(ground: Ground, line: np.ndarray, width_m: float, grade_over_m: float, bridge_m: float) -> Profile:
    """Return what the DEM tells along a road.

    Args:
        ground: under the roads.
        line: points (V, 2) of the road on the map.
        width_m: of the road.
        grade_over_m: distance over which a grade is measured.
        bridge_m: longest stretch without heights that is bridged, or at an end reached by going on straight.
    """
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
