#!/usr/bin/env python
"""Turn orthomosaics and road layers of a GIS into a data set that trains: tiles with masks, split by blocks of ground.

After an interruption, re-run the command to resume; when all is done, it does nothing.

Example: python tools/make_dataset.py mosaic.tif --roads roads.gpkg --width-field width_m --out data/MyMine --test 0.1
"""

import argparse
import sys

from mmseg_ext.cli import log_to_stderr
from mmseg_ext.errors import run_tool
from mmseg_ext.options import add_numbers


def main() -> None:
    """Convert as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("rasters", metavar="RASTER", nargs="+", help="georeferenced images; those of one depth and number of bands")
    add("--roads", required=True, metavar="FILE[:LAYER]", help="polygons, or centrelines with --width or --width-field")
    add("--out", required=True, metavar="DEST", help="folder to create")
    add("--width", type=float, metavar="M", help="full width of lines, metres")
    add("--width-field", metavar="NAME", help="field of the lines with their full width, metres; --width where empty")
    text = "field with the class of each road: numbers, or names that are numbered from 1 by the alphabet"
    add("--class-field", metavar="NAME", help=text)
    add("--area", metavar="FILE[:LAYER]", help="polygons; the ground outside is ignored")
    add("--nogo", metavar="FILE[:LAYER]", help="polygons; the ground inside is ignored")
    add("--gsd", type=float, metavar="M", help="metres per pixel (default: that of the first image)")
    add("--tile", type=int, default=512, metavar="PX", help="side of a tile (default: 512)")
    add("--val", type=float, default=0.2, help="share or number of blocks for validation (default: 0.2)")
    add("--test", type=float, default=0, help="share or number of blocks for test (default: 0, test is val)")
    text = "side of the blocks of ground that are split (default: 8 tiles, fewer where there are less than 16 blocks)"
    add("--block", type=float, metavar="M", help=text)
    add("--gap", type=float, metavar="M", help="ground left out between blocks (default: an eighth of a tile)")
    add("--seed", type=int, default=0, help="seed of the random split (default: 0)")
    add_numbers(parser, "--bands", "3,2,1", "bands to read, numbered from 1, red first")
    text = "of the training pixels, to scale more than 8 bits (default: 2 98)"
    add("--percentiles", type=float, nargs=2, default=(2, 98), metavar=("LOW", "HIGH"), help=text)
    add("--workers", type=int, help="blocks at a time (default: the cores, up to 8)")
    add("--overwrite", action="store_true", help="replace an existing DEST")
    args = parser.parse_args()

    from mmseg_ext.converters import ConversionSettings, RoadDrawing, convert_layers
    from mmseg_ext.imagery import read_metadata

    log_to_stderr()
    drawing = RoadDrawing(args.roads, args.width, args.width_field, args.class_field, args.area, args.nogo)
    settings = ConversionSettings(
        tile=args.tile, overlap=0, bands=args.bands, percentiles=tuple(args.percentiles), gsd=args.gsd,
        overwrite=args.overwrite, **({} if args.workers is None else dict(workers=args.workers)),
        val=args.val, test=args.test, seed=args.seed,
    )  # fmt: skip
    made = convert_layers(args.rasters, drawing, args.out, settings, args.block, args.gap)
    about = read_metadata(args.out)
    sys.stdout.write(
        f"{args.out}: {made.text('not background')}; fine-tuning keeps its weights' own\n"
        f"{about['gsd_m']:g} m per pixel; split by blocks of {about['block_m']:g} m, {about['gap_m']:g} m apart; "
        f"labels: {', '.join(f'{i} {name}' for i, name in enumerate(about['classes']))}\n"
    )


if __name__ == "__main__":
    run_tool(main, "stopped; re-run the command to resume")
