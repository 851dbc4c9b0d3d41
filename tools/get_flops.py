#!/usr/bin/env python
"""Count a network: ``python tools/get_flops.py CONFIG --shape 512 512``."""

import argparse
import sys

from mmseg_ext.errors import ConfigError, run_tool
from mmseg_ext.options import add_config_options


def main() -> None:
    """Print parameters and both counters."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="a leaf below myconfigs/")
    text = "height and width in pixels (default: 512)"
    parser.add_argument("--shape", type=int, nargs="+", default=[512], metavar="PX", help=text)
    add_config_options(parser)
    args = parser.parse_args()

    from mmseg_ext.engine import load_config, measure_complexity

    if len(args.shape) > 2 or min(args.shape) < 1:
        raise ConfigError(f"--shape {' '.join(map(str, args.shape))}: give one size or height and width, in pixels")
    height, width = args.shape[0], args.shape[-1]
    cost = measure_complexity(load_config(args.config, args.cfg_options), height, width)
    mark = {cost.paper_counter: "  <- the paper's counter for this network"}
    sys.stdout.write(f"{args.config}, input {height}x{width}, multiply-accumulates of one image\n")
    params = f"{cost.params / 1e6:.2f} M"
    if cost.imagenet_head_params:
        with_head = (cost.params + cost.imagenet_head_params) / 1e6
        params = f"{with_head:.2f} M with the ImageNet classifier of the published checkpoint, {params} without"
    sys.stdout.write(f"Params:             {params}\n")
    sys.stdout.write(f"FLOPs mmcv:         {cost.mmcv_macs / 1e9:.2f} G{mark.get('mmcv', '')}\n")
    sys.stdout.write(f"FLOPs torchprofile: {cost.torchprofile_macs / 1e9:.2f} G{mark.get('torchprofile', '')}\n")


if __name__ == "__main__":
    run_tool(main)
