"""Lines of points: length, points along them, parts of them, fewer points."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from skimage.measure import approximate_polygon


def stations(line: np.ndarray) -> np.ndarray:
    """Return the distance of each point of ``line`` (N, 2) from its start along the line, (N,)."""
    return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])


def length(line: np.ndarray) -> float:
    """Return the length of ``line`` (N, 2), in the unit of its coordinates."""
    return float(stations(line)[-1])


def points_at(line: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Return the points (M, 2) at ``distances`` (M,) from the start along ``line`` (N, 2); beyond an end, the end."""
    at = stations(line)
    return np.stack([np.interp(distances, at, line[:, 0]), np.interp(distances, at, line[:, 1])], axis=1)


def parts_of(line: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Part ``line`` (N, 2) evenly into the fewest pieces of at most ``spacing``; return their middles and lengths (M,).

    The middles are (M, 2).
    """
    total = length(line)
    count = max(1, int(np.ceil(total / spacing)))
    middles = points_at(line, (np.arange(count) + 0.5) * (total / count))
    return middles, np.full(count, total / count)


def cut(line: np.ndarray, start: float, end: float) -> np.ndarray:
    """Return the part of ``line`` (N, 2) between two distances from its start, both ends included."""
    at = stations(line)
    inside = line[(at > start) & (at < end)]
    ends = points_at(line, np.array([start, end]))
    return np.concatenate([ends[:1], inside, ends[1:]])


def project(line: np.ndarray, point: np.ndarray) -> tuple[float, float]:
    """Return how far ``point`` (2,) is from ``line`` (N, 2), and how far from the line's start its foot is."""
    starts, steps = line[:-1], np.diff(line, axis=0)
    squared = (steps**2).sum(axis=1)
    share = ((point - starts) * steps).sum(axis=1) / np.where(squared > 0, squared, 1)
    feet = starts + np.clip(share, 0, 1)[:, None] * steps
    distances = np.hypot(*(feet - point).T)
    nearest = int(distances.argmin())
    along = stations(line)[nearest] + float(np.hypot(*(feet[nearest] - starts[nearest])))
    return float(distances[nearest]), along


def simplify_line(line: np.ndarray, tolerance: float, bent: bool = False) -> np.ndarray:
    """Return the points of ``line`` (N, 2) that are needed to stay within ``tolerance`` of all of them.

    A closed line, whose last point is its first, keeps three points or more; so does a ``bent`` one. Method: Douglas
    and Peucker, "Algorithms for the reduction of the number of points required to represent a digitized line or its
    caricature", Cartographica 1973.
    """
    simple = approximate_polygon(line, tolerance)
    closed = (line[0] == line[-1]).all()
    if len(simple) > 3 or not (closed or (bent and len(simple) == 2 < len(line))):
        return simple
    if not closed:
        corner = max(range(1, len(line) - 1), key=lambda place: project(line[[0, -1]], line[place])[0])
        return line[[0, corner, -1]]
    far = int(np.hypot(*(line - line[0]).T).argmax())
    aside = np.array([project(line[[0, far]], point)[0] for point in line])
    aside[[0, far, -1]] = -1
    corners = sorted({0, far, int(aside.argmax()), len(line) - 1})
    parts = [approximate_polygon(line[start : end + 1], tolerance)[1:] for start, end in pairwise(corners)]
    return np.concatenate([line[:1], *parts])
