"""Lines of points: length, points along them, parts of them, smoother lines, fewer points."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from scipy.linalg import solveh_banded
from skimage.measure import approximate_polygon

_ROUNDS = 10  # of weights, until no point moves too far; what is left of that is cut
_NEAR = 1e-9
_LONGEST = 10_000.0  # wavelength: beyond it, in long lines, the points weigh less than the rounding
_PARTS = 256  # of the unit in the coordinates of a smooth line: finer is noise, coarser would show


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


def smooth_line(
    line: np.ndarray, wavelength: float, reach: Callable[[np.ndarray], np.ndarray], ring: bool = False
) -> np.ndarray:
    """Return ``line`` (N, 2) without wiggles that are shorter along it than ``wavelength``; wider bends stay.

    Waves of that length lose half their amplitude, those of twice the length 6 %. The ends stay where they are; of a
    ``ring`` they are one point, which moves like the others. ``reach`` returns how far each of many points (M, 2) may
    move (M,), 0 or more. Method: least squares with a penalty on second differences (Whittaker 1923; Eilers, "A perfect
    smoother", Analytical Chemistry 2003), with more weight where points would move too far.

    Returns:
        points (M, 2), evenly at most 1 apart before they moved; the line itself where it is too short to have wiggles.
    """
    total = length(line)
    count = int(np.ceil(total))
    if count < 4 or wavelength == 0:
        return line
    even = points_at(line, np.linspace(0, total, count + 1))
    limit = reach(even)
    around = min(count - 1, int(3 * wavelength) + 1) if ring else 0  # beyond which nothing matters to the ring's points
    even, limit = (np.concatenate([each[-1 - around : -1], each, each[1 : 1 + around]]) for each in (even, limit))
    penalty = (min(wavelength, _LONGEST) / (2 * np.pi)) ** 4
    bends = np.diff(even, 2, axis=0)
    pull = -penalty * np.diff(np.pad(bends, ((1, 1), (0, 0))), 2, axis=0)
    bands = penalty * np.repeat([[1.0], [-4.0], [6.0]], len(pull), axis=1)
    bands[2, [0, -1]] -= penalty
    weight, limit = np.ones(len(pull)), limit[1:-1]
    for _ in range(_ROUNDS):
        moved = solveh_banded(bands + [[0], [0], [1]] * weight, pull)
        far = np.hypot(*moved.T) / np.maximum(limit, _NEAR)
        if far.max() <= 1:
            break
        weight *= np.where(far > 1, np.clip(far, 1.5, 10) ** 2, 1)
    even[1:-1] = np.rint((even[1:-1] + moved / np.maximum(far, 1)[:, None]) * _PARTS) / _PARTS
    even = even[around : len(even) - around]
    if ring:
        even[-1] = even[0]
    return even


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
