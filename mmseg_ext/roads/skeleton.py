"""Centrelines of road masks, and how wide the road is around them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import cv2
import numpy as np
from scipy.ndimage import label
from scipy.spatial import KDTree
from skimage.morphology import skeletonize

_REACH_PX = 2.0
_THREADS = min(4, os.cpu_count() or 1)  # each holds a tile
_AROUND = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if (row, column) != (0, 0)]


def skeleton(mask: np.ndarray) -> np.ndarray:
    """Return the centrelines of a road mask, one pixel wide.

    The image's border is no end of a road: a road that leaves the image has a centreline that runs straight to the
    border. A road that lies along the border keeps a centreline in the middle of what is seen of it. Where all is road,
    the line is what remains in the middle. In the mask, bool or uint8 (H, W), non-zero is road.

    Returns:
        bool (H, W), 8-connected, inside the mask. Each piece of the mask has a centreline with as many holes as the
        piece, in one part unless it leaves the image in between (Zhang and Suen, "A fast parallel algorithm for
        thinning digital patterns", CACM 1984).
    """
    mask = np.asarray(mask, bool)
    if mask.all():
        return skeletonize(mask)
    extended, margin = _extended(mask)
    height, width = mask.shape
    lines = skeletonize(extended)[margin : margin + height, margin : margin + width]
    pieces, count = label(mask, np.ones((3, 3)))
    lost = np.setdiff1d(np.arange(1, count + 1), pieces[lines])  # their middle is outside the image
    return lines | skeletonize(np.isin(pieces, lost)) if len(lost) else lines


def half_width(mask: np.ndarray) -> np.ndarray:
    """Return the distance of each road pixel's centre to that of the nearest pixel beside the road, (H, W) float64.

    On a centreline, ``2 * half_width - 1`` is the width of the road in pixels: exact for a level or upright road of an
    odd width; one pixel less for an even width, which has no pixel in its middle; up to two less for an oblique road.
    The image's border is not the road's edge: the distance is to pixels inside the image only, which is the same as
    repeating the outermost pixels beyond it. A mask that is all road ends at the border, and is as wide as the image.
    """
    mask = np.asarray(mask, bool)
    if mask.all():
        return _distance(np.pad(mask, 1))[1:-1, 1:-1]
    return _distance(mask)


def _distance(mask: np.ndarray) -> np.ndarray:
    # a fraction of the time of scipy's; its float32 depends on the place in the image, the square is a whole number
    rough = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.sqrt(np.rint(rough.astype(np.float64) ** 2))


def _extended(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Return ``mask`` with its outermost pixels repeated beyond the border where roads leave, and how many times."""
    margin = 1 + int(half_width(mask).max())  # the end of a road shapes its centreline that far
    extended = np.pad(mask, margin, mode="edge")
    for turn in range(4):
        beyond = np.rot90(extended, turn)[:margin]  # a view: writing to it writes to the image
        inside = np.rot90(mask, turn)
        for start, end in _runs_along(inside):
            first = margin + start if start > 0 else 0
            last = margin + end if end < inside.shape[1] else None
            beyond[:, first:last] = False
    return extended, margin


def _runs_along(mask: np.ndarray) -> list[tuple[int, int]]:
    """Return (start, end) of the runs of road pixels in the first row along which a road lies, rather than leaves.

    Such a run is long for the depth of the road behind it (a road at 45 degrees is half as deep on average, and as
    deep at most, as its run is long), or the road soon widens to both sides, as a bend does that touches the border.
    """
    depth = np.where(mask.all(axis=0), len(mask), (~mask).argmax(axis=0))
    runs = np.flatnonzero(np.diff(mask[0], prepend=False, append=False)).reshape(-1, 2).tolist()

    behind = mask[min(2, len(mask) - 1)]

    def along(start: int, end: int) -> bool:
        deep = depth[start:end]
        widens = 2 <= start and end <= len(behind) - 2 and behind[start - 2 : end + 2].all()
        return widens or end - start > min(4 * deep.mean(), 2 * deep.max())

    return [(start, end) for start, end in runs if along(start, end)]


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

    def room_around(self, xy: np.ndarray) -> np.ndarray:
        """Return how far (N,) points (N, 2) are at least from the nearest pixel's centre beside the road; 0 on others.

        It is what the largest disc on the road around the nearest pixel of the centreline leaves.
        """
        apart, nearest = self._tree.query(xy[:, ::-1])
        return np.maximum(self.half_width[nearest] - apart, 0)

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


def tiled_centreline(
    read: Callable[[int, int, int, int], np.ndarray],
    shape: tuple[int, int],
    *,
    tile_px: int = 2048,
    halo_px: int = 256,
    done: Callable[[], object] = lambda: None,
) -> tuple[Centreline, list[tuple[int, int, float]]]:
    """Return the centreline of a mask of any size, of which a few tiles are in memory, each for a thread.

    It is that of the mask in one piece wherever the road is not wider than `widest_px` of the halo.

    Args:
        read: returns rows and columns of the mask, (row, column, height, width) -> (height, width), non-zero is road.
        shape: rows and columns of the mask.
        tile_px: rows and columns of a tile.
        halo_px: how far around a tile the mask is read.
        done: called after every tile.

    Returns:
        the centreline, and (row, column, width in pixels) of the tiles where the road is wider.
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
            wide.append((row, column, widest))
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
