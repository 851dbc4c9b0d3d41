"""Orthomosaics and road layers of a GIS into a data set: tiles with masks, split by blocks of ground."""

from __future__ import annotations

import math
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations

import numpy as np

from ..errors import ConfigError, DataError, lazy_import
from ..geo import (
    GridSource,
    GroundGrid,
    RasterInfo,
    check_same_ground,
    grid_of,
    log_doubts,
    raster_info,
    same_map,
    write_geotiff,
)
from ..geo.raster import Window
from ..geo.vector import file_of
from ..imagery import ImageReading
from ..imagery.voc import IGNORE
from .conversion import Conversion, carry_out, in_parallel, key_of, scaled, stamp
from .road_drawing import LabelGrid, RoadDrawing, RoadLabels
from .scenes import ConversionSettings, Scene
from .voc_writer import VocWriter

Place = tuple[str | None, int, int]
_TILES = 8
_BLOCKS = 16
_SAMPLE_PX = 20_000


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
        cls, tile: int, gsd_m: float, shapes: Sequence[tuple[int, ...]], block_m: float | None, gap_m: float | None
    ) -> Blocks:
        """Return the blocks for rasters of ``shapes`` (height, width); other arguments as in `convert_layers`.

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


def block_splits(road_px: Mapping[Place, int], settings: ConversionSettings) -> dict[Place, str]:
    """Return the split of each block of ground, at random; those with road and those without have the same shares.

    ``road_px`` are pixels of road in each block, by the name of its map, its row and its column.

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


@dataclass(frozen=True)
class _BlockFacts:
    """What was learned of one block of one raster: its tiles with known ground, road pixels, a sample of values."""

    windows: list[Window]
    road_px: int
    sample: np.ndarray


def convert_layers(
    rasters: Sequence[str],
    drawing: RoadDrawing,
    dest: str,
    settings: ConversionSettings,
    block_m: float | None = None,
    gap_m: float | None = None,
) -> Conversion:
    """Cut orthomosaics into tiles with masks in the VOC layout at ``dest``; the sources are not changed.

    Tiles are GeoTIFFs ``<raster>_r<row>_c<column>``, pixels of the raster's grid. All rasters on one map share one
    grid. The ground is split by square blocks, so that rasters of the same ground, such as those of several years, have
    it in the same split. If it is done already, from the same files with the same settings, nothing happens; if it was
    interrupted, it resumes.

    Args:
        rasters: georeferenced images of any format, depth and map.
        drawing: where the roads are.
        dest: folder to create.
        settings: ``tile``, ``bands``, ``percentiles``, ``gsd`` (None: that of the first raster), ``val`` and ``test``
            (shares or numbers of blocks), ``seed``, ``workers``, ``overwrite``; others are not looked at.
        block_m: side of a block in metres; None takes 8 tiles, fewer where that makes less than 16 blocks.
        gap_m: ground between blocks that no tile shows, in metres; None takes an eighth of a tile.

    Raises:
        ConfigError: settings that contradict the data.
        DataError: names the file that could not be understood, or says what is missing for a data set.
    """
    if not settings.tile:
        raise ConfigError("--tile 0: give the pixels of a tile's side")
    names = _names(rasters)
    how = {k: v and os.path.basename(v) if k in ("roads", "area", "nogo") else v for k, v in asdict(drawing).items()}
    files = [_stamp(source) for source in (*rasters, *drawing.sources)]
    key = key_of("layers", files, how, settings.decisive(), block_m, gap_m)
    return carry_out(lambda: _Tiling(names, drawing, settings, block_m, gap_m), dest, settings, key)


def _stamp(source: str) -> list[str | int]:
    """Return what tells whether a raster or a layer (``file:layer``) is the same."""
    found = stamp(file_of(source))
    return [os.path.basename(source), *found[1:]]


