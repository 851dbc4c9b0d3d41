"""A raster of any height in tiles: where they stand, how they blend, and the strips of rows that they finish."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TypeVar

import cv2
import numpy as np

from ..errors import ConfigError
from ..geo import RasterArea, RasterSource
from ..imagery.reading import ImageReading
from ..runtime.facts import MapModel
from ..tiling import blend_weights, overlapping_starts

_BATCHES_AHEAD = 2

# what was read at one place: the image, None where nothing is to be mapped, and masks of what is to be
_Tile = tuple[np.ndarray | None, list[np.ndarray]]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class TilePlan:
    """A grid of overlapping tiles, all of one size, and the strips of rows that they finish.

    Strip i is the rows that are done when the tile rows 0 to i are, and were not done before: the strips make up all
    rows. A raster smaller than a tile gets one tile of its own size.

    The output of a network that halves its image five times depends on where its squares of 32 pixels begin. At scale
    1, and if a tile is made of such squares, all tiles begin at one, as those of the whole raster do, and the last
    ones may reach out of it by less than a square; elsewhere all tiles lie inside.

    Args:
        height: rows of the raster.
        width: columns of the raster.
        tile_px: rows and columns of a tile, after scaling.
        overlap_px: least overlap of neighbours, after scaling; up to half a tile.
        scale: pixels given to the network for one pixel of the raster.
        stride: side of the network's squares in pixels.

    Raises:
        ConfigError: tile, overlap or scale make no grid.
    """

    height: int
    width: int
    tile_px: int
    overlap_px: int
    scale: float = 1.0
    stride: int = 1

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a raster of {self.height} rows and {self.width} columns has no pixels")
        if self.scale <= 0:
            raise ConfigError(f"a scale of {self.scale:g}: give a number above 0, 1 for the raster's own pixels")
        if self.tile_px < 1 or not 0 <= self.overlap_px <= self.tile_px // 2:
            raise ConfigError(
                f"tiles of {self.tile_px} px that overlap by {self.overlap_px} px: give a tile of 1 px or more and an "
                f"overlap from 0 to half a tile, which is {max(self.tile_px // 2, 0)} px"
            )

    def _starts(self, length: int) -> tuple[int, ...]:
        tile = max(1, round(self.tile_px / self.scale))
        overlap = min(round(self.overlap_px / self.scale), tile // 2)
        aligned = self.scale == 1 and tile % self.stride == 0 and tile > self.stride
        return tuple(overlapping_starts(length, tile, overlap, self.stride if aligned else 1))

    @cached_property
    def row_starts(self) -> tuple[int, ...]:
        """First raster row of each tile row."""
        return self._starts(self.height)

    @cached_property
    def column_starts(self) -> tuple[int, ...]:
        """First raster column of each tile column."""
        return self._starts(self.width)

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Rows and columns of every tile, in pixels of the raster."""
        tile = max(1, round(self.tile_px / self.scale))
        return min(tile, self.height), min(tile, self.width)

    @property
    def network_shape(self) -> tuple[int, int]:
        """Rows and columns of every tile, as given to the network."""
        height, width = (min(self.tile_px, max(1, round(size * self.scale))) for size in self.tile_shape)
        return height, width

    @property
    def rows(self) -> range:
        """Numbers of the tile rows, which are those of the strips."""
        return range(len(self.row_starts))

    def strip(self, index: int) -> tuple[int, int]:
        """Return the first raster row of strip ``index`` and the one after its last."""
        return self.row_starts[index], (*self.row_starts, self.height)[index + 1]

    def tile_rows_of(self, index: int) -> range:
        """Return the tile rows that strip ``index`` depends on; the last of them is ``index``."""
        height = self.tile_shape[0]
        start = self.row_starts[index]
        return range(next(i for i in self.rows if self.row_starts[i] + height > start), index + 1)

    @cached_property
    def row_weights(self) -> np.ndarray:
        """Weights of each tile row (tile rows, rows of a tile) float32; see `blend_weights`."""
        return blend_weights(self.row_starts, self.tile_shape[0])

    @cached_property
    def column_weights(self) -> np.ndarray:
        """Weights of each tile column (tile columns, columns of a tile) float32; see `blend_weights`."""
        return blend_weights(self.column_starts, self.tile_shape[1])


