#!/usr/bin/env python
"""Turn a folder of images and a folder of masks into a data set that trains.

Example: python tools/convert_dataset.py raw/images raw/masks data/MyMine --val 0.2 --test 0.1
"""

import argparse
import sys

from mmseg_ext.converters import convert_folder_pair
from mmseg_ext.errors import run_tool


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="folder of images (png, jpg, tif; 8 bit)")
    parser.add_argument("masks", help="folder of masks, named like the images; may be the same folder (_sat / _mask)")
    parser.add_argument("dest", help="folder to create")
    parser.add_argument(
        "--val", type=float, default=0.2, help="share (below 1) or number for validation (default: 0.2)"
    )
    parser.add_argument("--test", type=float, default=0.0, help="share or number for test (default: 0, test is val)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random split (default: 0)")
    parser.add_argument("--by-name", action="store_true", help="split by name: the last ones validate and test")
    parser.add_argument("--num-classes", type=int, default=2, help="above 2: the masks hold class indices")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing DEST")
    return parser.parse_args()


def main() -> None:
    """Convert as the command line says."""
    args = parse_args()
    made = convert_folder_pair(
        args.images,
        args.masks,
        args.dest,
        val=args.val,
        test=args.test,
        seed=args.seed,
        by_name=args.by_name,
        num_classes=args.num_classes,
        overwrite=args.overwrite,
    )
    counts = ", ".join(f"{count} {split}" for split, count in made.counts.items() if count)
    if not made.counts["test"]:
        counts += ", the validation images are the test too (--test splits others off)"
    what = "road" if args.num_classes == 2 else "not background"
    sys.stdout.write(
        f"{args.dest}: {counts}; {made.road_share:.1%} {what}\n"
        f"for the config: Normalize=dict(mean={made.mean}, std={made.std})\n"
    )


if __name__ == "__main__":
    run_tool(main)
