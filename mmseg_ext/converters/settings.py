"""Settings of a conversion."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields

from ..errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """What a user can choose; a data set takes the common ones and those it names in its ``options``.

    Attributes:
        tile: images with a longer side, in pixels, are cut into tiles of at most this size; 0 never cuts.
        overlap: least overlap of neighbouring training tiles in pixels; validation and test tiles do not overlap.
        bands: numbers from 1 of the bands to read, red first; None takes all of a grey or three-band image.
        percentiles: raw values at these percentiles of the training pixels become 0 and 255 in images of more than
            8 bits.
        gsd: ground sampling distance in metres per pixel; None: as published, or read from the georeference.
        workers: images converted at the same time.
        overwrite: replace an existing destination.
        val: share (below 1) or number of scenes for validation.
        test: share or number of scenes for test; 0 makes the validation split the test split too.
        seed: seed of the random split.
        by_name: split in the order of names instead: the last ones validate and test.
        by_area: split every image instead: its last part along its longer side validates and tests.
        val_list: file with the names of the validation scenes, one a line.
        test_list: file with the names of the test scenes.
        scene: regular expression whose first group is the scene of an image's name; images of one scene stay in
            one split.
        images: folder of the images, relative to the source.
        masks: folder of the masks, relative to the source.
        num_classes: number of classes; above 2, masks hold class indices.
        road_width: full width in metres at which centrelines are drawn.
        areas: areas of interest to convert, by a part of their names; empty takes all.
    """

    tile: int = 2048
    overlap: int = 128
    bands: tuple[int, ...] | None = None
    percentiles: tuple[float, float] = (2.0, 98.0)
    gsd: float | None = None
    workers: int = min(8, os.cpu_count() or 1)
    overwrite: bool = False
    val: float = 0.2
    test: float = 0.0
    seed: int = 0
    by_name: bool = False
    by_area: bool = False
    val_list: str | None = None
    test_list: str | None = None
    scene: str | None = None
    images: str | None = None
    masks: str | None = None
    num_classes: int = 2
    road_width: float = 4.0
    areas: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values that contradict each other."""
        if self.tile and not 0 <= self.overlap < self.tile:
            raise ConfigError(f"overlap {self.overlap} px must be at least 0 and below the tile's {self.tile} px")
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ConfigError(f"percentiles {low:g} and {high:g}: give two rising numbers from 0 to 100")
        if self.bands is not None and (not self.bands or min(self.bands) < 1):
            raise ConfigError(f"bands {self.bands}: bands are numbered from 1")
        for name in ("val", "test"):
            value = getattr(self, name)
            if value < 0 or (value >= 1 and value != int(value)):
                raise ConfigError(f"--{name} {value:g}: give a share below 1 or a whole number of images")
        for name in ("gsd", "road_width", "workers"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name.replace('_', ' ')} {value:g} must be above 0")


COMMON = ("tile", "overlap", "bands", "percentiles", "gsd", "workers", "overwrite")
SPLITTING = ("val", "test", "seed", "by_name", "by_area", "val_list", "test_list")
NAMES = tuple(field.name for field in fields(Settings))
