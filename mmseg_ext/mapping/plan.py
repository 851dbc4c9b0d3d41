"""What to map: files, folders and patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..datasets.voc import IMAGE_SUFFIXES
from ..errors import ConfigError, DataError
from ..tiling import blend_weights, overlapping_starts

RASTER_SUFFIXES = (*IMAGE_SUFFIXES, ".vrt", ".jp2", ".img")


def find_rasters(inputs: Sequence[str]) -> list[str]:
    """Return the rasters that ``inputs`` name, in order, none twice.

    Args:
        inputs: files, folders (all rasters in it), or patterns such as ``flights/*.tif``.

    Raises:
        DataError: nothing is there.
        ConfigError: two rasters have one name, so their results would too.
    """
    found: list[str] = []
    for name in inputs:
        if os.path.isdir(name):
            here = [os.path.join(name, f) for f in sorted(os.listdir(name)) if f.lower().endswith(RASTER_SUFFIXES)]
            if not here:
                raise DataError(f"{name}: holds no raster ({', '.join(RASTER_SUFFIXES)})")
        elif os.path.isfile(name):
            here = [name]
        else:
            here = sorted(path for path in glob.glob(name) if os.path.isfile(path))
            if not here:
                raise DataError(f"{name}: no such file, folder or pattern")
        found += here
    rasters = list(dict.fromkeys(map(os.path.normpath, found)))
    names: dict[str, str] = {}
    for path in rasters:
        stem = os.path.splitext(os.path.basename(path))[0]
        if stem in names:
            raise ConfigError(f"{names[stem]} and {path}: both are called {stem}; map them into two folders")
        names[stem] = path
    return rasters


# -- inference.tile_plan
# Where the tiles of a raster stand, how they blend, and which rows of the map are done when.


@dataclass(frozen=True)
class TilePlan:
    """A grid of overlapping tiles, all of one size, and the strips of rows that they finish.

    Strip i is the rows that are done when the tile rows 0 to i are, and were not done before: the strips make up all
    rows. A raster smaller than a tile gets one tile of its own size.

    A network that halves its image five times answers to where its squares of 32 pixels begin. Where it sees the
    raster's own pixels and a tile is made of such squares, all tiles begin at one, as those of the whole raster do,
    and the last ones may reach out of it by less than a square; elsewhere all tiles lie inside.

    Args:
        height: rows of the raster.
        width: columns of the raster.
        tile_px: rows and columns of a tile, in pixels that the network sees.
        overlap_px: least overlap of neighbours, in pixels that the network sees; up to half a tile.
        scale: pixels that the network sees for one pixel of the raster.
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
        """Rows and columns of every tile, in pixels that the network sees."""
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
