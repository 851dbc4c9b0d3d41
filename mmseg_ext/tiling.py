"""Windows that cover an image; numbers only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

# rows and columns of the tiles of a map, and of what neighbours share, unless one says otherwise
TILE_PX, OVERLAP_PX = 1024, 256


def overlapping_starts(length: int, tile: int, overlap: int, step: int = 1) -> list[int]:
    """Return the starts of the fewest tiles that cover ``length``, spread evenly.

    Neighbours overlap by at least ``overlap``; every tile lies inside, unless ``length`` is smaller than one. With a
    ``step``, which ``tile`` is a multiple of, all starts are multiples of it and the last tile may reach out by less.
    """
    if length <= tile:
        return [0]
    length, tile, overlap = math.ceil(length / step), tile // step, math.ceil(overlap / step)
    count = math.ceil((length - overlap) / (tile - overlap))
    return [step * round(i * (length - tile) / (count - 1)) for i in range(count)]


def even_parts(length: int, tile: int) -> list[tuple[int, int]]:
    """Return (start, size) of the fewest parts of at most ``tile`` that make up ``length`` without overlap."""
    count = math.ceil(length / tile)
    edges = [round(i * length / count) for i in range(count + 1)]
    return [(start, end - start) for start, end in pairwise(edges)]


def windows(height: int, width: int, tile: int, overlap: int | None) -> list[tuple[int, int, int, int]]:
    """Return (row, column, height, width) of the windows that cover an image, row by row.

    Args:
        height: rows of the image.
        width: columns of the image.
        tile: largest rows and columns of a window.
        overlap: least overlap of neighbours in pixels, below ``tile``; None parts the image without overlap.
    """

    def along(length: int) -> list[tuple[int, int]]:
        if overlap is None:
            return even_parts(length, tile)
        return [(start, min(tile, length)) for start in overlapping_starts(length, tile, overlap)]

    return [(row, column, h, w) for row, h in along(height) for column, w in along(width)]


def blend_weights(starts: Sequence[int], tile: int) -> np.ndarray:
    """Return the weight of each pixel of each tile along one axis; at every pixel the tiles' weights sum up to 1.

    A weight rises and falls as a raised cosine over the middle half of the overlap with the neighbour, and is flat
    elsewhere: the outer quarter of a tile's overlap, where networks see least of the surroundings, counts for nothing.

    Args:
        starts: starts of the tiles, ascending, without gaps; what `overlapping_starts` returned.
        tile: pixels of a tile.

    Returns:
        (tiles, ``tile``) float32.
    """
    weights = np.ones((len(starts), tile))
    for i, (start, following) in enumerate(pairwise(starts)):
        overlap = start + tile - following
        unused = overlap // 4
        along = (np.arange(overlap) + 0.5 - unused) / max(overlap - 2 * unused, 1)
        ramp = np.sin(np.pi / 2 * np.clip(along, 0, 1)) ** 2
        weights[i, tile - overlap :] *= ramp[::-1]
        weights[i + 1, :overlap] *= ramp
    # two ramps sum up to 1 by themselves; where the last tiles stand close together, three and more tiles meet
    total = np.zeros(starts[-1] + tile)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + tile] += weight
    return np.stack(
        [weight / total[start : start + tile] for start, weight in zip(starts, weights, strict=True)]
    ).astype(np.float32)
