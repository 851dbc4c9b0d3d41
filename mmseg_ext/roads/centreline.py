"""The pixels of centrelines, and how wide the road is around each."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from scipy.spatial import KDTree

from .skeleton import half_width, skeleton

_REACH_PX = 2.0
_THREADS = min(4, os.cpu_count() or 1)  # each holds a tile
_AROUND = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if (row, column) != (0, 0)]


@dataclass(frozen=True)
class Centreline:
    """What a road graph is made of: it grows with the length of the roads, not with the image.

    Attributes:
        rc: (row, column) of each pixel of the skeleton, int64 (N, 2), in the order of rows, then columns.
        half_width: of the road at each, (N,), as `skeleton.half_width` says.
        shape: rows and columns of the image.
    """

    rc: np.ndarray
    half_width: np.ndarray
    shape: tuple[int, int]

    @classmethod
    def of_mask(cls, mask: np.ndarray) -> Centreline:
        """Return the centreline of a mask, bool or uint8 (H, W), non-zero is road."""
        rc = np.argwhere(skeleton(mask))
        height, width = mask.shape
        return cls(rc, half_width(mask)[tuple(rc.T)], (height, width))

    @cached_property
    def _tree(self) -> KDTree:
        return KDTree(self.rc)

    def half_width_at(self, xy: np.ndarray) -> np.ndarray:
        """Return the half width (N,) at points (N, 2) of the centreline, of the nearest pixel; 0 beside it."""
        if not len(self.rc):
            return np.zeros(len(xy))
        _, nearest = self._tree.query(xy[:, ::-1], distance_upper_bound=_REACH_PX)
        return np.append(self.half_width, 0)[nearest]

    def neighbours(self) -> np.ndarray:
        """Return the places in ``rc`` of the eight pixels around each, int32 (N, 8), -1 where there is none."""
        key = self.rc[:, 0] * (self.shape[1] + 2) + self.rc[:, 1]
        found = np.full((len(key), 8), -1, np.int32)
        for side, (row, column) in enumerate(_AROUND):
            wanted = key + row * (self.shape[1] + 2) + column
            place = np.searchsorted(key, wanted).clip(0, len(key) - 1)
            there = key[place] == wanted
            found[there, side] = place[there]
        return found


@dataclass(frozen=True)
class WideArea:
    """A tile with road too wide for what is seen around it.

    Attributes:
        row: of the tile's first pixel.
        column: of the tile's first pixel.
        width_px: of the road at its widest, pixels, as far as it was seen.
    """

    row: int
    column: int
    width_px: float


def tiled_centreline(
    read: Callable[[int, int, int, int], np.ndarray],
    shape: tuple[int, int],
    *,
    tile_px: int = 2048,
    halo_px: int = 256,
    done: Callable[[], object] = lambda: None,
) -> tuple[Centreline, list[WideArea]]:
    """Return the centreline of a mask of any size, of which a few tiles are in memory, each for a thread.

    It is that of the mask in one piece wherever the road is not wider than `widest_px` of the halo.

    Args:
        read: returns rows and columns of the mask, (row, column, height, width) -> (height, width), non-zero is road.
        shape: rows and columns of the mask.
        tile_px: rows and columns of a tile.
        halo_px: how far around a tile the mask is read.
        done: called after every tile.

    Returns:
        the centreline, and the tiles where the road is wider.
    """
    height, width = shape
    places, halves, wide = [np.empty((0, 2), np.int64)], [np.empty(0)], []
    waiting: deque[tuple[int, int, bool, Future]] = deque()

    def take() -> None:
        row, column, whole, found = waiting.popleft()
        rc, half, widest = found.result()
        places.append(rc + np.array([row, column]))
        halves.append(half)
        if widest > widest_px(halo_px) and not whole:
            wide.append(WideArea(row, column, widest))
        done()

    with ThreadPoolExecutor(_THREADS) as pool:
        for row, column in product(range(0, height, tile_px), range(0, width, tile_px)):
            top, left = max(row - halo_px, 0), max(column - halo_px, 0)
            bottom, right = min(row + tile_px + halo_px, height), min(column + tile_px + halo_px, width)
            mask = np.asarray(read(top, left, bottom - top, right - left), bool)
            inner = (slice(row - top, row - top + tile_px), slice(column - left, column - left + tile_px))
            waiting.append((row, column, mask.shape == shape, pool.submit(_in_tile, mask, inner)))
            if len(waiting) > _THREADS:
                take()
        while waiting:
            take()
    rc, half = np.concatenate(places), np.concatenate(halves)
    order = np.lexsort(rc.T[::-1])
    return Centreline(rc[order], half[order], shape), wide


def _in_tile(mask: np.ndarray, inner: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the centreline's pixels (N, 2) in a part of a mask, the half widths there, and the widest road in it."""
    if not mask[inner].any():
        return np.empty((0, 2), np.int64), np.empty(0), 0.0
    half = half_width(mask)[inner]
    rc = np.argwhere(skeleton(mask)[inner])
    return rc, half[tuple(rc.T)], 2 * float(half.max()) - 1


def widest_px(halo_px: int) -> float:
    """Return how wide a road may be for a halo to show what shapes its centreline."""
    return halo_px / 2
