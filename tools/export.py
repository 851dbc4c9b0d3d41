#!/usr/bin/env python
"""Write a network as one file for other programs: ``python tools/export.py CHECKPOINT roads.onnx``."""

import argparse
import logging
import sys

from mmseg_ext.deploy.options import PROGRAMS, SUFFIXES, format_of
from mmseg_ext.errors import ConfigError, run_tool
from mmseg_ext.options import add_config_options


def main() -> None:
    """Export as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="weights, .pth or .safetensors, or the name of those of this package")
    text = f"the file; its suffix says the format: {', '.join(SUFFIXES.values())}"
    parser.add_argument("file", nargs="?", metavar="FILE", help=text)
    parser.add_argument("--out", metavar="PATH", help="in its place a file, or with several formats a folder")
    parser.add_argument("--format", nargs="+", choices=SUFFIXES, help="one or several")
    text = "write an ONNX file that this program reads: QGIS's Deepness, or GeoDeep, which WebODM calls"
    parser.add_argument("--for", dest="program", choices=PROGRAMS, help=text)
    text = "side of the tiles of --for, in pixels (default: 512); other files take any size"
    parser.add_argument("--tile", type=int, metavar="PX", help=text)
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
    if (args.file is None) == (args.out is None):
        raise ConfigError("give the file to write after the checkpoint, such as roads.onnx, or --out PATH")
    if args.tile is not None and (args.program is None or args.tile < 1):
        raise ConfigError(f"--tile {args.tile}: is for --for, and 1 px or more; other files take any size")

    from mmseg_ext.deploy.exporting import export_checkpoint

    out = args.file or args.out
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("mmseg_ext").setLevel(logging.INFO)
    export_checkpoint(
        args.checkpoint,
        out,
        list(dict.fromkeys(args.format)) if args.format else [format_of(out)],
        args.precision,
        args.config,
        args.cfg_options,
        args.calibration,
        tuple(args.shape) if args.shape else None,
        args.overwrite,
        args.target,
        args.program,
        args.tile or 512,
    )


if __name__ == "__main__":
    run_tool(main)
