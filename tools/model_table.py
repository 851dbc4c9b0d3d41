#!/usr/bin/env python
"""Measure every config and write the model tables: ``python tools/model_table.py``.

Counts parameters and multiply-accumulates of every leaf below myconfigs/ at 3x512x512, compares them with the published
figures (docs/published_results.json) and writes the tables of README.md and docs/model_zoo.md. Exit code 1: a table was
stale (--check), or a figure differs from the published one without a note there that says why.
"""

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

from mmseg_ext.engine import leaf_configs, load_config, measure_complexity
from mmseg_ext.errors import run_tool
from mmseg_ext.report import model_table, update_blocks

ROOT = Path(__file__).resolve().parents[1]
SIZE_PX = 512


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when a table is stale")
    parser.add_argument("--json", action="store_true", help="print what was measured, and write nothing")
    return parser.parse_args()


def measure_leaves() -> dict[str, dict]:
    """Return the complexity of every leaf by its path; leaves of one network are measured once."""
    leaves = {path: load_config(str(ROOT / path)) for path in leaf_configs()}
    measured: dict[str, dict] = {}
    by_network: dict[str, dict] = {}
    for path, cfg in tqdm(leaves.items(), desc="measuring", unit="config", disable=None, leave=False):
        backbone = {key: value for key, value in cfg.model.backbone.items() if key != "init_cfg"}
        head = {key: value for key, value in cfg.model.decode_head.items() if key != "loss_decode"}
        network = json.dumps([backbone, head], sort_keys=True)
        if network not in by_network:
            cost = measure_complexity(cfg, SIZE_PX, SIZE_PX)
            by_network[network] = dict(
                params_m=round(cost.params / 1e6, 4),
                params_with_imagenet_head_m=round((cost.params + cost.imagenet_head_params) / 1e6, 4),
                mmcv_g=round(cost.mmcv_macs / 1e9, 4),
                torchprofile_g=round(cost.torchprofile_macs / 1e9, 4),
                counter_of_the_paper=cost.paper_counter,
            )
        measured[path] = by_network[network]
    return measured


def tables(published: dict, measured: dict[str, dict]) -> dict[str, dict[str, str]]:
    """Return the generated tables by file and name."""
    in_paper = {row["config"].format(dataset="OPM") for row in published["methods"]}
    in_paper |= {row["config"] for row in published["ablation"]}
    large = [path for path in measured if ".large." in path and ".OPM." in path and ".scratch." not in path]
    others = [path for path in measured if path not in in_paper and path not in large]
    return {
        "README.md": {"model table": model_table.results_table(published, measured)},
        "docs/model_zoo.md": {
            "complexity": model_table.complexity_table(published, measured),
            "ablation": model_table.ablation_table(published, measured),
            "large": model_table.leaf_table(measured, large),
            "others": model_table.leaf_table(measured, others),
        },
    }


def published_figures(published: dict, path: str) -> dict | None:
    """Return what the paper says of the network of the config at ``path``, or None."""
    plain = path.replace(".scratch.py", ".py").replace("/dsegnext.tiny.1024", "/Dsegnext.tiny.1024")
    for row in published["methods"]:
        if plain in (row["config"].format(dataset=dataset) for dataset in ("OPM", "DP")):
            return {key: row[key] for key in ("method", "params_m", "flops_g", "counter")}
    for row in published["ablation"]:
        if plain == row["config"]:
            return dict(method=row["variant"], params_m=row["params_m"], flops_g=row["flops_g"], counter="mmcv")
    return None


def main() -> None:
    """Measure, then write, check or print."""
    args = parse_args()
    published = json.loads((ROOT / "docs" / "published_results.json").read_text(encoding="utf-8"))
    measured = measure_leaves()
    failures = model_table.unexplained(published, measured)
    if args.json:
        rows = {path: {**cost, "published": published_figures(published, path)} for path, cost in measured.items()}
        json.dump(dict(input=[3, SIZE_PX, SIZE_PX], configs=rows), sys.stdout, indent=1)
        sys.stdout.write("\n")
    for path, blocks in tables(published, measured).items():
        fresh = update_blocks(str(ROOT / path), blocks, check=args.check or args.json)
        if args.check and not fresh:
            failures.append(f"{path} is stale; run python tools/model_table.py")
        elif not (args.check or args.json):
            sys.stdout.write(f"{path}: {'up to date' if fresh else 'written'}\n")
    for failure in failures:
        sys.stderr.write(f"{failure}\n")
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    run_tool(main)
