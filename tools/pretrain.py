#!/usr/bin/env python
"""Pre-train an encoder: on ImageNet, or by a teacher's features on any images.

python tools/pretrain.py DATA --model dsegnext_tiny [options]
python tools/pretrain.py --teacher tf_efficientnet_lite0 CONFIG FOLDER [FOLDER ...] [options]
"""

import argparse
import sys

from mmseg_ext.errors import run_tool
from mmseg_ext.options import add_config_options
from mmseg_ext.pretrain.settings import DistilSettings, PretrainSettings, add_model_options
from mmseg_ext.report.tables import save_metrics


def _parser(default_work_dir: str) -> argparse.ArgumentParser:
    """Return a parser with the options of both kinds of pre-training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", help=f"folder for checkpoints and logs (default: {default_work_dir})")
    parser.add_argument("--auto-resume", action="store_true", help="continue from the last checkpoint")
    parser.add_argument("--gpu-id", type=int, default=0, help="GPU of a single process (default: 0)")
    return parser


def train_classifier() -> None:
    """Pre-train or evaluate a classifier as the command line says."""
    parser = _parser("work_dirs/pretrain/<model>")
    parser.epilog = "with --teacher NAME: other options, see --teacher NAME --help"
    parser.add_argument("data", help="folder with train/CLASS/*.jpg and val/CLASS/*.jpg, as ImageNet has it")
    parser.add_argument("--model", required=True, help="{d,}segnext_{tiny,small,base,large}")
    parser.add_argument("--eval", metavar="CHECKPOINT", help="only evaluate these weights on val")
    parser.add_argument("--out", metavar="FILE", help="with --eval: write the accuracy to this JSON file")
    add_model_options(parser)
    PretrainSettings.add_options(parser)
    args = parser.parse_args()

    from mmseg_ext.engine import is_first_process
    from mmseg_ext.pretrain.training import evaluate_classifier, pretrain

    settings = PretrainSettings.from_options(args)
    if not args.eval:
        pretrain(args.data, args.model, settings, args.work_dir, args.auto_resume, args.model_options, args.gpu_id)
        return
    scores = evaluate_classifier(args.data, args.model, args.eval, settings, args.model_options, args.gpu_id)
    if is_first_process():
        sys.stdout.write(f"{args.eval}: top-1 {scores['top1']:.2%}, top-5 {scores['top5']:.2%}\n")
        if args.out:
            save_metrics(args.out, scores, model=args.model, checkpoint=args.eval)


def learn_from_teacher() -> None:
    """Teach an encoder as the command line says."""
    parser = _parser("work_dirs/distil/<config>")
    parser.add_argument("--teacher", required=True, help="timm's name of the network to learn from")
    parser.add_argument("config", help="a config, whose encoder learns, or {d,}segnext_{tiny,small,base,large}")
    parser.add_argument("images", nargs="+", help="folders of unlabelled images, with all below them, or images")
    text = "of the teacher: a file, package://PACKAGE/FILE or timm://NAME (default: those that we know, or timm's)"
    parser.add_argument("--teacher-weights", metavar="WEIGHTS", help=text)
    text = "normalise the teacher's images as timm says of it, not with ImageNet's mean and standard deviation"
    parser.add_argument("--teacher-norm", action="store_true", help=text)
    parser.add_argument("--from", dest="start", metavar="FILE", help="encoder weights that the student begins with")
    text = "a trained network, whose road probabilities are labels for the student's decode head"
    parser.add_argument("--soft-labels", metavar="CHECKPOINT", help=text)
    add_config_options(parser)
    DistilSettings.add_options(parser)
    args = parser.parse_args()

    from mmseg_ext.pretrain.distillation import distil

    distil(
        args.config,
        args.images,
        args.teacher,
        DistilSettings.from_options(args),
        work_dir=args.work_dir,
        auto_resume=args.auto_resume,
        teacher_weights=args.teacher_weights,
        own_norm=args.teacher_norm,
        start=args.start,
        soft_labels=args.soft_labels,
        options=args.cfg_options,
        gpu_id=args.gpu_id,
    )


def main() -> None:
    """Pre-train the way that the command line asks for."""
    taught = any(word == "--teacher" or word.startswith("--teacher=") for word in sys.argv[1:])
    (learn_from_teacher if taught else train_classifier)()


if __name__ == "__main__":
    run_tool(main, "stopped; re-run the command with --auto-resume to resume")
