#!/usr/bin/env python
"""Publish weights: ``python tools/publish_checkpoint.py CHECKPOINT OUT.safetensors --licence NAME``."""

import argparse
import json
import sys

from mmseg_ext.errors import ConfigError, run_tool
from mmseg_ext.options import add_config_options, add_numbers


def read_metrics(path: str, checkpoint: str) -> dict[str, float]:
    """Return the scores in a file of tools/test.py, which must be those of ``checkpoint``.

    Raises:
        ConfigError: the file is missing, contains no scores, or those of other weights.
    """
    from mmseg_ext.engine.checkpoint import read_checkpoint, weights_sha256

    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        measured, metrics = content["weights_sha256"], dict(content["metrics"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{path}: contains no metrics; give the file that tools/test.py --out wrote") from None
    if measured != weights_sha256(read_checkpoint(checkpoint)["state_dict"]):
        raise ConfigError(f"{path}: was measured with other weights ({content.get('checkpoint')}), not {checkpoint}")
    return metrics


def add_weights_options(parser: argparse.ArgumentParser, licence: bool) -> None:
    """Add what `write_weights` reads; ``licence``: whether there must be one."""
    parser.add_argument("--licence", required=licence, help="for others to use the weights under, such as CC-BY-4.0")
    parser.add_argument("--config", help="the config it was trained with (default: the one inside the checkpoint)")
    parser.add_argument("--metrics", metavar="FILE", help="scores: what tools/test.py --out wrote")
    parser.add_argument("--gsd-m", type=float, metavar="M", help="ground sampling distance in metres per pixel")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="what tools/calibrate.py found")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="probability from which maps show road (default: the config's, else 0.5)",
    )
    add_numbers(parser, "--scales", "0.5,0.75,1", "sizes at which maps look at each tile", kind=float)
    text = "least and most metres per pixel of the ground that training showed"
    add_numbers(parser, "--gsd-range-m", "0.1,1", text, kind=float)
    parser.add_argument("--half", action="store_true", help="store float16, in half the bytes")
    add_config_options(parser)


def write_weights(args: argparse.Namespace, out: str) -> dict:
    """Publish ``args.checkpoint`` as the file ``out``; return its meta data."""
    from mmseg_ext.engine import config_for, publish_checkpoint
    from mmseg_ext.runtime.facts import check_mapping

    cfg = config_for(args.config, args.checkpoint, args.cfg_options)
    metrics = read_metrics(args.metrics, args.checkpoint) if args.metrics else None
    given = dict(threshold=args.threshold, scales=args.scales, gsd_range_m=args.gsd_range_m)
    mapping = {name: list(v) if isinstance(v, tuple) else v for name, v in given.items() if v is not None}
    check_mapping(mapping, out)
    return publish_checkpoint(
        args.checkpoint, out, cfg, args.licence, metrics, args.gsd_m, args.temperature, args.half, mapping
    )


def main() -> None:
    """Publish as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="a training checkpoint, or weights with --config")
    parser.add_argument("out", help="the new file, .safetensors; its meta data go to the same name with .json too")
    add_weights_options(parser, licence=True)
    args = parser.parse_args()
    meta = write_weights(args, args.out)
    sys.stdout.write(f"{args.out}: {', '.join(meta['CLASSES'])}; SHA-256 {meta['file_sha256']}\n")


if __name__ == "__main__":
    run_tool(main)
