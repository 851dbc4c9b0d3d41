#!/usr/bin/env python
"""A real site mapped with the default weights, then the whole way: synthetic mines, training, evaluation, a picture."""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from predict import write_network

import mmseg_ext
from mmseg_ext.errors import run_tool
from mmseg_ext.files import writing
from mmseg_ext.options import add_config_options
from mmseg_ext.weights import DEFAULT_WEIGHTS

CONFIG = "myconfigs/dsegnext/tiny/dsegnext.tiny.160x160.MINE.0.75k.py"
TRAIN_SEEDS, VAL_SEED, TEST_SEED, PIT_SEED = range(1, 31), 31, 32, 33
# 2048 m square, 1 m per pixel, north up, UTM zone 19 south
SAMPLE = Path(mmseg_ext.__file__).parent / "samples" / "caliterra.tif"
PIT_PX, PIT_CRS, PIT_TRANSFORM = 2048, "EPSG:32719", (1.0, 0, 500000.0, 0, -1.0, 7400000.0)


def map_real_site(folder: str) -> str:
    """Map the orthomosaic of a real site with the default weights; return the picture of its roads and network."""
    import cv2
    import geopandas
    import rasterio

    from mmseg_ext.deploy.trained import TrainedNetwork
    from mmseg_ext.mapping import MapFiles, MapSettings, map_raster
    from mmseg_ext.mapping.map_files import NODATA
    from mmseg_ext.report.pictures import panel, save_picture

    network, settings = TrainedNetwork.load(DEFAULT_WEIGHTS), MapSettings()
    files = MapFiles.of(str(SAMPLE), folder)
    map_raster(str(SAMPLE), network, folder, settings, overwrite=True)
    write_network(files, settings, network.facts)
    with rasterio.open(SAMPLE) as site, rasterio.open(files.path("_roads.tif")) as roads:
        image, labels, to_pixels = np.moveaxis(site.read(), 0, 2), roads.read(1), ~site.transform
        image[site.dataset_mask() == 0] = 255
    both = panel(image, np.where(labels == NODATA, 0, labels))
    for edge in geopandas.read_file(files.path("_network.gpkg"), layer="edges").geometry:
        column, row = to_pixels * np.array(edge.coords)[:, :2].T
        line = np.stack([column + both.shape[1] - image.shape[1], row + both.shape[0] - image.shape[0]], axis=1)
        cv2.polylines(both, [np.rint(line).astype(np.int32)], False, (255, 230, 0), 2, cv2.LINE_AA)
    picture = os.path.abspath(os.path.join(folder, "caliterra.png"))
    save_picture(picture, both)
    return picture


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    text = "folder for data, run and picture (default: work_dirs/demo)"
    parser.add_argument("--out", default="work_dirs/demo", help=text)
    add_config_options(parser)
    args = parser.parse_args()

    from mmseg_ext.converters import write_synthetic_mines
    from mmseg_ext.datasets import generate_mine
    from mmseg_ext.engine import PredictionWriter, evaluate_checkpoint, load_config, train
    from mmseg_ext.geo import Georeference, write_cog

    start = time.monotonic()
    real = os.path.join(args.out, "real")
    picture = map_real_site(real)
    sys.stdout.write(
        f"a real site, mapped in {time.monotonic() - start:.0f} s with the default weights ({DEFAULT_WEIGHTS}):\n"
        f"{picture}\nroads, probabilities and network for QGIS: {real} (docs/map.md)\n\n"
        "now from scratch, on synthetic mines:\n"
    )
    data, run = os.path.join(args.out, "data"), os.path.join(args.out, "run")
    sys.stdout.write(f"generating {len(TRAIN_SEEDS) + 2} synthetic mines in {data}\n")
    sys.stdout.flush()
    with writing(args.out, "choose another --out"):
        os.makedirs(args.out, exist_ok=True)
    shutil.rmtree(run, ignore_errors=True)
    write_synthetic_mines(data, TRAIN_SEEDS, [VAL_SEED], [TEST_SEED], overwrite=True)
    roots = {f"data.{split}.data_root": data for split in ("train", "val", "test")}
    cfg = load_config(os.path.join(os.path.dirname(__file__), "..", CONFIG), {**roots, **(args.cfg_options or {})})
    train(cfg, work_dir=run)
    sys.stdout.write("\nthe unseen mine:\n")
    writer = PredictionWriter(None, args.out)
    evaluate_checkpoint(cfg, os.path.join(run, "latest.pth"), ["mIoU", "mFscore"], on_prediction=writer)
    mine = generate_mine(PIT_SEED, PIT_PX)
    pit, heights = (os.path.join(args.out, name) for name in ("pit.tif", "pit_dem.tif"))
    place = Georeference(PIT_CRS, PIT_TRANSFORM)
    write_cog(pit, [(0, mine.image)], PIT_PX, PIT_PX, "uint8", place)
    write_cog(heights, [(0, mine.elevation_m)], PIT_PX, PIT_PX, "float32", place)
    picture = os.path.abspath(os.path.join(args.out, f"mine{TEST_SEED:04d}.png"))
    sys.stdout.write(
        f"\ndone in {(time.monotonic() - start) / 60:.1f} minutes; image, truth and prediction:\n{picture}\n"
        f"an orthomosaic to map with the trained network: {pit} (docs/map.md)\n"
        f"its heights, for the grades of its roads: {heights} (docs/network.md)\n"
    )


if __name__ == "__main__":
    run_tool(main)
