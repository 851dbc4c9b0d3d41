#!/usr/bin/env python
"""Look at what the network sees after augmentation: ``python tools/browse_dataset.py CONFIG --out sheet.html``."""

import argparse
import os
import sys

from mmseg_ext.engine import add_config_options, load_config
from mmseg_ext.engine.browsing import browse_dataset
from mmseg_ext.errors import run_tool


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="a leaf below myconfigs/")
    parser.add_argument("--split", choices=["train", "val", "test"], default="train")
    parser.add_argument("--count", type=int, default=24, help="number of images (default: 24)")
    parser.add_argument(
        "--out", help=".html, .png or .jpg to write (default: work_dirs/<config>/browse_<split>.html)", metavar="FILE"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice and the augmentation (default: 0)")
    add_config_options(parser)
    return parser.parse_args()


def main() -> None:
    """Write the contact sheet."""
    args = parse_args()
    name = os.path.splitext(os.path.basename(args.config))[0]
    path = args.out or os.path.join("work_dirs", name, f"browse_{args.split}.html")
    browse_dataset(load_config(args.config, args.cfg_options), path, args.split, args.count, args.seed)
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    run_tool(main)
