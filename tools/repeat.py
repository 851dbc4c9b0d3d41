#!/usr/bin/env python
"""Train a config with several seeds and report mean and deviation: ``python tools/repeat.py CONFIG --seeds 0 1 2``.

Each seed is trained in WORK_DIR/seed<N> and scored on the test split. The same command goes on after a stop, and more
seeds add to those that are done; WORK_DIR/repeat.json holds all scores.
"""

import argparse
import sys

from mmseg_ext.engine import repeat, repeat_table
from mmseg_ext.errors import run_tool


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a leaf below myconfigs/, or your own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--work-dir", help="folder of all runs (default: work_dirs/<config name>.repeat)")
    parser.add_argument("--processes", type=int, default=1, help="GPUs for each run, or gloo processes (default: 1)")
    parser.add_argument("--cfg-options", nargs="+", default=[], help="config overrides for all, key.sub=value ...")
    return parser.parse_args()


def main() -> None:
    """Repeat as the command line says, and print the table."""
    args = parse_args()
    result = repeat(args.config, args.seeds, args.work_dir, args.cfg_options, args.processes)
    sys.stdout.write(f"{repeat_table(result)}\n")


if __name__ == "__main__":
    run_tool(main)
