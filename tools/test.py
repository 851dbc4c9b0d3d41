#!/usr/bin/env python
"""Evaluate a checkpoint: ``python tools/test.py [CONFIG] CHECKPOINT --eval mIoU``."""

import argparse
import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from mmseg_ext.deploy.options import BackendSettings, add_backend_options, backend_settings
from mmseg_ext.errors import ConfigError, run_tool
from mmseg_ext.options import TESTING, add_config_options, add_mmsegmentation_options
from mmseg_ext.report.tables import save_metrics

if TYPE_CHECKING:
    import torch
    from mmcv import Config
    from torch import nn

    from mmseg_ext.engine.road_scorer import RoadScorer


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    text = "the config that the checkpoint was trained with (default: the one inside the checkpoint)"
    parser.add_argument("config", nargs="?", help=text)
    parser.add_argument("checkpoint", help="weights, .pth or .safetensors")
    parser.add_argument("--eval", nargs="+", default=[], metavar="METRIC", help="mIoU, mDice, mFscore, road")
    parser.add_argument("--out", metavar="FILE", help="write the metrics to this JSON file")
    text = "with --eval road: write scores by image, a report, probability and entropy maps into this folder"
    parser.add_argument("--report", metavar="DIR", help=text)
    parser.add_argument("--tolerance", type=float, metavar="PX", help="of road scores (default: 3)")
    text = "of centrelines and connectivity (default: half the width of each image's true roads)"
    parser.add_argument("--buffer", type=float, metavar="PX", help=text)
    parser.add_argument("--tolerance-m", type=float, metavar="M", help="in metres instead; needs metres per pixel")
    parser.add_argument("--gsd", type=float, metavar="M", help="metres per pixel (default: what dataset.json says)")
    text = "road scores count pixels of at least this probability as road (default: the network's own, else 0.5)"
    parser.add_argument("--threshold", type=float, help=text)
    parser.add_argument("--mask-dir", metavar="DIR", help="write every predicted label map as PNG into this folder")
    parser.add_argument("--show-dir", metavar="DIR", help="write image, truth and prediction side by side as PNG")
    parser.add_argument("--opacity", type=float, default=0.6, help="of the tint in --show-dir, 0 to 1 (default: 0.6)")
    text = "average over: flips, scales (0.5 to 1.75), rotations (by 90 degrees)"
    parser.add_argument("--tta", nargs="+", default=[], choices=["flips", "scales", "rotations"], help=text)
    parser.add_argument("--aug-test", action="store_true", help="MMSegmentation's name for --tta flips scales")
    add_backend_options(parser, None)
    parser.add_argument("--gpu-id", type=int, default=0, help="GPU of a single process (default: 0)")
    add_config_options(parser)
    add_mmsegmentation_options(parser, TESTING)
    args = parser.parse_args()
    if args.out and args.out.endswith((".pkl", ".pickle")):
        raise ConfigError(f"--out {args.out}: has the metrics, as .json; --mask-dir DIR takes the label maps")
    if not (args.eval or args.mask_dir or args.show_dir):
        parser.error("nothing to do: give --eval, --mask-dir or --show-dir")
    for name in ("report", "tolerance", "tolerance_m", "buffer", "gsd"):
        if getattr(args, name) is not None and "road" not in args.eval:
            parser.error(f"--{name.replace('_', '-')} is for road scores; give --eval road")
    if args.tolerance is not None and args.tolerance_m is not None:
        parser.error("--tolerance and --tolerance-m are the same in two units; give one of them")
    return args


def road_scorer(args: argparse.Namespace) -> "RoadScorer":
    """Return what scores roads."""
    from mmseg_ext.engine.road_scorer import RoadScorer
    from mmseg_ext.scoring import ScoringSettings

    return RoadScorer(
        ScoringSettings(args.tolerance or 3.0, args.tolerance_m, args.buffer, args.gsd, args.threshold), args.report
    )


def prepared(settings: BackendSettings, cfg: "Config", network: "nn.Module", device: "torch.device") -> "nn.Module":
    """Return ``network`` on its backend."""
    from mmseg_ext.deploy.choice import run_on
    from mmseg_ext.deploy.facts import image_bands
    from mmseg_ext.engine.config import step_arguments

    shape = (1, image_bands(network), *step_arguments(cfg.data.test, "MultiScaleFlipAug")["img_scale"][::-1])
    network, backend, precision = run_on(network, settings, cfg.get("precision", "fp32"), device, shape)
    sys.stdout.write(f"backend {backend}, {precision}\n")
    return network


def main() -> None:
    """Evaluate as the command line says."""
    args = parse_args()

    from mmseg_ext import engine
    from mmseg_ext.engine.checkpoint import read_checkpoint, weights_sha256

    cfg = engine.config_for(args.config, args.checkpoint, args.cfg_options)
    engine.use_augmentations(cfg, ["flips", "scales"] if args.aug_test else args.tta)
    scorer = road_scorer(args) if "road" in args.eval else None
    writer = engine.PredictionWriter(args.mask_dir, args.show_dir, args.opacity)
    facts: dict[str, str] = {}
    if args.out or args.report:
        weights = weights_sha256(read_checkpoint(args.checkpoint)["state_dict"])
        split = os.path.join(cfg.data.test.get("data_root") or "", cfg.data.test.split)
        facts = dict(config=args.config, checkpoint=args.checkpoint, weights_sha256=weights, split=split)
    prepare = None
    if args.backend or args.exported:
        prepare = partial(prepared, backend_settings(args), cfg)
    elif args.precision:
        cfg.precision = args.precision
    scores = engine.evaluate_checkpoint(cfg, args.checkpoint, args.eval, args.gpu_id, writer, scorer, facts, prepare)
    if args.out and engine.is_first_process():
        save_metrics(args.out, scores, **facts)


if __name__ == "__main__":
    run_tool(main)
