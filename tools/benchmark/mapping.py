#!/usr/bin/env python
"""Memory, speed and seams of mapping: ``python tools/benchmark/mapping.py memory|speed|seams ...``.

memory HEIGHT WIDTH       peak memory for a raster of this size, with a network that only looks at brightness, or
                          with the one of --checkpoint
speed CHECKPOINT CONFIG   megapixels a minute on a raster of 2000 x 1500 px, beside MMSegmentation's slide inference
                          with the same tiles, and the share of the time that is lost around the network
seams CHECKPOINT CONFIG   what a mosaic of 3000 x 2500 px of the config's training images gives in tiles and in one
                          forward pass, and the error of both where tiles meet and elsewhere
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, ClassVar

import mmseg_ext  # noqa: F401  isort: skip  before what is slow to import, for an early Ctrl-C

import numpy as np
import torch
from timing import apart, in_turns, process_bytes, ratio, timed
from mmseg.datasets import build_dataset

from mmseg_ext.datasets import RoadDataset
from mmseg_ext.deploy.facts import normalized
from mmseg_ext.deploy.options import add_backend_options, backend_settings
from mmseg_ext.deploy.trained import TrainedNetwork
from mmseg_ext.engine import load_config
from mmseg_ext.errors import DataError, run_tool
from mmseg_ext.geo import Georeference, RasterInfo, RasterSource, write_cog
from mmseg_ext.imagery.reading import ImageReading
from mmseg_ext.mapping import MapSettings, TilePlan, map_raster, map_strips
from mmseg_ext.runtime.facts import NetworkFacts


class Brightness:
    """Stands in for a network: the brighter, the more road."""

    facts = NetworkFacts(
        ("background", "road"), ((0, 0, 0), (128, 0, 0)), (0.0,) * 3, (1.0,) * 3, True, ImageReading(), 32, 2, None,
        "none",
    )  # fmt: skip
    execution: ClassVar[dict[str, Any]] = dict(backend="none", precision="fp32", exported_sha256=None, threads=1)
    software: ClassVar[dict[str, str]] = {}

    def predict(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return (N, 2, h, w)."""
        road = np.stack([image[:, :, 0] for image in images]).astype(np.float32) / 255
        return np.stack([1 - road, road], axis=1)


class RepeatedRaster:
    """A raster of any size that takes no memory: uint8 (h, w, bands) or (h, w), repeated to the right and down."""

    def __init__(self, values: np.ndarray, height: int, width: int) -> None:
        self._values = values
        self.info = RasterInfo("a repeated image", height, width, values.shape[2] if values.ndim > 2 else 1, "uint8")

    def read(
        self, row: int, column: int, height: int, width: int, bands: object = None, out_shape: object = None
    ) -> tuple[np.ndarray, None]:
        """Return a part, of which every pixel is valid."""
        rows, columns = np.arange(row, row + height), np.arange(column, column + width)
        return self._values[(rows % len(self._values))[:, None], columns % self._values.shape[1]], None

    def write(self, path: str, place: Georeference) -> None:
        """Write it as a Cloud-Optimized GeoTIFF, strip by strip."""
        height, width = self.info.height, self.info.width
        strips = ((row, self.read(row, 0, min(512, height - row), width)[0]) for row in range(0, height, 512))
        write_cog(path, strips, height, width, "uint8", place)


def write_raster(path: str, height: int, width: int) -> None:
    """Write a raster of random patches of 64 px."""
    patches = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    raster = RepeatedRaster(patches.repeat(64, axis=0).repeat(64, axis=1), height, width)
    raster.write(path, Georeference("EPSG:32719", (0.1, 0, 4e5, 0, -0.1, 7e6)))


def mapped(path: str, checkpoint: str | None, out: str) -> tuple[float, int, int]:
    """Return the seconds of mapping the raster at ``path`` at its own scale, this process's memory before and its peak.

    Memory is in bytes.
    """
    network: Any = TrainedNetwork.load(checkpoint) if checkpoint else Brightness()
    before = process_bytes("VmHWM") or 0
    seconds = timed(lambda: map_raster(path, network, out, MapSettings(scale=1.0)))()
    return seconds, before, process_bytes("VmHWM") or 0


def measure_memory(args: argparse.Namespace) -> None:
    """Print the peak memory of a process that maps, and before it does."""
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = os.path.join(folder, "big.tif")
        write_raster(path, args.height, args.width)
        seconds, before, peak = apart(mapped, path, args.checkpoint, os.path.join(folder, "out"))
    sys.stdout.write(
        f"{args.height} x {args.width} px: peak {peak / 2**30:.2f} GiB ({before / 2**30:.2f} GiB before), "
        f"{seconds:.0f} s\n"
    )


