#!/usr/bin/env python
"""Write a network for other runtimes: ``python tools/export.py CHECKPOINT --out FILE-OR-FOLDER --format onnx``."""

import argparse
import logging
import sys

from mmseg_ext.deploy.exporting import export_checkpoint
from mmseg_ext.deploy.formats import FORMATS
from mmseg_ext.errors import run_tool
from mmseg_ext.options import add_config_options


def main() -> None:
    """Export as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="weights, .pth or .safetensors")
    parser.add_argument("--out", required=True, metavar="PATH", help="a file, or with several formats a folder")
    parser.add_argument("--format", nargs="+", required=True, choices=FORMATS, help="one or several")
    text = "of the file (default: fp32); int8 needs images to calibrate with"
    parser.add_argument("--precision", default="fp32", choices=["fp32", "fp16", "int8"], help=text)
    parser.add_argument("--config", help="config of the weights (default: the one inside the checkpoint)")
    text = "for int8: folder of images, or a config, for its training images (default: the network's config)"
    parser.add_argument("--calibration", metavar="DIR", help=text)
    text = "size of the images to check the file with (default: four strides of the network); the file takes any size"
    parser.add_argument("--shape", type=int, nargs=2, metavar=("H", "W"), help=text)
    text = "the device that runs the file; the other does too, more slowly (default: cpu)"
    parser.add_argument("--target", default="cpu", choices=["cpu", "cuda"], help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_config_options(parser)
    args = parser.parse_args()

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("mmseg_ext").setLevel(logging.INFO)
    export_checkpoint(
        args.checkpoint,
        args.out,
        list(dict.fromkeys(args.format)),
        args.precision,
        args.config,
        args.cfg_options,
        args.calibration,
        tuple(args.shape) if args.shape else None,
        args.overwrite,
        args.target,
    )


if __name__ == "__main__":
    run_tool(main)