@dataclass(frozen=True)
class Strip:
    """Finished rows of the map.

    Attributes:
        index: number of the strip in its `TilePlan`.
        row: first row in the raster.
        probability: of each class (C, h, W) float32, 0 to 1; 0 where nothing is valid.
        valid: pixels (h, W) that are not nodata; None where all are valid.
    """

    index: int
    row: int
    probability: np.ndarray
    valid: np.ndarray | None


class _TileRow:
    """Sums of weighted probabilities over the rows of one tile row; the only array as wide as the raster."""

    def __init__(self, plan: TilePlan, classes: int) -> None:
        height, _ = plan.tile_shape
        self._plan = plan
        self._start = plan.row_starts[0]
        self._probability = np.zeros((classes, height, plan.width), np.float32)
        self._valid = np.ones((height, plan.width), bool)

    def move_to(self, row: int) -> None:
        """Go down to the tile row that starts at raster row ``row``; what it shares with the last one is kept."""
        height = len(self._valid)
        kept = max(height - (row - self._start), 0)
        for plane in (*self._probability, self._valid):
            plane[:kept] = plane[height - kept :]
        self._probability[:, kept:] = 0
        self._valid[kept:] = True
        self._start = row

    def _columns(self, column: int) -> slice:
        start = self._plan.column_starts[column]
        return slice(start, start + self._plan.tile_shape[1])

    def hide(self, column: int, valid: np.ndarray) -> None:
        """Mark what is not ``valid`` (h, w) bool in tile ``column``, at the network's resolution or the raster's."""
        kept = self._valid[:, self._columns(column)]
        kept &= _resized(valid.astype(np.uint8), self._plan, cv2.INTER_NEAREST)[:, : kept.shape[1]] > 0

    def add(self, row: int, column: int, probability: np.ndarray) -> None:
        """Blend the ``probability`` (C, h, w) of a tile in."""
        weights = self._plan.row_weights[row][:, None] * self._plan.column_weights[column]
        columns = self._columns(column)
        for total, plane in zip(self._probability[:, :, columns], probability, strict=True):
            total += (weights * _resized(plane, self._plan, cv2.INTER_LINEAR))[:, : total.shape[1]]

    def strip(self, index: int) -> Strip:
        """Return strip ``index``, which begins where this tile row does."""
        start, end = self._plan.strip(index)
        probability = np.minimum(self._probability[:, : end - start], 1)  # weights sum up to 1 but for rounding
        valid = self._valid[: end - start].copy()
        if valid.all():
            return Strip(index, start, probability, None)
        probability *= valid
        return Strip(index, start, probability, valid)


def _resized(plane: np.ndarray, plan: TilePlan, method: int) -> np.ndarray:
    """Return ``plane`` (h, w) at the raster's resolution."""
    height, width = plan.tile_shape
    return plane if plane.shape == (height, width) else cv2.resize(plane, (width, height), interpolation=method)


def _ahead(work: Callable[[_Item], _Result], items: Iterable[_Item], count: int) -> Generator[_Result, None, None]:
    """Yield ``work`` of each of ``items`` in their order, up to ``count`` of them done beforehand in a thread."""
    with ThreadPoolExecutor(1, "reader") as thread:
        waiting: deque[Future[_Result]] = deque()
        try:
            for item in items:
                waiting.append(thread.submit(work, item))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            thread.shutdown(cancel_futures=True)


