#!/usr/bin/env python
"""Memory, speed and seams of mapping: ``python tools/measure_mapping.py memory|speed|seams ...``.

memory HEIGHT WIDTH       peak memory for a raster of this size, with a network that only looks at brightness, or
                          with the one of --checkpoint
speed CHECKPOINT CONFIG   megapixels a minute on a raster of 2000 x 1500 px, beside MMSegmentation's slide inference
                          with the same tiles, and the share of the time that is lost around the network
seams CHECKPOINT CONFIG   what a mosaic of 3000 x 2500 px of the config's training images gives in tiles and in one
                          forward pass, and the error of both where tiles meet and elsewhere
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from itertools import pairwise

import numpy as np
import torch
from mmseg.datasets import build_dataset

from mmseg_ext.datasets import ImageReading, RoadDataset
from mmseg_ext.deploy.facts import NetworkFacts
from mmseg_ext.deploy.options import add_backend_options, backend_settings
from mmseg_ext.deploy.trained import TrainedNetwork
from mmseg_ext.engine import load_config
from mmseg_ext.errors import DataError, run_tool
from mmseg_ext.geo import Georeference, RasterInfo, RasterSource, write_cog
from mmseg_ext.mapping import MapSettings, TilePlan, map_raster, map_strips


class Brightness:
    """Stands in for a network: the brighter, the more road."""

    facts = NetworkFacts(
        ("background", "road"), ((0, 0, 0), (128, 0, 0)), (0.0,) * 3, (1.0,) * 3, True, ImageReading(), 32, 2, None,
        "none",
    )  # fmt: skip
    execution, software = dict(backend="none", precision="fp32", exported_sha256=None, threads=1), {}

    def predict(self, images: list[np.ndarray]) -> np.ndarray:
        """Return (N, 2, h, w)."""
        road = np.stack([image[:, :, 0] for image in images]).astype(np.float32) / 255
        return np.stack([1 - road, road], axis=1)


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    memory = kinds.add_parser("memory")
    memory.add_argument("height", type=int)
    memory.add_argument("width", type=int)
    memory.add_argument("--checkpoint", help="one that holds its config")
    memory.add_argument("--folder", help="for raster and map, which are deleted again (default: the system's)")
    speed = kinds.add_parser("speed")
    speed.add_argument("checkpoint")
    speed.add_argument("config")
    speed.add_argument("--tile", type=int, default=512)
    speed.add_argument("--overlap", type=int, default=128)
    speed.add_argument("--rounds", type=int, default=3)
    add_backend_options(speed, "torch")
    seams = kinds.add_parser("seams")
    seams.add_argument("checkpoint")
    seams.add_argument("config")
    seams.add_argument("--tile", type=int, default=1024)
    seams.add_argument("--overlap", type=int, default=256)
    return parser.parse_args()


def write_raster(path: str, height: int, width: int) -> None:
    """Write a raster of random patches of 64 px, strip by strip."""
    random = np.random.default_rng(0)

    def strips() -> object:
        for row in range(0, height, 512):
            rows = min(512, height - row)
            patches = random.integers(0, 255, (rows // 64 + 1, width // 64 + 1, 3), np.uint8)
            yield row, patches.repeat(64, axis=0).repeat(64, axis=1)[:rows, :width]

    write_cog(path, strips(), height, width, "uint8", Georeference("EPSG:32719", (0.1, 0, 4e5, 0, -0.1, 7e6)))


def measure_memory(args: argparse.Namespace) -> None:
    """Print the peak memory of this process before and after a mapping."""
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = os.path.join(folder, "big.tif")
        if os.fork() == 0:  # what writing needs is not counted
            write_raster(path, args.height, args.width)
            os._exit(0)
        os.wait()
        network = TrainedNetwork.load(args.checkpoint) if args.checkpoint else Brightness()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        map_raster(path, network, os.path.join(folder, "out"), MapSettings())
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.stdout.write(
        f"{args.height} x {args.width} px: peak {peak / 2**20:.2f} GiB ({before / 2**20:.2f} GiB before), "
    )
    sys.stdout.write(f"{seconds:.0f} s\n")


def measure_speed(args: argparse.Namespace) -> None:
    """Print megapixels a minute of both ways, turn by turn, and what is lost around the network."""
    network = TrainedNetwork.load(args.checkpoint, args.config, settings=backend_settings(args), tile_px=args.tile)
    model = network.model
    stride = args.tile - args.overlap
    model.test_cfg.update(mode="slide", crop_size=(args.tile, args.tile), stride=(stride, stride))
    height, width = 1500, 2000
    megapixels = height * width / 1e6
    inside = 0.0

    class Timed:
        facts = network.facts

        def predict(self, images: list[np.ndarray]) -> np.ndarray:
            nonlocal inside
            start = time.perf_counter()
            found = network.predict(images)
            inside += time.perf_counter() - start
            return found

    ours, theirs, lost = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.tif")
        write_raster(path, height, width)
        with RasterSource(path) as source, torch.no_grad():
            plan = TilePlan(height, width, args.tile, args.overlap, stride=network.facts.stride)
            image = network.facts.normalized(network.facts.padded(source.read(0, 0, height, width)[0]), path)[
                :height, :width
            ]
            whole = torch.from_numpy(image).permute(2, 0, 1)[None]
            meta = [dict(ori_shape=(height, width, 3), img_shape=(height, width, 3), flip=False)]
            for turn in range(args.rounds + 1):
                inside, start = 0.0, time.perf_counter()
                for _ in map_strips(source, Timed(), plan, batch=1):
                    pass
                total = time.perf_counter() - start
                start = time.perf_counter()
                model.inference(whole, meta, True)
                if turn:  # the first warms up
                    ours.append(60 * megapixels / total)
                    theirs.append(60 * megapixels / (time.perf_counter() - start))
                    lost.append(1 - inside / total)
    middle = [float(np.median(values)) for values in (ours, theirs, lost, np.divide(ours, theirs))]
    sys.stdout.write(
        f"megapixels a minute: {middle[0]:.1f}; MMSegmentation's slide inference: {middle[1]:.1f} (ratio "
        f"{middle[3]:.2f}); lost around the network {100 * middle[2]:.1f} %\n"
    )


class InMemory:
    """A raster that is an array."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.info = RasterInfo("a mosaic", *values.shape, "uint8")

    def read(
        self, row: int, column: int, height: int, width: int, bands: object = None, out_shape: object = None
    ) -> tuple[np.ndarray, None]:
        """Return a part, of which every pixel is valid."""
        return self.values[row : row + height, column : column + width], None


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
    image, truth = mosaic(build_dataset(dict(cfg.data.train, pipeline=steps, step_args={})), 3000, 2500)
    plan = TilePlan(*truth.shape, args.tile, args.overlap, stride=network.facts.stride)
    (whole,) = network.predict([image])
    strips = map_strips(InMemory(image), network, plan, batch=1)
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
    write = sys.stdout.write
    write(f"{plan.row_starts} x {plan.column_starts}: {100 * same.mean():.3f} % of the classes are equal, ")
    write(f"probabilities differ by {change.mean():.5f} on average; road {100 * (truth[known] == 1).mean():.1f} %\n")
    for name, where in (("where tiles meet", known & seam), ("elsewhere", known & ~seam)):
        errors = [100 * (labels[where] != truth[where]).mean() for labels in (found, expected)]
        write(f"{name}: error {errors[0]:.3f} % in tiles, {errors[1]:.3f} % as a whole, ")
        write(f"equal classes {100 * same[where].mean():.3f} %\n")


def main() -> None:
    """Measure as the command line says."""
    args = parse_args()
    dict(memory=measure_memory, speed=measure_speed, seams=measure_seams)[args.kind](args)


if __name__ == "__main__":
    run_tool(main)
