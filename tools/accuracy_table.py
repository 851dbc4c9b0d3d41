#!/usr/bin/env python
"""Train and evaluate methods from scratch with one budget: ``python tools/accuracy_table.py [CONFIG ...]``.

Every run that is not yet in docs/accuracy_results.json is trained (an interrupted one resumes), evaluated on the test
split and added there; then the tables of docs/benchmarks.md are written. Re-run the command to resume after a stop, or
with other configs or seeds to extend the table. With another --results the table is printed.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model_table import PUBLISHED, read_results
from repeat import train_and_score

from mmseg_ext.errors import run_tool
from mmseg_ext.files import write_text
from mmseg_ext.report.tables import markdown_table, update_blocks

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "accuracy_results.json"
# what a recipe changes in the configs, which hold the one for a CPU
RECIPES = {
    "cpu": [],
    "gpu": [
        "data.samples_per_gpu=8",
        "data.train.step_args.RandomCrop.crop_size=(400,400)",
        "data.train.step_args.Pad.size=(400,400)",
        "runner.max_iters=4000",
        "lr_config.warmup_iters=400",
        "checkpoint_config.interval=400",
    ],
}


def measure(config: str, recipe: str, seed: int, work_root: str) -> dict:
    """Train and evaluate one config with one seed; return its row."""
    import torch

    suffix = "" if recipe == "cpu" else f".{recipe}"
    work_dir = os.path.join(work_root, f"{Path(config).stem}{suffix}.seed{seed}")
    metrics = train_and_score(config, seed, work_dir, RECIPES[recipe], validate=False)
    state = torch.load(os.path.join(work_dir, "latest.pth"), weights_only=True, mmap=True)["meta"]
    return dict(
        config=config,
        recipe=recipe,
        seed=seed,
        iterations=state["iter"],
        road_iou=round(metrics["IoU.road"], 6),
        miou=round(metrics["mIoU"], 6),
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        torch=str(torch.__version__),
    )


def method_name(config: str, published: Mapping[str, Any]) -> str:
    """Return the paper's name of the method of ``config``, or the config's own where the paper has none."""
    stem = _stem(config)
    for row in published["methods"]:
        if _stem(row["config"]) == stem:
            return row["method"]
    return stem


def _stem(config: str) -> str:
    """Return family and size, the part of a config's name before the crop size, in small letters."""
    parts = os.path.basename(config).casefold().removesuffix(".py").split(".")
    sizes = [i for i, part in enumerate(parts) if part.partition("x")[0].isdigit()]
    return ".".join(parts[: sizes[0]] if sizes else parts)


def _percent(values: Sequence[float]) -> str:
    mean = f"{100 * statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * statistics.stdev(values):.1f}"


def accuracy_table(results: Sequence[Mapping[str, Any]], published: Mapping[str, Any]) -> str:
    """Return a row per config of ``results``, the best mIoU first: means and deviations over seeds.

    Args:
        results: rows with ``config``, ``seed``, ``iterations``, ``road_iou`` and ``miou`` (0 to 1).
        published: the paper's tables, for the methods' names.
    """
    by_config: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        by_config.setdefault(result["config"], []).append(result)
    best_first = sorted(by_config.items(), key=lambda item: -statistics.mean(run["miou"] for run in item[1]))
    rows = [
        [
            f"[{method_name(config, published)}](../{config})",
            f"{runs[0]['iterations']:,}",
            ", ".join(str(seed) for seed in sorted(run["seed"] for run in runs)),
            _percent([run["road_iou"] for run in runs]),
            _percent([run["miou"] for run in runs]),
        ]
        for config, runs in best_first
    ]
    return markdown_table(["method", "iterations", "seed", "road IoU", "mIoU"], rows)


def main() -> None:
    """Measure what is missing, then write or check the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", help="default: every config on EPFL")
    text = "gpu: crops of 400 px, batch 8, 4,000 iterations (default: cpu)"
    parser.add_argument("--recipe", choices=RECIPES, default="cpu", help=text)
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 0 on a cpu, 0 1 2 on a gpu")
    parser.add_argument("--work-root", default="work_dirs/epfl", help="folder of the runs (default: work_dirs/epfl)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON file of the rows (default: docs/)")
    parser.add_argument("--check", action="store_true", help="train nothing; exit code 1 when the tables are stale")
    args = parser.parse_args()

    from mmseg_ext.engine import leaf_configs, load_config

    published = read_results(PUBLISHED)
    rows = read_results(args.results) if args.results.exists() else []
    configs = args.configs or [leaf for leaf in leaf_configs() if ".EPFL." in leaf]
    for config in [] if args.check else [load_config(config).filename for config in configs]:
        for seed in args.seeds or ([0] if args.recipe == "cpu" else [0, 1, 2]):
            if any((row["config"], row["recipe"], row["seed"]) == (config, args.recipe, seed) for row in rows):
                continue
            rows.append(measure(config, args.recipe, seed, args.work_root))
            rows.sort(key=lambda row: (row["recipe"], row["config"], row["seed"]))
            write_text(str(args.results), json.dumps(rows, indent=1) + "\n")
    if args.results != RESULTS:
        own = [row for row in rows if row["recipe"] == args.recipe]
        sys.stdout.write(f"{accuracy_table(own, published)}\n")
        return
    blocks = {}
    for recipe in RECIPES:
        own = [row for row in rows if row["recipe"] == recipe]
        blocks[f"accuracy {recipe}"] = accuracy_table(own, published) if own else "Not measured yet."
    fresh = update_blocks(str(ROOT / "docs" / "benchmarks.md"), blocks, check=args.check)
    if args.check and not fresh:
        sys.stderr.write("docs/benchmarks.md is stale; run python tools/accuracy_table.py\n")
        sys.exit(1)


if __name__ == "__main__":
    run_tool(main, "stopped; re-run the command to resume")
