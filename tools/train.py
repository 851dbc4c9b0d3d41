#!/usr/bin/env python
"""Train a config: ``python tools/train.py CONFIG [options]``."""

import argparse

from mmseg_ext.errors import run_tool
from mmseg_ext.options import TRAINING, add_config_options, add_mmsegmentation_options


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="a leaf below myconfigs/, or your own")
    parser.add_argument("--work-dir", help="folder for checkpoints and logs (default: work_dirs/<config name>)")
    parser.add_argument("--load-from", help="start from these segmentation weights")
    parser.add_argument("--resume-from", help="continue from this checkpoint of an interrupted run")
    parser.add_argument("--auto-resume", action="store_true", help="continue from the newest complete checkpoint")
    parser.add_argument("--no-validate", action="store_true", help="do not evaluate during the training")
    text = "auto: the fastest that the hardware supports"
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16", "auto"], help=text)
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, data order and augmentation (default: 0)")
    parser.add_argument("--deterministic", action="store_true", help="ask for reproducible algorithms on a GPU")
    parser.add_argument("--gpu-id", type=int, default=0, help="GPU of a single process (default: 0)")
    add_config_options(parser)
    add_mmsegmentation_options(parser, TRAINING)
    return parser.parse_args()


def main() -> None:
    """Train as the command line says."""
    args = parse_args()

    from mmseg_ext.engine import load_config, train

    cfg = load_config(args.config, args.cfg_options)
    for key in ("load_from", "resume_from", "precision"):
        if getattr(args, key):
            cfg[key] = getattr(args, key)
    train(
        cfg,
        work_dir=args.work_dir,
        seed=args.seed,
        deterministic=args.deterministic,
        validate=not args.no_validate,
        auto_resume=args.auto_resume,
        gpu_id=args.gpu_id,
    )


if __name__ == "__main__":
    run_tool(main, "stopped; re-run the command with --auto-resume to resume")
