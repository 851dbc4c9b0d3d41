"""Lines with fewer points."""

from __future__ import annotations

from itertools import pairwise

import networkx as nx
import numpy as np
from skimage.measure import approximate_polygon

from .polyline import length, project


def simplify_lines(graph: nx.MultiGraph, tolerance: float) -> None:
    """Simplify each edge's line and update its length; change ``graph``."""
    for *_, data in graph.edges(data=True):
        data["line"] = simplify_line(data["line"], tolerance)
        data["length"] = length(data["line"])


def simplify_line(line: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the points of ``line`` (N, 2) that are needed to stay within ``tolerance`` of all of them.

    A closed line, whose last point is its first, keeps three points or more. Method: Douglas and Peucker, "Algorithms
    for the reduction of the number of points required to represent a digitized line or its caricature",
    Cartographica 1973.
    """
    simple = approximate_polygon(line, tolerance)
    if len(simple) > 3 or (line[0] != line[-1]).any():
        return simple
    far = int(np.hypot(*(line - line[0]).T).argmax())
    aside = np.array([project(line[[0, far]], point)[0] for point in line])
    aside[[0, far, -1]] = -1
    corners = sorted({0, far, int(aside.argmax()), len(line) - 1})
    parts = [approximate_polygon(line[start : end + 1], tolerance)[1:] for start, end in pairwise(corners)]
    return np.concatenate([line[:1], *parts])