def _reader(
    source: RasterSource, plan: TilePlan, reading: ImageReading, area: RasterArea | None
) -> Callable[[tuple[int, int]], _Tile]:
    """Return a function that reads the tile at (tile row, tile column), mirrored where it reaches out of the raster."""
    path = source.info.path
    reading.select(np.empty((1, 1, source.info.bands_for(reading.bands)), np.uint8), path)
    # the source reads the chosen bands only, which then are all there are
    read = reading if reading.bands is None else reading.with_settings(bands=tuple(range(1, len(reading.bands) + 1)))
    out_shape = None if plan.network_shape == plan.tile_shape else plan.network_shape

    def tile(place: tuple[int, int]) -> _Tile:
        row, column = plan.row_starts[place[0]], plan.column_starts[place[1]]
        height, width = plan.tile_shape
        inside = min(height, plan.height - row), min(width, plan.width - column)
        outside = (0, height - inside[0]), (0, width - inside[1])
        masks = [] if area is None else [np.pad(area.inside(row, column, *inside), outside)]
        if masks and not masks[0].any():
            return None, masks
        values, valid = source.read(row, column, *inside, bands=reading.bands, out_shape=out_shape)
        if inside != plan.tile_shape:
            values = np.pad(values, (*outside, (0, 0)), mode="reflect")
            valid = None if valid is None else np.pad(valid, outside, mode="reflect")
        if valid is None:
            return read.as_read(values, valid, path), masks
        masks.append(valid)
        return (read.as_read(values, valid, path) if valid.any() else None), masks

    return tile


def map_strips(
    source: RasterSource,
    network: MapModel,
    plan: TilePlan,
    *,
    batch: int = 4,
    strips: Sequence[int] | None = None,
    reading: ImageReading | None = None,
    area: RasterArea | None = None,
) -> Iterator[Strip]:
    """Yield the class probabilities of a raster, strip by strip from the top.

    Tiles are read ahead in a thread and predicted in batches within a tile row, from left to right; tiles without any
    valid pixel are left out. A strip is bit-equal whichever others are asked for: the tile rows that it depends on
    are computed again, in the same batches, and summed in the same order. Memory does not depend on the raster's
    height. Closing the generator ends the thread.

    The ``source`` is the raster, or whatever has its ``info`` and reads as it does, in one thread at a time; ``batch``
    is the tiles in one forward pass. None takes all ``strips``, and the ``reading`` that the network was trained with.

    Outside an ``area`` nothing is valid, and tiles without a pixel of it are not read. Inside, the network sees what is
    around the area too, so the probabilities are those of the whole raster.

    Raises:
        DataError: the raster cannot be read, or its bands or its depth do not fit.
        ConfigError: its number of bands is not the network's.
        ValueError: ``plan`` is for another size, or has no such strip.
    """
    if (source.info.height, source.info.width) != (plan.height, plan.width):
        raise ValueError(f"a plan for {plan.height} x {plan.width} pixels, but {source.info.path} has others")
    wanted = set(plan.rows if strips is None else strips)
    if batch < 1 or not wanted <= set(plan.rows):
        raise ValueError(f"a batch of {batch}, and strips {sorted(wanted)} of {len(plan.rows)}")
    needed = sorted({row for index in wanted for row in plan.tile_rows_of(index)})
    columns = range(len(plan.column_starts))
    places = ((row, column) for row in needed for column in columns)
    sums = _TileRow(plan, len(network.facts.classes))
    read = _reader(source, plan, reading or network.facts.reading, area)
    with closing(_ahead(read, places, _BATCHES_AHEAD * batch)) as tiles:
        for row in needed:
            sums.move_to(plan.row_starts[row])
            images: dict[int, np.ndarray] = {}
            for column, (image, masks) in zip(columns, islice(tiles, len(columns)), strict=True):
                for mask in masks:
                    sums.hide(column, mask)
                if image is not None:
                    images[column] = image
                if images and (len(images) == batch or column == columns[-1]):
                    found = network.predict(list(images.values()))
                    for place, probability in zip(images, found, strict=True):
                        sums.add(row, place, probability)
                    images.clear()
            if row in wanted:
                yield sums.strip(row)
