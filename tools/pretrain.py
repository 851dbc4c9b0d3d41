#!/usr/bin/env python
"""Pre-train an encoder as a classifier: ``python tools/pretrain.py DATA --model dsegnext_tiny [options]``."""

import argparse
import sys

from mmseg_ext.engine import is_first_process
from mmseg_ext.errors import run_tool
from mmseg_ext.pretrain import PretrainSettings, add_pretrain_options, evaluate_classifier, pretrain
from mmseg_ext.report import save_metrics


def main() -> None:
    """Pre-train or evaluate as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="folder with train/CLASS/*.jpg and val/CLASS/*.jpg, as ImageNet has it")
    parser.add_argument("--model", required=True, help="{d,}segnext_{tiny,small,base,large}")
    parser.add_argument("--work-dir", help="folder for checkpoints and logs (default: work_dirs/pretrain/<model>)")
    parser.add_argument("--auto-resume", action="store_true", help="continue after the last complete epoch")
    parser.add_argument("--eval", metavar="CHECKPOINT", help="only evaluate these weights on val")
    parser.add_argument("--out", metavar="FILE", help="with --eval: write the accuracy to this JSON file")
    parser.add_argument("--gpu-id", type=int, default=0, help="GPU of a single process (default: 0)")
    add_pretrain_options(parser)
    args = parser.parse_args()
    settings = PretrainSettings.from_options(args)
    if not args.eval:
        pretrain(args.data, args.model, settings, args.work_dir, args.auto_resume, args.model_options, args.gpu_id)
        return
    scores = evaluate_classifier(args.data, args.model, args.eval, settings, args.model_options, args.gpu_id)
    if is_first_process():
        sys.stdout.write(f"{args.eval}: top-1 {scores['top1']:.2%}, top-5 {scores['top5']:.2%}\n")
        if args.out:
            save_metrics(args.out, scores, model=args.model, checkpoint=args.eval)


if __name__ == "__main__":
    run_tool(main, "stopped; re-run the command with --auto-resume to resume")
