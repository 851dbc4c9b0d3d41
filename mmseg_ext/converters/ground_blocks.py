"""Blocks of ground, and which of them train, validate and test."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import ConfigError, DataError
from ..geo.raster import Window
from .settings import Settings

Place = tuple[str, int, int]
_TILES = 8
_BLOCKS = 16


@dataclass(frozen=True)
class Blocks:
    """How ground is parted: square blocks of square tiles, with a gap between neighbouring blocks.

    Rows and columns of pixels and of blocks count from the origin of the ground's grid and may be negative.

    Attributes:
        tile: side of a tile in pixels.
        tiles: tiles along the side of a block.
        gap: pixels between blocks, which no tile shows.
    """

    tile: int
    tiles: int
    gap: int

    @classmethod
    def of(
        cls,
        tile: int,
        gsd_m: float,
        shapes: Sequence[tuple[int, ...]],
        block_m: float | None = None,
        gap_m: float | None = None,
    ) -> Blocks:
        """Return how ground is parted.

        Args:
            tile: side of a tile in pixels.
            gsd_m: metres per pixel.
            shapes: (height, width) of all rasters in pixels.
            block_m: side of a block in metres; None takes 8 tiles, fewer where that makes less than 16 blocks.
            gap_m: metres between blocks; None takes an eighth of a tile.

        Raises:
            ConfigError: a block smaller than a tile, or a gap below 0.
        """
        if gap_m is not None and gap_m < 0:
            raise ConfigError(f"--gap {gap_m:g}: must be 0 or above")
        count = sum(math.ceil(height / tile) * math.ceil(width / tile) for height, width in shapes)
        tiles = min(max(math.isqrt(count // _BLOCKS), 1), _TILES)
        if block_m is not None and (tiles := round(block_m / (tile * gsd_m))) < 1:
            raise ConfigError(f"--block {block_m:g} is smaller than a tile of {tile * gsd_m:g} m; give a larger one")
        return cls(tile, tiles, tile // 8 if gap_m is None else math.ceil(gap_m / gsd_m))

    @property
    def pitch(self) -> int:
        """Pixels from a block's side to that of the next one."""
        return self.tile * self.tiles + self.gap

    def across(self, start: int, length: int) -> range:
        """Return the blocks that pixels from ``start`` along one axis lie in."""
        return range(start // self.pitch, (start + length - 1) // self.pitch + 1)

    def windows(self, row: int, column: int) -> Iterator[Window]:
        """Yield (row, column, height, width) of the tiles of the block in a ``row`` and ``column`` of blocks."""
        for i in range(self.tiles):
            for j in range(self.tiles):
                yield row * self.pitch + i * self.tile, column * self.pitch + j * self.tile, self.tile, self.tile


def block_splits(road_px: Mapping[Place, int], settings: Settings) -> dict[Place, str]:
    """Return the split of each block of ground, at random; those with road and those without have the same shares.

    Args:
        road_px: pixels of road in each block, by the name of its map, its row and its column.
        settings: ``val`` and ``test``, shares or numbers of blocks, and ``seed``.

    Raises:
        DataError: too few blocks have road for each split to get one.
    """
    shuffled = random.Random(settings.seed)
    order = sorted(road_px)
    splits: dict[Place, str] = {}
    for with_road in (True, False):
        places = [place for place in order if (road_px[place] > 0) == with_road]
        shuffled.shuffle(places)
        sizes = [_number(part, len(places), len(order), with_road) for part in (settings.val, settings.test)]
        if with_road and (not sizes[0] or sum(sizes) >= len(places)):
            raise DataError(
                f"{len(places)} blocks of ground with road cannot give {settings.val:g} for validation and "
                f"{settings.test:g} for test and leave some for training; choose a smaller --block or --tile, or "
                "change --val or --test"
            )
        labels = ["val"] * sizes[0] + ["test"] * sizes[1]
        labels += ["train"] * max(len(places) - len(labels), 0)
        splits |= dict(zip(places, labels, strict=False))
    return splits


def _number(part: float, places: int, total: int, at_least_one: bool) -> int:
    """Return how many of ``places`` blocks a ``part`` is, a share or a number of all ``total`` blocks."""
    if not part:
        return 0
    number = round((part if part < 1 else part / total) * places)
    return max(number, 1) if at_least_one else number
