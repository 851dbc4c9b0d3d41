#!/usr/bin/env python
"""Evaluate a checkpoint: ``python tools/test.py [CONFIG] CHECKPOINT --eval mIoU``."""

import argparse
import os

from mmseg_ext.engine import (
    PredictionWriter,
    add_config_options,
    config_for,
    evaluate_checkpoint,
    is_first_process,
)
from mmseg_ext.engine.checkpoint import read_checkpoint, weights_sha256
from mmseg_ext.errors import run_tool
from mmseg_ext.report import save_metrics


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    text = "the config that the checkpoint was trained with (default: the one inside the checkpoint)"
    parser.add_argument("config", nargs="?", help=text)
    parser.add_argument("checkpoint", help="weights, .pth or .safetensors")
    parser.add_argument("--eval", nargs="+", default=[], metavar="METRIC", help="mIoU, mDice, mFscore")
    parser.add_argument("--out", metavar="FILE", help="write the metrics to this JSON file")
    parser.add_argument("--mask-dir", metavar="DIR", help="write every predicted label map as PNG into this folder")
    parser.add_argument("--show-dir", metavar="DIR", help="write image, truth and prediction side by side as PNG")
    parser.add_argument("--opacity", type=float, default=0.6, help="of the tint in --show-dir, 0 to 1 (default: 0.6)")
    parser.add_argument("--aug-test", action="store_true", help="average over flips and scales 0.5 to 1.75")
    parser.add_argument(
        "--precision", choices=["fp32", "bf16", "fp16", "auto"], help="auto: what the hardware does best"
    )
    parser.add_argument("--gpu-id", type=int, default=0, help="GPU of a single process (default: 0)")
    add_config_options(parser)
    args = parser.parse_args()
    if not (args.eval or args.mask_dir or args.show_dir):
        parser.error("nothing to do: give --eval, --mask-dir or --show-dir")
    return args


def main() -> None:
    """Evaluate as the command line says."""
    args = parse_args()
    cfg = config_for(args.config, args.checkpoint, args.cfg_options)
    if args.precision:
        cfg.precision = args.precision
    if args.aug_test:
        augmentation = cfg.data.test.pipeline[1]
        augmentation.img_ratios = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
        augmentation.flip = True
    writer = PredictionWriter(args.mask_dir, args.show_dir, args.opacity)
    scores = evaluate_checkpoint(cfg, args.checkpoint, args.eval, args.gpu_id, writer)
    if args.out and is_first_process():
        weights = weights_sha256(read_checkpoint(args.checkpoint)["state_dict"])
        split = os.path.join(cfg.data.test.get("data_root") or "", cfg.data.test.split)
        facts = dict(config=args.config, checkpoint=args.checkpoint, weights_sha256=weights, split=split)
        save_metrics(args.out, scores, **facts)


if __name__ == "__main__":
    run_tool(main)
