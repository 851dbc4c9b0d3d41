#!/usr/bin/env python
"""Draw loss, mIoU and road IoU of trainings into one picture: ``python tools/plot_runs.py RUN [RUN ...]``."""

import argparse
import sys

from mmseg_ext.errors import run_tool
from mmseg_ext.report import plot_runs


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="work dir of a training, also of one still running")
    parser.add_argument("--out", default="runs.png", help="picture, .png, .pdf or .svg (default: runs.png)")
    return parser.parse_args()


def main() -> None:
    """Draw as the command line says."""
    args = parse_args()
    plot_runs(args.runs, args.out)
    sys.stdout.write(f"{args.out}: {len(args.runs)} run(s)\n")


if __name__ == "__main__":
    run_tool(main)