class TimedNetwork:
    """A network that adds up the seconds of its predictions."""

    def __init__(self, network: TrainedNetwork) -> None:
        self.network, self.facts = network, network.facts
        self.execution, self.software = network.execution, network.software
        self.seconds = 0.0

    def predict(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return the network's probabilities."""
        found = []
        self.seconds += timed(lambda: found.append(self.network.predict(images)))()
        return found[0]


def measure_speed(args: argparse.Namespace) -> None:
    """Print megapixels a minute of both ways, turn by turn, and what is lost around the network."""
    network = TrainedNetwork.load(args.checkpoint, args.config, settings=backend_settings(args), tile_px=args.tile)
    model = network.model
    stride = args.tile - args.overlap
    model.test_cfg.update(mode="slide", crop_size=(args.tile, args.tile), stride=(stride, stride))
    height, width = 1500, 2000
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.tif")
        write_raster(path, height, width)
        with RasterSource(path) as source, torch.no_grad():
            plan = TilePlan(height, width, args.tile, args.overlap, stride=network.facts.stride)
            image = normalized(network.facts, source.read(0, 0, height, width)[0], path)
            whole = torch.from_numpy(image).permute(2, 0, 1)[None].to(network.device)
            meta = [dict(ori_shape=(height, width, 3), img_shape=(height, width, 3), flip=False)]

            def ours() -> tuple[float, float]:
                inner = TimedNetwork(network)
                seconds = timed(lambda: [None for _ in map_strips(source, inner, plan, batch=1)])()
                return seconds, 1 - inner.seconds / seconds

            theirs = timed(lambda: model.inference(whole, meta, True))
            works: dict[str, Callable[[], Any]] = dict(ours=ours, theirs=theirs)
            turns = in_turns(works, args.rounds)
    mine, lost = zip(*turns["ours"], strict=True)
    rate, other = (60 * height * width / 1e6 / median(seconds) for seconds in (mine, turns["theirs"]))
    sys.stdout.write(
        f"megapixels a minute: {rate:.1f}; MMSegmentation's slide inference: {other:.1f} (ratio "
        f"{ratio(turns['theirs'], mine):.2f}); lost around the network {100 * median(lost):.1f} %\n"
    )


def mosaic(dataset: RoadDataset, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of ``dataset`` side by side, (height, width, 3) RGB, and their masks (height, width)."""
    image, truth = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    row = column = deepest = 0
    for i in range(len(dataset)):
        sample = dataset.prepare_train_img(i)
        values, mask = np.asarray(sample["img"])[:, :, ::-1], np.asarray(sample["gt_semantic_seg"])
        rows, columns = min(len(mask), height - row), min(mask.shape[1], width - column)
        image[row : row + rows, column : column + columns] = values[:rows, :columns]
        truth[row : row + rows, column : column + columns] = mask[:rows, :columns]
        column, deepest = column + columns, max(deepest, rows)
        if column >= width:
            row, column, deepest = row + deepest, 0, 0
        if row >= height:
            return image, truth
    raise DataError(f"{dataset.img_dir}: not enough images for a mosaic of {height} x {width} px")


def measure_seams(args: argparse.Namespace) -> None:
    """Print how far tiles and one forward pass agree, and where they err."""
    network = TrainedNetwork.load(args.checkpoint, args.config)
    cfg = load_config(args.config)
    steps = [dict(type="LoadRoadImage"), dict(type="LoadRoadMask")]
    height, width = 3000, 2500
    image, truth = mosaic(build_dataset(dict(cfg.data.train, pipeline=steps, step_args={})), height, width)
    plan = TilePlan(height, width, args.tile, args.overlap, stride=network.facts.stride)
    (whole,) = network.predict([image])
    strips = map_strips(RepeatedRaster(image, height, width), network, plan, batch=1)  # type: ignore[arg-type]
    tiled = np.concatenate([strip.probability for strip in strips], axis=1)
    seam = np.zeros(truth.shape, bool)
    for starts, lines in ((plan.row_starts, seam), (plan.column_starts, seam.T)):
        for start, following in pairwise(starts):
            middle = (start + args.tile + following) // 2  # where both weigh the same
            lines[middle - 16 : middle + 16] = True
            # where a tile's border begins to count
            lines[following : following + 8] = lines[start + args.tile - 8 : start + args.tile] = True
    found, expected = tiled.argmax(axis=0), whole.argmax(axis=0)
    same, change = found == expected, np.abs(tiled[1] - whole[1])
    known = truth < 2
    sys.stdout.write(
        f"{plan.row_starts} x {plan.column_starts}: {100 * same.mean():.3f} % of the classes are equal, probabilities "
        f"differ by {change.mean():.5f} on average; road {100 * (truth[known] == 1).mean():.1f} %\n"
    )
    for name, where in (("where tiles meet", known & seam), ("elsewhere", known & ~seam)):
        errors = [100 * (labels[where] != truth[where]).mean() for labels in (found, expected)]
        sys.stdout.write(
            f"{name}: error {errors[0]:.3f} % in tiles, {errors[1]:.3f} % as a whole, "
            f"equal classes {100 * same[where].mean():.3f} %\n"
        )


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    memory, speed, seams = (kinds.add_parser(name) for name in ("memory", "speed", "seams"))
    memory.set_defaults(measure=measure_memory)
    memory.add_argument("height", type=int)
    memory.add_argument("width", type=int)
    memory.add_argument("--checkpoint", help="one that holds its config")
    memory.add_argument("--folder", help="for raster and map, which are deleted again (default: the system's)")
    for kind, measure in ((speed, measure_speed), (seams, measure_seams)):
        kind.set_defaults(measure=measure)
        kind.add_argument("checkpoint")
        kind.add_argument("config")
        kind.add_argument("--tile", type=int, default=1024, help="pixels (default: %(default)s)")
        kind.add_argument("--overlap", type=int, default=256, help="pixels (default: %(default)s)")
    speed.add_argument("--rounds", type=int, default=3, help="medians of so many (default: 3)")
    add_backend_options(speed, "torch")
    args = parser.parse_args()
    args.measure(args)


if __name__ == "__main__":
    run_tool(main)
