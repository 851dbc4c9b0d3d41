#!/usr/bin/env python
"""The whole way on a synthetic open-pit mine: generate, train D-SegNeXt-T, evaluate, draw an unseen mine."""

import argparse
import os
import shutil
import sys
import time

from mmseg_ext.converters import write_synthetic_mines
from mmseg_ext.engine import PredictionWriter, add_config_options, evaluate_checkpoint, load_config, train
from mmseg_ext.errors import run_tool

CONFIG = "myconfigs/dsegnext/tiny/dsegnext.tiny.160x160.MINE.0.75k.py"
TRAIN_SEEDS, VAL_SEED, TEST_SEED = range(1, 31), 31, 32


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", default="work_dirs/demo", help="folder for data, run and picture (default: %(default)s)"
    )
    add_config_options(parser)
    return parser.parse_args()


def main() -> None:
    """Run the demo."""
    args = parse_args()
    start = time.monotonic()
    data, run = os.path.join(args.out, "data"), os.path.join(args.out, "run")
    sys.stdout.write(f"generating {len(TRAIN_SEEDS) + 2} synthetic mines in {data}\n")
    sys.stdout.flush()
    os.makedirs(args.out, exist_ok=True)
    shutil.rmtree(run, ignore_errors=True)
    write_synthetic_mines(data, TRAIN_SEEDS, [VAL_SEED], [TEST_SEED], overwrite=True)
    roots = {f"data.{split}.data_root": data for split in ("train", "val", "test")}
    cfg = load_config(os.path.join(os.path.dirname(__file__), "..", CONFIG), {**roots, **(args.cfg_options or {})})
    train(cfg, work_dir=run)
    sys.stdout.write("\nthe unseen mine:\n")
    writer = PredictionWriter(None, args.out)
    evaluate_checkpoint(cfg, os.path.join(run, "latest.pth"), ["mIoU", "mFscore"], on_prediction=writer)
    picture = os.path.abspath(os.path.join(args.out, f"mine{TEST_SEED:04d}.png"))
    sys.stdout.write(
        f"\ndone in {(time.monotonic() - start) / 60:.1f} minutes; image, truth and prediction:\n{picture}\n"
    )


if __name__ == "__main__":
    run_tool(main)
