#!/usr/bin/env python
"""Turn a road map into lines: ``python tools/extract_network.py MASK-or-PROBABILITY --out roads.gpkg``."""

from __future__ import annotations

import argparse
import logging
import sys
from functools import partial
from typing import TYPE_CHECKING

from tqdm import tqdm

from mmseg_ext.cli import log_to_stderr
from mmseg_ext.errors import ConfigError, run_tool
from mmseg_ext.options import add_numbers

if TYPE_CHECKING:
    from mmseg_ext.networks import HeightSettings


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    metres = partial(parser.add_argument, type=float, metavar="M")
    parser.add_argument("raster", help="road mask or probability map, such as those of tools/predict.py")
    text = "roads.gpkg; roads.geojson or roads.parquet become one file for each layer"
    parser.add_argument("--out", required=True, help=text)
    text = "probability from which a pixel is road (default: that of the map, else 0.5)"
    parser.add_argument("--threshold", type=float, help=text)
    add_numbers(parser, "--road-values", "1,2", "values of a mask that are road (default: all but 0)")
    metres("--min-length", default=0, help="drop smaller pieces of the network, and their surface (default: 0)")
    metres("--min-width", default=0, help="drop roads with a smaller median width (default: 0)")
    metres("--close-gaps", default=0, help="close gaps up to this long between facing dead ends (default: 0)")
    text = "smooth out wiggles of the lines that are shorter, inside of the road (default: each road's width; 0: none)"
    metres("--smooth", help=text)
    text = "tolerance of simplified lines and outlines (default: one pixel, a quarter for smoothed lines)"
    metres("--simplify", help=text)
    parser.add_argument("--tile", type=int, default=2048, metavar="PX", help="tile size in pixels (default: 2048)")
    text = "margin around a tile; roads up to half as wide are not affected by tiles (default: 256)"
    parser.add_argument("--halo", type=int, default=256, metavar="PX", help=text)
    text = "DEM or DSM of any resolution and CRS, for lines in 3-D, grades, cross-falls, and a layer `grades`"
    parser.add_argument("--dem", metavar="FILE", help=text)
    metres("--grade-over", help="distance over which a grade is measured (default: 20)")
    text = "flag steeper roads (default: 10)"
    parser.add_argument("--max-grade", type=float, metavar="PERCENT", help=text)
    text = "flag roads that fall more to a side (default: 4)"
    parser.add_argument("--max-cross-fall", type=float, metavar="PERCENT", help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    return parser.parse_args()


def height_settings(args: argparse.Namespace) -> HeightSettings:
    """Return how grades are measured."""
    from mmseg_ext import networks

    options = {
        "--grade-over": ("grade_over_m", args.grade_over),
        "--max-grade": ("max_grade_percent", args.max_grade),
        "--max-cross-fall": ("max_cross_fall_percent", args.max_cross_fall),
    }
    given = {option: setting for option, setting in options.items() if setting[1] is not None}
    if given and not args.dem:
        raise ConfigError(f"{next(iter(given))} needs heights: give --dem FILE")
    return networks.HeightSettings(**dict(given.values()))


class Progress(tqdm):
    """A bar that is told (done, total); in a log it speaks seldom."""

    def __init__(self, what: str, unit: str) -> None:
        super().__init__(desc=what, unit=unit, mininterval=0.1 if sys.stderr.isatty() else 30, delay=1)

    def __call__(self, done: int, total: int) -> None:
        """Show progress."""
        self.total = total
        self.update(done - self.n)


def main() -> None:
    """Extract as the command line says."""
    args = parse_args()

    from mmseg_ext import networks
    from mmseg_ext.geo import is_placed, public_name, raster_info
    from mmseg_ext.mapping import threshold_of

    log_to_stderr()
    args.raster, args.dem = public_name(args.raster), args.dem and public_name(args.dem)
    threshold = args.threshold
    if threshold is None and (threshold := threshold_of(args.raster)) is not None:
        logging.info("%s: threshold %g, as in its map", args.raster, threshold)
    settings = networks.NetworkSettings(
        0.5 if threshold is None else threshold, args.road_values, args.min_length, args.min_width, args.close_gaps,
        args.simplify, args.tile, args.halo, args.smooth,
    )  # fmt: skip
    limits = height_settings(args)
    layers_to_write = ("edges", "nodes", "surface", *(("grades",) if args.dem else ()))
    info = raster_info(args.raster)
    placed = is_placed(info.crs) and info.transform is not None
    networks.check_layer_files(args.out, layers_to_write, args.overwrite, placed)
    if args.dem:
        networks.check_dem(args.dem, args.raster)
    with Progress("road network", "tile") as show:
        layers = networks.extract_network(args.raster, settings, show)
    if args.dem:
        with Progress("heights", "edge") as show:
            layers = networks.add_heights(layers, args.dem, limits, show)
    files = networks.write_layers(args.out, layers.named())
    unit = "m" if "length_m" in layers.edges else "px"
    for x, y, width in layers.wide:
        logging.warning(
            "around %.2f %.2f: road %.0f %s wide, too wide for the margin; check the lines there, or give a larger "
            "--halo", x, y, width, unit,
        )  # fmt: skip
    total = layers.edges[f"length_{unit}"].sum()
    logging.info(
        "%s: %d edges, %.2f %s of road, %d nodes", ", ".join(files), len(layers.edges),
        total / 1000 if unit == "m" else total, "km" if unit == "m" else "px", len(layers.nodes),
    )  # fmt: skip
    if not len(layers.edges):
        logging.warning(
            "%s: no road found; --threshold and --road-values say what is road, --min-width and --min-length drop some",
            args.raster,
        )
    if args.dem:
        logging.info(
            "%d edges steeper than %g %% over %g m, %d with more than %g %% cross-fall",
            layers.edges["grade_exceeded"].sum(), limits.max_grade_percent, limits.grade_over_m,
            layers.edges["cross_fall_exceeded"].sum(), limits.max_cross_fall_percent,
        )  # fmt: skip


if __name__ == "__main__":
    run_tool(main)
