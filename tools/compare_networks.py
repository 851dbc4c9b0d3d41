#!/usr/bin/env python
"""Compare the roads of two surveys: ``python tools/compare_networks.py OLD NEW --out changes.gpkg``."""

import argparse
import logging
import os
import sys
from functools import partial

from mmseg_ext.cli import log_to_stderr
from mmseg_ext.errors import ConfigError, run_tool


def main() -> None:
    """Compare as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    metres = partial(parser.add_argument, type=float, metavar="M")
    text = "lines of the earlier survey: FILE or FILE:LAYER, of tools/extract_network.py or any vector file"
    parser.add_argument("old", help=text)
    parser.add_argument("new", help="lines of the later one; reprojected to the CRS of OLD")
    text = "polygons that both surveys cover; roads are compared up to their border (default: everywhere)"
    parser.add_argument("--area", metavar="FILE[:LAYER]", help=text)
    text = "layer of the changes: changes.gpkg, or .geojson or .parquet (default: changes.gpkg)"
    parser.add_argument("--out", default="changes.gpkg", help=text)
    metres("--tolerance", default=3, help="how far apart the same road may be: registration errors (default: 3)")
    metres("--shift", default=15, help="how far a shifted road may move; beyond, removed and new (default: 15)")
    text = "drop shorter stretches, and width changes over less than twice as much (default: 10)"
    metres("--min-length", default=10, help=text)
    text = "report roads that became this much, and at least a fifth, wider or narrower (default: 2)"
    metres("--width-change", default=2, help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    args = parser.parse_args()

    from mmseg_ext import networks
    from mmseg_ext.geo import is_placed
    from mmseg_ext.geo.vector import file_and_layer

    log_to_stderr()
    settings = networks.ComparisonSettings(args.tolerance, args.shift, args.min_length, args.width_change)
    networks.check_layer_files(args.out, ("changes",), args.overwrite)
    inputs = [file_and_layer(source)[0] for source in (args.old, args.new, args.area) if source is not None]
    for file in networks.layer_files(args.out, ("changes",)).values():
        if any(os.path.realpath(file) == os.path.realpath(path) for path in inputs):
            raise ConfigError(f"{file}: is a file to compare; give another --out")
    area = None if args.area is None else networks.read_area(args.area)
    old, new = networks.read_survey(args.old), networks.read_survey(args.new)
    networks.check_layer_files(args.out, ("changes",), args.overwrite, is_placed(old.edges.crs))
    result = networks.compare_networks(old, new, settings, area)
    files = networks.write_layers(args.out, {"changes": result.changes})
    lengths = result.lengths()
    counts = result.changes["kind"].value_counts()
    sys.stdout.writelines(
        f"{kind:10} {lengths[kind] / 1000:9.2f} km{f'  {counts[kind]} stretches' if kind in counts else ''}\n"
        for kind in (*networks.CHANGES, "unchanged")
    )
    sys.stdout.write(
        f"{'old survey':10} {result.old_m / 1000:9.2f} km\n{'new survey':10} {result.new_m / 1000:9.2f} km\n"
    )
    logging.info("%s: %d stretches", ", ".join(files), len(result.changes))


if __name__ == "__main__":
    run_tool(main)
