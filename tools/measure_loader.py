#!/usr/bin/env python
"""Measure the loading of training images: ``python tools/measure_loader.py CONFIG`` or ``... --synthetic``.

Compares the config's pipeline with MMSegmentation's own, and with RandomAffineCrop, in the same run, turn by turn: in
one process, step by step, and with the workers of training. The loader must outrun training: --train measures that too.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

from mmseg_ext.engine import add_config_options, crop_size, load_config
from mmseg_ext.engine.loading_speed import compared_datasets, measure_loading, measure_workers, write_tiles
from mmseg_ext.engine.training_speed import measure_training
from mmseg_ext.errors import ConfigError, run_tool
from mmseg_ext.report import markdown_table

DEFAULT = Path(__file__).resolve().parents[1] / "myconfigs/dsegnext/tiny/Dsegnext.tiny.1024x1024.OPM.20k.py"


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", help="a leaf below myconfigs/ (default: the paper's 1024 px crops)")
    parser.add_argument(
        "--synthetic", action="store_true", help="generated tiles, as PNG and as JPEG, not the config's"
    )
    parser.add_argument("--tile-px", type=int, default=1024, help="size of the generated tiles (default: 1024)")
    parser.add_argument("--images", type=int, default=16, help="images a round (default: 16)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which medians are taken (default: 5)")
    parser.add_argument("--workers", type=int, help="processes that load; 0: leave that out (default: the config's)")
    parser.add_argument("--train", action="store_true", help="measure the training of the config's network as well")
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    add_config_options(parser)
    return parser.parse_args()


def measure(args: argparse.Namespace, root: str | None) -> dict:
    """Return all figures of one data set; ``root`` takes the place of the config's."""
    options = {**({"data.train.data_root": root} if root else {}), **(args.cfg_options or {})}
    cfg = load_config(args.config or str(DEFAULT), options)
    workers = cfg.data.workers_per_gpu if args.workers is None else args.workers
    datasets = compared_datasets(cfg)
    one = measure_loading(datasets, args.images, args.rounds)
    figures: dict = {name: dict(one_process=dataclasses.asdict(speed)) for name, speed in one.items()}
    if workers:
        batches = max(4 * workers, args.images // cfg.data.samples_per_gpu)
        for name, speed in measure_workers(datasets, cfg, workers, batches, args.rounds).items():
            figures[name]["workers"] = dict(count=workers, images_per_s=speed.images_per_s, ratio=speed.ratio)
    return figures


def show(title: str, figures: dict) -> str:
    """Return Markdown tables of what `measure` returned."""
    names = list(figures)
    header, rows = ["pipeline", "images/s, one process", "ratio"], []
    workers = figures[names[0]].get("workers")
    if workers:
        header += [f"images/s, {workers['count']} workers", "ratio"]
    for name in names:
        speeds = [figures[name]["one_process"], *([figures[name]["workers"]] if workers else [])]
        rows.append([name, *(word for s in speeds for word in (f"{s['images_per_s']:.1f}", f"{s['ratio']:.2f}"))])
    steps = list(dict.fromkeys(step for name in names for step in figures[name]["one_process"]["step_ms"]))
    times = []
    for step in steps:
        found = [figures[name]["one_process"]["step_ms"].get(step) for name in names]
        times.append([step, *("" if ms is None else f"{ms:.2f}" for ms in found)])
    return "\n\n".join([f"## {title}", markdown_table(header, rows), markdown_table(["ms per image", *names], times)])


def main() -> None:
    """Measure and print Markdown tables."""
    args = parse_args()
    if args.config is None and not args.synthetic:
        raise ConfigError("nothing to measure; give a config, or --synthetic for generated tiles")
    if min(args.images, args.rounds) < 1 or args.tile_px < 64 or (args.workers or 0) < 0:
        raise ConfigError("--images and --rounds take 1 or more, --tile-px 64 or more, --workers 0 or more")
    measured: dict = {}
    if args.synthetic:
        for kind, suffix in (("PNG", ".png"), ("JPEG", ".jpg")):
            with tempfile.TemporaryDirectory() as root:
                write_tiles(root, suffix, size_px=args.tile_px)
                measured[f"{kind} tiles, {args.tile_px} px"] = measure(args, root)
    else:
        measured[args.config] = measure(args, None)
    for title, figures in measured.items():
        sys.stdout.write(f"{show(title, figures)}\n\n")
    result = dict(loading=measured)
    if args.train:
        cfg = load_config(args.config or str(DEFAULT), args.cfg_options)
        speed = measure_training(cfg, crop_px=crop_size(cfg)[0], batch=cfg.data.samples_per_gpu)
        result["training_images_per_s"] = speed["fp32"].images_per_s
        sys.stdout.write(f"training on this device: {result['training_images_per_s']:.2f} images/s\n")
    if args.json:
        try:
            Path(args.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{args.json}: cannot be written ({error.strerror}); choose another --json") from None


if __name__ == "__main__":
    run_tool(main)
