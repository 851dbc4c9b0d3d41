#!/usr/bin/env python
"""Training speed of networks on this device, with and without settings of speed, without any loading of images.

Example: python tools/measure_training.py myconfigs/dsegnext/tiny/dsegnext.tiny.1024x1024.OPM.20k.scratch.py --crop 256
"""

import argparse
import json
import os
import sys
from dataclasses import asdict

import torch

from mmseg_ext.engine import load_config
from mmseg_ext.engine.training_speed import measure_training
from mmseg_ext.errors import run_tool
from mmseg_ext.report import markdown_table

SETTINGS = ("fp32", "bf16", "bf16+channels_last", "bf16+channels_last+compile")


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="leaves below myconfigs/, or your own")
    parser.add_argument(
        "--settings", nargs="+", default=SETTINGS, help=f"ratios are to the first (default: {' '.join(SETTINGS)})"
    )
    parser.add_argument("--crop", type=int, default=256, help="rows and columns of a crop, pixels (default: 256)")
    parser.add_argument("--batch", type=int, default=2, help="images of a step (default: 2)")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each setting, after two (default: 5)")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON instead of a table")
    return parser.parse_args()


def main() -> None:
    """Measure as the command line says."""
    args = parse_args()
    found = {}
    for path in args.configs:
        found[path] = measure_training(load_config(path), args.settings, args.crop, args.batch, args.rounds)
    if args.json:
        speeds = {path: {s: asdict(speed) for s, speed in row.items()} for path, row in found.items()}
        sys.stdout.write(json.dumps(speeds, indent=1) + "\n")
        return
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    rows = []
    for path, row in found.items():
        cells = [
            f"{speed.images_per_s:.2f} ({speed.ratio:.2f})"
            + ("" if speed.peak_gib is None else f", {speed.peak_gib:.1f} GiB")
            for speed in row.values()
        ]
        rows.append([os.path.basename(path).removesuffix(".py"), *cells])
    header = [f"images/s (ratio), {args.batch} x {args.crop} px, {device}", *args.settings]
    sys.stdout.write(markdown_table(header, rows) + "\n")


if __name__ == "__main__":
    run_tool(main)
