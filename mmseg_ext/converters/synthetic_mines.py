"""Synthetic mines as a data set in the VOC layout."""

from __future__ import annotations

from collections.abc import Sequence

from ..datasets import generate_mine
from .voc_writer import VocWriter


def write_synthetic_mines(
    dest: str,
    train_seeds: Sequence[int],
    val_seeds: Sequence[int],
    test_seeds: Sequence[int],
    size_px: int = 1024,
    tile_px: int = 256,
    gsd_m: float = 1.0,
    overwrite: bool = False,
) -> None:
    """Generate mines; training and validation mines are cut into tiles, test mines stay whole.

    All tiles of one mine are in one split.

    Args:
        dest: new data set.
        train_seeds: seeds of the training mines.
        val_seeds: seeds of the validation mines.
        test_seeds: seeds of the test mines.
        size_px: rows and columns of a mine.
        tile_px: rows and columns of a tile; what does not fill a tile is left out.
        gsd_m: ground sampling distance, metres per pixel.
        overwrite: replace an existing ``dest``.

    Raises:
        DataError: ``dest`` exists and is not to be replaced.
    """
    with VocWriter(dest, overwrite) as writer:
        for split, seeds, side in (
            ("train", train_seeds, tile_px),
            ("val", val_seeds, tile_px),
            ("test", test_seeds, size_px),
        ):
            for seed in seeds:
                mine = generate_mine(seed, size_px, gsd_m)
                for row in range(0, size_px - side + 1, side):
                    for col in range(0, size_px - side + 1, side):
                        window = (slice(row, row + side), slice(col, col + side))
                        stem = f"mine{seed:04d}" if side == size_px else f"mine{seed:04d}_r{row:05d}_c{col:05d}"
                        writer.add(stem, mine.image[window], mine.mask[window], split)
