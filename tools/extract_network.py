#!/usr/bin/env python
"""Turn a road map into lines: ``python tools/extract_network.py MASK-or-PROBABILITY --out roads.gpkg``."""

import argparse
import logging
import sys
from functools import partial

from tqdm import tqdm

from mmseg_ext.errors import ConfigError, run_tool
from mmseg_ext.geo import raster_info
from mmseg_ext.networks import (
    HeightSettings,
    NetworkSettings,
    add_heights,
    check_dem,
    check_layer_files,
    extract_network,
    write_layers,
)


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raster", help="road mask or probability map, such as those of tools/predict.py")
    text = "roads.gpkg, or roads.geojson or roads.parquet, which become a file for each layer"
    parser.add_argument("--out", required=True, help=text)
    parser.add_argument("--threshold", type=float, default=0.5, help="probability from which it is road (default: 0.5)")
    parser.add_argument("--road-values", metavar="1,2", help="values of a mask that are road (default: all but 0)")
    text = "leave out pieces of the network with less road in all, and their surface (default: 0)"
    parser.add_argument("--min-length", type=float, default=0, metavar="M", help=text)
    text = "leave out roads whose median width is smaller (default: 0)"
    parser.add_argument("--min-width", type=float, default=0, metavar="M", help=text)
    text = "close gaps up to this long between dead ends that face each other (default: 0)"
    parser.add_argument("--close-gaps", type=float, default=0, metavar="M", help=text)
    text = "farthest that lines and outlines may be from those of the pixels (default: one pixel)"
    parser.add_argument("--simplify", type=float, metavar="M", help=text)
    parser.add_argument("--tile", type=int, default=2048, metavar="PX", help="in memory at a time (default: 2048)")
    text = "looked at around a tile; roads up to half as wide are found as in one piece (default: 256)"
    parser.add_argument("--halo", type=int, default=256, metavar="PX", help=text)
    text = "DEM or DSM, of any resolution and map: lines in 3-D, grades, cross-falls, and a layer `grades`"
    parser.add_argument("--dem", metavar="FILE", help=text)
    limits = HeightSettings()
    text = f"distance over which a grade is measured (default: {limits.grade_over_m:g})"
    parser.add_argument("--grade-over", type=float, metavar="M", help=text)
    text = f"flag what is steeper (default: {limits.max_grade_percent:g})"
    parser.add_argument("--max-grade", type=float, metavar="PERCENT", help=text)
    text = f"flag roads that fall more to a side (default: {limits.max_cross_fall_percent:g})"
    parser.add_argument("--max-cross-fall", type=float, metavar="PERCENT", help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    return parser.parse_args()


def road_values(text: str | None) -> tuple[int, ...] | None:
    """Return the numbers of a list with commas."""
    try:
        return None if text is None else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--road-values {text}: give whole numbers with commas, such as 1,2") from None


def height_settings(args: argparse.Namespace) -> HeightSettings:
    """Return how grades are measured."""
    options = {
        "--grade-over": ("grade_over_m", args.grade_over),
        "--max-grade": ("max_grade_percent", args.max_grade),
        "--max-cross-fall": ("max_cross_fall_percent", args.max_cross_fall),
    }
    given = {option: setting for option, setting in options.items() if setting[1] is not None}
    if given and not args.dem:
        raise ConfigError(f"{next(iter(given))} needs heights: give --dem FILE")
    return HeightSettings(**dict(given.values()))


def progress_bar(what: str, unit: str) -> tqdm:
    """Return a bar, which is quiet in a log."""
    return tqdm(desc=what, unit=unit, mininterval=0.1 if sys.stderr.isatty() else 30, delay=1)


def show(bar: tqdm, done: int, total: int) -> None:
    """Show progress."""
    bar.total = total
    bar.update(done - bar.n)


def main() -> None:
    """Extract as the command line says."""
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # our own messages say it
    logging.getLogger("pyogrio").setLevel(logging.ERROR)
    settings = NetworkSettings(
        args.threshold, road_values(args.road_values), args.min_length, args.min_width, args.close_gaps, args.simplify,
        args.tile, args.halo,
    )  # fmt: skip
    limits = height_settings(args)
    layers_to_write = ("edges", "nodes", "surface", *(("grades",) if args.dem else ()))
    info = raster_info(args.raster)
    placed = info.crs is not None and info.transform is not None
    check_layer_files(args.out, layers_to_write, args.overwrite, placed)
    if args.dem:
        check_dem(args.dem, args.raster)
    with progress_bar("road network", "tile") as bar:
        layers = extract_network(args.raster, settings, partial(show, bar))
    if args.dem:
        with progress_bar("heights", "edge") as bar:
            layers = add_heights(layers, args.dem, limits, partial(show, bar))
    files = write_layers(args.out, layers.named())
    unit = "m" if "length_m" in layers.edges else "px"
    for x, y, width in layers.wide:
        logging.warning(
            "around %.2f %.2f: road %.0f %s wide, too wide to be seen whole; check the lines there, or give a larger "
            "--halo", x, y, width, unit,
        )  # fmt: skip
    total = layers.edges[f"length_{unit}"].sum()
    logging.info(
        "%s: %d edges, %.2f %s of road, %d nodes", ", ".join(files), len(layers.edges),
        total / 1000 if unit == "m" else total, "km" if unit == "m" else "px", len(layers.nodes),
    )  # fmt: skip
    if not len(layers.edges):
        logging.warning("%s: no road in it; --threshold and --road-values say what is road", args.raster)
    if args.dem:
        logging.info(
            "%d edges steeper than %g %% over %g m, %d with more than %g %% cross-fall",
            layers.edges["grade_exceeded"].sum(), limits.max_grade_percent, limits.grade_over_m,
            layers.edges["cross_fall_exceeded"].sum(), limits.max_cross_fall_percent,
        )  # fmt: skip


if __name__ == "__main__":
    run_tool(main)
