#!/usr/bin/env python
"""What a corrected map is worth: a network of one synthetic mine, fine-tuned on 20 corrected tiles of another one.

The loop as a user walks it, with the tools' own command lines: make_dataset and train on mine A; predict mine B, whose
soil and camera are others; make_dataset with B's true roads inside 20 tiles; train --load-from; predict B again. As a
control the network is trained on for as long with mine A alone.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mmseg_ext  # noqa: F401  isort: skip  before what is slow to import, for an early Ctrl-C

import cv2
import geopandas as gpd
import numpy as np
import shapely
from timing import timed

from mmseg_ext.datasets import generate_mine
from mmseg_ext.datasets.synthetic_mine import Road
from mmseg_ext.errors import ConfigError, run_tool
from mmseg_ext.files import complete_file, writing
from mmseg_ext.geo import read_raster, write_geotiff
from mmseg_ext.metrics.pixels import confusion, region_scores
from mmseg_ext.networks import write_layers
from mmseg_ext.report.tables import markdown_table

TOOLS = os.path.relpath(Path(__file__).resolve().parents[1])
CONFIG = os.path.join(os.path.dirname(TOOLS), "myconfigs/dsegnext/tiny/dsegnext.tiny.160x160.MINE.0.75k.py")
SEED_A, SEED_B = 101, 202
CRS, LEFT, TOP = "EPSG:32719", 500_000.0, 7_400_000.0
TILE_A_PX, TILE_PX = 256, 128  # of mine A, and of mine B, where twenty tiles are a fifth of the ground
MARGIN_PX = 32  # around the corrected tiles, neither inside nor outside
PIECE = 5  # steps of about 2 m: a road's width hardly changes along 10 m
TUNE_LR = 6e-4
# redder rock and a darker picture than A's; a stronger change and the network of A finds nothing at all
COLOURS_B = np.array([[0.955, 0.03, 0.0], [0.045, 0.82, 0.015], [0.015, 0.045, 0.79]])  # red, green, blue from A's
GAMMA_B = 1.2


class Mine(NamedTuple):
    """A mine as its surveyor has it, and as only the generator knows it.

    Attributes:
        image: RGB uint8 (H, W, 3).
        mask: its true roads (H, W), 0 or 1.
        pieces: its true roads as short lines, field ``width_m``.
        raster: GeoTIFF of the image, 1 m per pixel.
    """

    image: np.ndarray
    mask: np.ndarray
    pieces: gpd.GeoDataFrame
    raster: str


def tool(name: str, *arguments: object) -> None:
    """Run one of the tools as a user would; what it says is shown."""
    command = [sys.executable, os.path.join(TOOLS, name), *map(str, arguments)]
    sys.stdout.write(f"\n$ python {shlex.join(command[1:])}\n")
    sys.stdout.flush()
    if code := subprocess.run(command).returncode:
        sys.exit(code)  # the tool has said why


def road_pieces(roads: Sequence[Road]) -> gpd.GeoDataFrame:
    """Return true roads on the map as short lines, each with its mean ``width_m`` in metres."""
    lines, widths = [], []
    for road in roads:
        for start in range(0, len(road.xy_m) - 1, PIECE):
            part = slice(start, start + PIECE + 1)
            lines.append(shapely.LineString(road.xy_m[part] * (1, -1) + (LEFT, TOP)))
            widths.append(float(road.width_m[part].mean()))
    return gpd.GeoDataFrame(dict(width_m=widths), geometry=lines, crs=CRS)


def other_look(image: np.ndarray) -> np.ndarray:
    """Return an RGB uint8 image (H, W, 3) as another rock and another camera give it."""
    return np.round(255 * ((image / 255.0) ** GAMMA_B @ COLOURS_B.T).clip(0, 1)).astype(np.uint8)


def make_mine(raster: str, seed: int, size_px: int, looks_other: bool) -> Mine:
    """Return a mine, and write its image to ``raster``."""
    plan = generate_mine(seed, size_px)
    image = other_look(plan.image) if looks_other else plan.image
    write_geotiff(raster, image, CRS, (1.0, 0.0, LEFT, 0.0, -1.0, TOP))
    return Mine(image, plan.mask, road_pieces(plan.roads), raster)


def corrected_tiles(size_px: int) -> list[tuple[int, int]]:
    """Return (row, column) in pixels of every fifth tile, none beside another: 20 of 10 x 10."""
    count = range(size_px // TILE_PX)
    return [(i * TILE_PX, j * TILE_PX) for i in count for j in count if (i + 2 * j) % 5 == 0]


def write_correction(mine: Mine, tiles: list[tuple[int, int]], area: str, roads: str) -> None:
    """Write ``tiles`` as polygons and the true roads that run into them: what an engineer has corrected in QGIS."""
    squares = [shapely.box(LEFT + c, TOP - r - TILE_PX, LEFT + c + TILE_PX, TOP - r) for r, c in tiles]
    table = gpd.GeoDataFrame(geometry=squares, crs=CRS)
    near = mine.pieces.intersects(table.buffer(mine.pieces["width_m"].max()).union_all())
    write_layers(area, dict(area=table))
    write_layers(roads, dict(edges=mine.pieces[near]))


def train(data: str, tile_px: int, run: str, iters: int, *further: object, **settings: object) -> str:
    """Train on the tiles of ``data`` at their own size and return the checkpoint."""
    options: dict[str, object] = {f"data.{split}.data_root": data for split in ("train", "val", "test")}
    steps = {"train": "Resize", "val": "MultiScaleFlipAug", "test": "MultiScaleFlipAug"}
    options |= {f"data.{split}.step_args.{step}.img_scale": f"({tile_px},{tile_px})" for split, step in steps.items()}
    options |= {"runner.max_iters": iters, "evaluation.interval": iters, "checkpoint_config.interval": iters}
    pairs = [f"{key}={value}" for key, value in (options | settings).items()]
    tool("train.py", CONFIG, "--work-dir", run, *further, "--cfg-options", *pairs)
    return os.path.join(run, "latest.pth")


def predicted(checkpoint: str, mine: Mine, folder: str) -> np.ndarray:
    """Map a mine with the tool and return its classes (H, W)."""
    tool("predict.py", checkpoint, mine.raster, "--out", folder, "--backend", "torch")
    return read_raster(os.path.join(folder, f"{Path(mine.raster).stem}_roads.tif"))[0][:, :, 0]


def road_iou(found: np.ndarray, mask: np.ndarray, where: np.ndarray) -> float:
    """Return the road IoU in percent on the pixels ``where`` (H, W)."""
    return 100 * float(region_scores(confusion(found[where], mask[where], 2))["IoU"][1])


def save_sheet(path: str, mine: Mine, tiles: list[tuple[int, int]], maps: dict[str, np.ndarray]) -> None:
    """Draw the image, its true roads and each of the ``maps`` side by side; the corrected tiles are framed.

    Roads that a map has found are green, those that it missed red, and what is none blue.
    """
    sheets = []
    for title, found in {"image": None, "true roads": mine.mask, **maps}.items():
        picture = mine.image.copy()
        if found is not None:
            road, true = found == 1, mine.mask == 1
            picture[road & true], picture[~road & true], picture[road & ~true] = (0, 200, 0), (230, 0, 0), (0, 90, 255)
        for row, column in tiles:
            cv2.rectangle(picture, (column, row), (column + TILE_PX, row + TILE_PX), (255, 255, 255), 5)
        small = cv2.resize(picture, (900, 900), interpolation=cv2.INTER_AREA)
        sheet = cv2.copyMakeBorder(small, 40, 0, 0, 8, cv2.BORDER_CONSTANT, value=(255, 255, 255))
        cv2.putText(sheet, title, (8, 28), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (0, 0, 0), 2, cv2.LINE_AA)
        sheets.append(sheet)
    cv2.imwrite(path, np.concatenate(sheets, axis=1)[:, :, ::-1])


def measure(args: argparse.Namespace) -> None:
    """Walk the loop; write and print what it brought."""

    def path(name: str) -> str:
        return os.path.join(args.out, name)

    a = make_mine(path("mine_a.tif"), SEED_A, args.size, looks_other=False)
    b = make_mine(path("mine_b.tif"), SEED_B, args.size, looks_other=True)
    tiles = corrected_tiles(args.size)
    write_layers(path("mine_a_roads.gpkg"), dict(edges=a.pieces))
    write_correction(b, tiles, path("corrected_area.gpkg"), path("corrected_roads.gpkg"))
    width = ("--width-field", "width_m")
    roads: tuple[str, ...] = ("--roads", path("mine_a_roads.gpkg"), *width)
    tool("make_dataset.py", a.raster, *roads, "--tile", TILE_A_PX, "--out", path("data_a"))
    # without gaps the blocks are the corrected tiles, as the grid begins in the raster's corner
    roads = ("--roads", path("corrected_roads.gpkg"), *width, "--area", path("corrected_area.gpkg"))
    grid = ("--tile", TILE_PX, "--block", TILE_PX, "--gap", 0)
    tool("make_dataset.py", b.raster, *roads, *grid, "--out", path("data_b"))

    known = train(path("data_a"), TILE_A_PX, path("run_a"), args.iters)
    maps = {"before": predicted(known, b, path("maps_before"))}
    tuned = {f"fine-tuned on {len(tiles)} tiles of B, seed {seed}": seed for seed in range(args.seeds)}
    further = [(name, "data_b", TILE_PX, seed) for name, seed in tuned.items()]
    for name, data, tile_px, seed in [*further, ("control: as long on A again", "data_a", TILE_A_PX, 0)]:
        run = f"{data}_seed{seed}"
        learning = {"optimizer.lr": TUNE_LR, "lr_config.warmup_iters": max(1, args.tune_iters // 10)}
        start = ("--load-from", known, "--seed", seed)
        checkpoint = train(path(data), tile_px, path(f"run_{run}"), args.tune_iters, *start, **learning)
        maps[name] = predicted(checkpoint, b, path(f"maps_{run}"))

    inside = np.zeros(b.mask.shape, np.uint8)
    for row, column in tiles:
        inside[row : row + TILE_PX, column : column + TILE_PX] = 1
    outside = cv2.dilate(inside, np.ones((2 * MARGIN_PX + 1,) * 2, np.uint8)) == 0
    scores = {
        name: [road_iou(found, b.mask, where) for where in (outside, inside == 1)] for name, found in maps.items()
    }
    rows = list(scores.items())
    if args.seeds > 1:
        rows.insert(-1, ("fine-tuned, median", [*np.median([scores[name] for name in tuned], axis=0)]))
    places = f"road IoU on the rest of B ({outside.mean():.0%})", f"on the {len(tiles)} tiles ({inside.mean():.0%})"
    table = markdown_table(["network", *places], [[name, *(f"{iou:.1f}" for iou in found)] for name, found in rows])
    with complete_file(path("loop.md")) as partial:
        Path(partial).write_text(f"{table}\n", encoding="utf-8")
    save_sheet(path("loop.png"), b, tiles, {"before": maps["before"], "after": maps[next(iter(tuned))]})
    sys.stdout.write(f"\n{table}\n")


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", default="work_dirs/loop", help="new folder for data, runs, maps and results (default: %(default)s)")
    add("--seeds", type=int, default=1, help="fine-tunings, with the seeds from 0 (default: 1)")
    add("--size", type=int, default=1280, metavar="PX", help="sides of the mines, 1 m per pixel (default: 1280)")
    add("--iters", type=int, default=600, help="iterations on mine A (default: 600)")
    add("--tune-iters", type=int, default=200, help="iterations of a fine-tuning (default: 200)")
    args = parser.parse_args()
    if args.size < 5 * TILE_A_PX or min(args.seeds, args.iters, args.tune_iters) < 1:
        raise ConfigError(f"give a --size of {5 * TILE_A_PX} or more, and 1 or more seeds and iterations")
    if os.path.exists(args.out):
        raise ConfigError(f"{args.out}: exists already; choose another --out, or remove it")
    with writing(args.out, "choose another --out"):
        os.makedirs(args.out)
    seconds = timed(lambda: measure(args))()
    sys.stdout.write(f"{seconds / 60:.1f} minutes; {os.path.join(args.out, 'loop.png')}\n")


if __name__ == "__main__":
    run_tool(main)
