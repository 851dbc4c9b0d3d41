#!/usr/bin/env python
"""Estimate the memory of a training step: ``python tools/get_memory.py CONFIG ... --precision fp32 fp16``."""

import argparse
import sys

from mmseg_ext.errors import run_tool
from mmseg_ext.options import add_config_options


def main() -> None:
    """Print a Markdown table, one row per config, with its own batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="+", help="leaf configs")
    parser.add_argument("--precision", nargs="+", default=["fp32"], choices=["fp32", "bf16", "fp16"])
    text = "height and width in pixels (default: the config's crop)"
    parser.add_argument("--shape", type=int, nargs=2, metavar="PX", help=text)
    add_config_options(parser)
    args = parser.parse_args()

    from mmseg_ext.engine import crop_size, estimate_training_memory, load_config
    from mmseg_ext.engine.config import batch_settings

    columns = " | ".join(f"{precision} GiB" for precision in args.precision)
    sys.stdout.write(f"| config | crop | images per GPU | {columns} |\n|{' --- |' * (3 + len(args.precision))}\n")
    for path in args.configs:
        cfg = load_config(path, args.cfg_options)
        batch = batch_settings(cfg)["samples_per_gpu"]
        height, width = args.shape or crop_size(cfg)
        needs = [estimate_training_memory(cfg, batch, height, width, precision) for precision in args.precision]
        cells = [f"{need / 2**30:.1f}" for need in needs]
        sys.stdout.write(f"| {path} | {height}x{width} | {batch} | {' | '.join(cells)} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    run_tool(main)
