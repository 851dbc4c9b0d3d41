"""Pieces of road that are too small, and holes in roads that are, in a mask of any height."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..geo import PixelFrame

_BAND_ROWS = 128
_EVERY_PX = 256
_EQUAL = 1e-6

# first row, and uint8 (2, h, W): the label of each pixel, and the one that it takes if it changes sides
_Band = tuple[int, np.ndarray]
_Bands = Callable[[], Iterator[_Band]]


@dataclass(frozen=True)
class Cleaning:
    """Fills small holes in roads, then drops small pieces of road, each measured whole with its holes filled.

    Pixels of a piece touch at a side or a corner, those of a hole at a side. A hole is what road encloses, be there
    nodata in it, which stays nodata; what reaches the raster's border is none.

    Attributes:
        frame: of the raster; areas are in its ``unit``, squared.
        shape: rows and columns of the raster.
        roads: labels that are road.
        nodata: label where nothing is known.
        min_area: smallest piece that is kept.
        fill_holes: smallest hole that stays.
    """

    frame: PixelFrame
    shape: tuple[int, int]
    roads: Sequence[int]
    nodata: int
    min_area: float = 0.0
    fill_holes: float = 0.0

    def __call__(self, strips: _Bands) -> Iterator[tuple[int, np.ndarray]]:
        """Yield first row and labels (h, W) of the mask, cleaned, from the top to the bottom.

        The ``strips`` are read up to three times, from the top to the bottom. Memory holds some rows, and what is known
        of the pieces that cross their borders.
        """

        def bands() -> Iterator[_Band]:
            for row, layers in strips():
                for start in range(0, layers.shape[1], _BAND_ROWS):
                    yield row + start, layers[:, start : start + _BAND_ROWS]

        filled = self._without_small(bands, self.fill_holes, of_road=False) if self.fill_holes else bands
        kept = self._without_small(filled, self.min_area, of_road=True) if self.min_area else filled
        return ((row, layers[0]) for row, layers in kept())

    def _without_small(self, bands: _Bands, limit: float, of_road: bool) -> _Bands:
        """Return ``bands`` in which pieces below a ``limit`` have changed sides."""
        limit *= 1 - _EQUAL
        areas, pairs, done, above = [np.empty(0)], [np.empty((0, 2), int)], 0, np.zeros(self.shape[1], int)
        for row, layers in bands():
            numbers, area, crossing = self._pieces(row, layers[0], of_road)
            known = np.zeros(len(area), int)
            known[crossing] = done + 1 + np.arange(len(crossing))
            pairs.append(_touching(above, known[numbers[0]], diagonally=of_road))
            areas.append(area[crossing])
            done, above = done + len(crossing), known[numbers[-1]]
        first, second = np.concatenate(pairs).T - 1
        _, whole = connected_components(coo_array((np.ones(len(first), bool), (first, second)), shape=(done, done)))
        small = (np.bincount(whole, np.concatenate(areas)) < limit)[whole]

        def changed() -> Iterator[_Band]:
            done = 0
            for row, layers in bands():
                numbers, area, crossing = self._pieces(row, layers[0], of_road)
                change = area < limit
                change[crossing] = small[done : done + len(crossing)]
                change[0] = False
                done += len(crossing)
                yield row, np.where(change[numbers] & (layers[0] != self.nodata), layers[::-1], layers)

        return changed

    def _pieces(self, row: int, labels: np.ndarray, of_road: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the number of each pixel's piece (h, W), 0 for none, their areas by number, and which may go on.

        A hole that is open has an infinite area.
        """
        inside = np.isin(labels, self.roads) == of_road
        numbers, count = label(inside, np.ones((3, 3)) if of_road else None)
        area = np.bincount(numbers.ravel(), self._pixel_areas(row, *labels.shape).ravel(), count + 1)
        if not of_road:
            ends = [rows for rows, end in ((0, row == 0), (-1, row + len(labels) == self.shape[0])) if end]
            for border in (numbers[:, [0, -1]], numbers[ends]):
                area[border] = np.inf
        return numbers, area, np.setdiff1d(numbers[[0, -1]], 0)

    def _pixel_areas(self, row: int, height: int, width: int) -> np.ndarray:
        """Return the area of each pixel (height, width) of some rows, as if it were one along rows times columns."""
        middle = (width - 1) / 2, row + (height - 1) / 2
        columns = np.linspace(0, width - 1, width // _EVERY_PX + 2)
        along, down = (
            self.frame.pixel_area(np.stack(np.broadcast_arrays(x, y), axis=1))
            for x, y in ((columns, middle[1]), (middle[0], np.arange(row, row + height)))
        )
        return np.outer(down / self.frame.pixel_area(np.array([middle])), np.interp(np.arange(width), columns, along))


def _touching(above: np.ndarray, below: np.ndarray, diagonally: bool) -> np.ndarray:
    """Return the pairs (N, 2) of numbers above 0 of two rows (W,) that touch."""
    pairs = [np.stack([above, below], axis=1)]
    if diagonally:
        pairs += [np.stack([above[1:], below[:-1]], axis=1), np.stack([above[:-1], below[1:]], axis=1)]
    found = np.concatenate(pairs)
    return np.unique(found[(found > 0).all(axis=1)], axis=0)
