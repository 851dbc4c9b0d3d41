#!/usr/bin/env python
"""Training speed of networks on this device, with and without settings of speed, without any loading of images.

Example: python tools/measure_training.py myconfigs/dsegnext/tiny/dsegnext.tiny.1024x1024.OPM.20k.scratch.py --crop 256

With --profile: where the time of one step goes, loading included, with the settings of the config.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict

import torch

from mmseg_ext.engine import add_config_options, load_config
from mmseg_ext.engine.training_profile import profile_training
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
    parser.add_argument(
        "--profile", action="store_true", help="milliseconds of the parts of a step (median) and their shares"
    )
    parser.add_argument(
        "--crop",
        type=int,
        help="rows and columns of random crops, pixels (default: 256; with --profile: the config's data)",
    )
    parser.add_argument("--batch", type=int, help="images of a step (default: 2; with --profile: the config's)")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each setting, after two (default: 5)")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON instead of a table")
    add_config_options(parser)
    return parser.parse_args()


def device_in_words() -> str:
    """Return what computes."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"


def profile(args: argparse.Namespace) -> None:
    """Print the parts of a step of each config."""
    profiles = {}
    for path in args.configs:
        profiles[path] = profile_training(load_config(path, args.cfg_options), args.crop, args.batch, args.rounds)
    if args.json:
        sys.stdout.write(json.dumps({path: asdict(one) for path, one in profiles.items()}, indent=1) + "\n")
        return
    for path, one in profiles.items():
        name = os.path.basename(path).removesuffix(".py")
        rows = [[part, f"{ms:.1f}", f"{100 * ms / one.step_ms:.1f}"] for part, ms in one.part_ms.items()]
        rows.append(["step", f"{one.step_ms:.1f}", "100.0"])
        sys.stdout.write(f"{name}: {one.batch} images of {one.source}, {device_in_words()}\n\n")
        sys.stdout.write(markdown_table(["part", "ms", "% of the step"], rows) + "\n\n")


def main() -> None:
    """Measure as the command line says."""
    args = parse_args()
    if args.profile:
        profile(args)
        return
    crop, batch = args.crop or 256, args.batch or 2
    found = {}
    for path in args.configs:
        cfg = load_config(path, args.cfg_options)
        found[path] = measure_training(cfg, args.settings, crop, batch, args.rounds)
    if args.json:
        speeds = {path: {s: asdict(speed) for s, speed in row.items()} for path, row in found.items()}
        sys.stdout.write(json.dumps(speeds, indent=1) + "\n")
        return
    rows = []
    for path, row in found.items():
        cells = [
            f"{speed.images_per_s:.2f} ({speed.ratio:.2f})"
            + ("" if speed.peak_gib is None else f", {speed.peak_gib:.1f} GiB")
            for speed in row.values()
        ]
        rows.append([os.path.basename(path).removesuffix(".py"), *cells])
    header = [f"images/s (ratio), {batch} x {crop} px, {device_in_words()}", *args.settings]
    sys.stdout.write(markdown_table(header, rows) + "\n")


if __name__ == "__main__":
    run_tool(main)
