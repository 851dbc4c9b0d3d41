#!/usr/bin/env python
"""Generate views of open-pit mines with their road masks as a data set that trains.

After an interruption, re-run the command to resume; when all is done, it does nothing.

Example: python tools/make_mines.py data/Mines --count 400 --workers 2
"""

import argparse
import sys

from mmseg_ext.errors import run_tool


def main() -> None:
    """Generate as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("dest", metavar="DEST", help="folder to create")
    add("--count", type=int, default=400, help="number of views, of which the last 5 %% validate (default: 400)")
    add("--seed", type=int, default=0, help="seed of the first view (default: 0)")
    add("--size", type=int, default=640, metavar="PX", help="rows and columns of a view (default: 640)")
    add("--workers", type=int, default=1, help="processes (default: 1)")
    add("--overwrite", action="store_true", help="replace an existing DEST")
    args = parser.parse_args()

    from mmseg_ext.converters import write_mine_views

    made = write_mine_views(args.dest, args.count, args.seed, args.size, args.workers, args.overwrite)
    sys.stdout.write(f"{args.dest}: {made.text('road')}\n")


if __name__ == "__main__":
    run_tool(main, "stopped; re-run the command to resume")