class _Tiling:
    """One conversion: its rasters, their grids, and what all blocks share."""

    def __init__(
        self,
        names: dict[str, str],
        drawing: RoadDrawing,
        settings: ConversionSettings,
        block_m: float | None,
        gap_m: float | None,
    ) -> None:
        self.drawing, self.settings = drawing, settings
        self.paths = names
        self.infos = {name: _placed_info(path) for name, path in names.items()}
        self.grids = _grids(self.infos, settings.gsd)
        first = next(iter(self.grids.values()))
        self.gsd_m = first.gsd_m
        self.windows = {name: self.grids[name].window_of(info) for name, info in self.infos.items()}
        shapes = [window[2:] for window in self.windows.values()]
        self.blocks = Blocks.of(settings.tile, self.gsd_m, shapes, block_m, gap_m)
        layers = RoadLabels(drawing)
        self.classes = layers.classes
        self.labels: dict[str | None, LabelGrid] = {}
        for grid in self.grids.values():
            if grid.crs not in self.labels:
                same = [name for name in names if self.grids[name].crs == grid.crs]
                self.labels[grid.crs] = layers.on(grid, [self.windows[name] for name in same])
        self.facts: dict[str, _BlockFacts] = {}
        self.places: dict[str, tuple[str, int, int]] = {}

    def about(self) -> dict:
        return dict(
            data_set="layers",
            title="orthomosaics and road layers",
            sources=[os.path.basename(path) for path in (*self.paths.values(), *self.drawing.sources)],
            crs=sorted(crs for crs in self.labels if crs is not None),
            classes=list(self.classes),
            block_m=round(self.blocks.tiles * self.blocks.tile * self.gsd_m, 4),
            gap_m=round(self.blocks.gap * self.gsd_m, 4),
        )

    def _scenes(self) -> Iterator[Scene]:
        """Yield the blocks of each raster; their splits are not known yet."""
        for name, (row, column, height, width) in self.windows.items():
            for i in self.blocks.across(row, height):
                for j in self.blocks.across(column, width):
                    scene = Scene(f"{name} {i} {j}", (), self.paths[name], lines=self.drawing.roads)
                    self.places[scene.name] = name, i, j
                    yield scene

    def _tiles(self, scene: Scene, windows: Sequence[Window]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield values (H, W, B), valid (H, W) and labels (H, W) of each window."""
        grid = self.grids[self.places[scene.name][0]]
        with GridSource(scene.image, grid, self.settings.bands) as source:
            for window in windows:
                values, valid = source.read(window)
                labels = self.labels[grid.crs].read(window)
                labels[~valid] = IGNORE
                yield values, valid, labels

    def inspect(self, scene: Scene) -> _BlockFacts:
        """Return which tiles of a block show known ground."""
        name, i, j = self.places[scene.name]
        bands = ImageReading(bands=self.settings.bands)
        windows, samples = [], []
        road_px = 0
        top, left, height, width = self.windows[name]
        near = [
            (r, c, h, w)
            for r, c, h, w in self.blocks.windows(i, j)
            if r < top + height and r + h > top and c < left + width and c + w > left
        ]
        for window, (values, valid, labels) in zip(near, self._tiles(scene, near), strict=True):
            if (labels == IGNORE).all():
                continue
            windows.append(window)
            road_px += int(np.count_nonzero((labels != 0) & (labels != IGNORE)))
            if values.dtype != np.uint8:
                pixels = bands.select(values, scene.image)[valid]
                samples.append(pixels[:: max(1, len(pixels) * len(near) // _SAMPLE_PX)])
        return _BlockFacts(windows, road_px, np.concatenate(samples) if samples else np.zeros((0, 3)))

    def look(self) -> list[Scene]:
        """Inspect all blocks and return those that show known ground, each in its split."""
        found = in_parallel(self.inspect, list(self._scenes()), self.settings.workers, "looking")
        self.facts = {scene.name: facts for scene, facts in found}
        scenes = [scene for scene in self._scenes() if self.facts[scene.name].windows]
        road_px: dict[Place, int] = defaultdict(int)
        for scene in scenes:
            road_px[self._place(scene)] += self.facts[scene.name].road_px
        inside = " inside the area of interest" if self.drawing.area else ""
        if not scenes:
            raise DataError(
                f"{next(iter(self.paths.values()))}: no valid pixel{inside}; check the maps of images and areas"
            )
        if not any(road_px.values()):
            raise DataError(f"{self.drawing.roads}: no road lies on the images{inside}; check its coordinates")
        splits = block_splits(road_px, self.settings)
        return [replace(scene, splits=(splits[self._place(scene)],)) for scene in scenes]

    def _place(self, scene: Scene) -> Place:
        name, i, j = self.places[scene.name]
        return self.grids[name].crs, i, j

    def reading(self, scenes: Sequence[Scene]) -> ImageReading:
        reading = ImageReading(bands=self.settings.bands, gsd_m=round(self.gsd_m, 4))
        for info in self.infos.values():
            reading.select(np.zeros((1, 1, info.bands_for(reading.bands)), info.dtype), info.path)
            log_doubts(info.path, reading.bands)
        first = next(iter(self.infos.values()))
        if first.dtype == "uint8":
            return reading
        pixels = np.concatenate([self.facts[s.name].sample for s in scenes if s.splits == ("train",)])
        return scaled(reading, pixels, self.settings, first.path)

    def write(self, writer: VocWriter, scene: Scene) -> None:
        name, _, _ = self.places[scene.name]
        grid = self.grids[name]
        top, left = (self.blocks.across(start, 1)[0] * self.blocks.pitch for start in self.windows[name][:2])
        windows = self.facts[scene.name].windows
        stems, statistics = [], []
        for window, (values, valid, labels) in zip(windows, self._tiles(scene, windows), strict=True):
            stem = f"{name}_r{window[0] - top:05d}_c{window[1] - left:05d}"
            holes = None if valid.all() else valid
            transform = grid.transform(*window[:2])
            write_geotiff(writer.image_path(stem, ".tif"), values, grid.crs, transform, holes)
            writer.write_mask(stem, labels)
            stems.append(stem)
            statistics.append(writer.statistics_of(writer.reading.as_read(values, holes, scene.image), holes, labels))
        writer.finish_scene(scene.name, scene.splits, stems, statistics)


def _names(rasters: Sequence[str]) -> dict[str, str]:
    """Return the rasters by unique names: their files', with their folders' where files have the same."""
    stems = [os.path.splitext(os.path.basename(path))[0] for path in rasters]
    count = Counter(stems)
    folders = [os.path.basename(os.path.dirname(os.path.abspath(path))) for path in rasters]
    unique = [stem if count[stem] == 1 else f"{f}_{stem}" for stem, f in zip(stems, folders, strict=True)]
    twice = [name for name, times in Counter(unique).items() if times > 1]
    if twice:
        raise DataError(f"{rasters[unique.index(twice[0])]}: given twice, or another raster has its name; rename one")
    return dict(zip(unique, rasters, strict=True))


def _placed_info(path: str) -> RasterInfo:
    info = raster_info(path, colours=True)
    if info.transform is None:
        raise DataError(f"{path}: has no georeference, so roads cannot be placed on it; give it one")
    return info


def _grids(infos: dict[str, RasterInfo], gsd_m: float | None) -> dict[str, GroundGrid]:
    """Return the grid of each raster, one for all on the same map.

    Rasters that differ in depth or bands, or lie on the same ground but on different maps, are a DataError, and so are
    those on maps that have no way to each other.
    """
    first = next(iter(infos.values()))
    grids: dict[str, GroundGrid] = {}
    for name, info in infos.items():
        if (info.kind, info.bands) != (first.kind, first.bands):
            raise DataError(
                f"{info.path}: {info.bands} bands of {info.kind}, but {first.path} has {first.bands} of "
                f"{first.kind}; one scaling cannot fit both"
            )
        grid = grid_of(info, gsd_m)
        gsd_m = gsd_m or grid.gsd_m
        grids[name] = next((other for other in grids.values() if same_map(other.crs, grid.crs)), grid)
    warp = lazy_import("rasterio.warp", None, "placing images")
    for a, b in combinations(infos, 2):
        if grids[a].crs != grids[b].crs:
            check_same_ground(infos[b].path, grids[b].crs, infos[a].path, grids[a].crs)
            one, other = (
                warp.transform_bounds(grids[n].crs, "EPSG:4326", *grids[n].bounds(grids[n].window_of(infos[n])))
                for n in (a, b)
            )
            if max(one[0], other[0]) < min(one[2], other[2]) and max(one[1], other[1]) < min(one[3], other[3]):
                raise DataError(
                    f"{infos[b].path}: in {grids[b].crs}, but {infos[a].path}, which shows the same ground, in "
                    f"{grids[a].crs}; bring both onto one map, as with gdalwarp -t_srs"
                )
    return grids
