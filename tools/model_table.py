#!/usr/bin/env python
"""Measure every config and write the model tables: ``python tools/model_table.py``.

Counts parameters and multiply-accumulates of every leaf below myconfigs/ at 3x512x512, compares them with the published
figures (docs/published_results.json) and writes the tables of README.md and docs/model_zoo.md. Exit code 1: a table was
stale (--check), or a figure differs from the published one without a note there that says why.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmseg_ext.errors import ConfigError, run_tool
from mmseg_ext.report.tables import markdown_table, update_blocks

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "docs" / "published_results.json"
SIZE_PX = 512
PARAMS_TOLERANCE_M = 0.01
FLOPS_TOLERANCE_G = 0.1
_DATASETS = ("OPM", "DP")
_COUNTERS = ("mmcv", "torchprofile")
_COST_HEADER = ["Params, published (M)", "measured", "FLOPs, published (G)", "mmcv", "torchprofile"]


def read_results(path: Path) -> Any:
    """Return what a JSON file of results says.

    Raises:
        ConfigError: it is missing, as those of docs/ are in an installed package, or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read ({reason}); run the tool in a clone of the repository") from None


def measure_leaves() -> dict[str, dict]:
    """Return the complexity of every leaf by its path; leaves of one network are measured once."""
    from mmseg_ext.engine import leaf_configs, load_config, measure_complexity

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


def deviations(published: Mapping[str, Any], cost: Mapping[str, Any]) -> list[str]:
    """Return in words where the measured ``cost`` of a network leaves the published figures' tolerance.

    Args:
        published: a row with ``params_m``, ``flops_g`` and optionally ``counter`` (of the paper's FLOPs).
        cost: the row of its config that `measure_leaves` returned.
    """
    found = []
    params = cost["params_with_imagenet_head_m"]
    if abs(params - published["params_m"]) > PARAMS_TOLERANCE_M:
        found.append(f"Params {params:.3f} M, published {published['params_m']:.2f} M")
    flops = cost[f"{published.get('counter', 'mmcv')}_g"]
    if abs(flops - published["flops_g"]) > FLOPS_TOLERANCE_G:
        found.append(f"FLOPs {flops:.3f} G, published {published['flops_g']:.2f} G")
    return found


def unexplained(published: Mapping[str, Any], measured: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return every deviation from the published tables that no note there explains."""
    found = []
    for row in published["methods"]:
        words = deviations(row, measured[row["config"].format(dataset="OPM")])
        found += [f"{row['method']}: {word}" for word in words if not ("flops_note" in row and word[:5] == "FLOPs")]
    for row in published["ablation"]:
        found += [f"{row['variant']}: {word}" for word in deviations(row, measured[row["config"]])]
    return found


def _number(value: float | None) -> str:
    return "--" if value is None else f"{value:.2f}"


def _links(config: str, measured: Mapping[str, Any], encoder: str, up: str) -> str:
    """Return links to the configs of a row, one for each data set, from a document that is ``up`` from the root."""
    links = []
    for name in _DATASETS:
        path = config.format(dataset=name)
        if encoder == "none":
            path = path.replace(".py", ".scratch.py").replace("/Dsegnext.", "/dsegnext.")
        if path in measured:
            links.append(f"[{name}]({up}{path})")
    return " ".join(links)


def _marks(published: Mapping[str, Any]) -> dict[str, str]:
    """Return the mark of every method, empty where its published FLOPs need no note."""
    marks = {row["method"]: "" for row in published["methods"]}
    noted = [row["method"] for row in published["methods"] if "flops_note" in row]
    return marks | {method: f" <sup>{number}</sup>" for number, method in enumerate(noted, start=1)}


def notes(published: Mapping[str, Any]) -> str:
    """Return the notes to the marked figures as a Markdown list."""
    marks = _marks(published)
    rows = [row for row in published["methods"] if "flops_note" in row]
    return "\n".join(f"-{marks[row['method']]} {row['method']}: {row['flops_note']}." for row in rows)


def results_table(published: Mapping[str, Any], measured: Mapping[str, Any], best: int | None = None) -> str:
    """Return published mIoU and measured complexity, by the paper's counter, with links to the configs.

    Args:
        published: docs/published_results.json.
        measured: what `measure_leaves` returned.
        best: pretrained D-SegNeXt beside so many of the other methods, those with the best mIoU on OPM, for the README;
            None: every row, for docs/model_zoo.md.
    """
    marks = _marks(published) if best is None else {row["method"]: "" for row in published["methods"]}
    chosen = [(row, result) for row in published["methods"] for result in row["results"]]
    if best is not None:
        ours = [pair for pair in chosen if "D-SegNeXt" in pair[0]["method"] and pair[1]["encoder"] != "none"]
        others = sorted((pair for pair in chosen if "D-SegNeXt" not in pair[0]["method"]), key=lambda p: -p[1]["opm"])
        chosen = sorted([*ours, *others[:best]], key=lambda pair: pair[1]["opm"])
    rows = []
    for row, result in chosen:
        cost = measured[row["config"].format(dataset="OPM")]
        rows.append(
            [
                row["method"],
                *([result["encoder"]] if best is None else []),
                _number(cost["params_with_imagenet_head_m"]),
                _number(cost[f"{row['counter']}_g"]) + marks[row["method"]],
                _number(result["opm"]),
                _number(result["deepglobe"]),
                _links(row["config"], measured, result["encoder"], "" if best else "../"),
            ]
        )
    encoder = ["encoder weights"] if best is None else []
    header = ["method", *encoder, "Params (M)", "FLOPs (G)", "OPM, paper's mIoU", "DeepGlobe, paper's mIoU", "config"]
    table = markdown_table(header, rows)
    return table if best else f"{table}\n\n{notes(published)}"


def _cost_cells(row: Mapping[str, Any], cost: Mapping[str, Any], mark: str = "") -> list[str]:
    return [
        _number(row["params_m"]),
        _number(cost["params_with_imagenet_head_m"]),
        _number(row["flops_g"]) + mark,
        *(f"**{cost[f'{c}_g']:.2f}**" if c == row["counter"] else f"{cost[f'{c}_g']:.2f}" for c in _COUNTERS),
    ]


def complexity_table(published: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """Return published and measured complexity of every method; the paper's counter is bold."""
    marks = _marks(published)
    rows = []
    for row in published["methods"]:
        path = row["config"].format(dataset="OPM")
        rows.append([f"[{row['method']}](../{path})", *_cost_cells(row, measured[path], marks[row["method"]])])
    return f"{markdown_table(['method', *_COST_HEADER], rows)}\n\n{notes(published)}"


def ablation_table(published: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """Return the paper's ablation of D-SegNeXt-B on OPM with published and measured complexity."""
    rows = [
        [
            f"[{row['variant']}](../{row['config']})",
            *_cost_cells({**row, "counter": "mmcv"}, measured[row["config"]]),
            _number(row["miou"]),
            _number(row["accuracy"]),
        ]
        for row in published["ablation"]
    ]
    return markdown_table(["D-SegNeXt-B", *_COST_HEADER, "OPM mIoU, published", "accuracy, published"], rows)


def leaf_table(measured: Mapping[str, Mapping[str, Any]], paths: Sequence[str]) -> str:
    """Return the measured complexity of the configs at ``paths``."""
    figures = ("params_m", *(f"{counter}_g" for counter in _COUNTERS))
    rows = [
        [f"[{os.path.basename(path)}](../{path})", *(_number(measured[path][name]) for name in figures)]
        for path in paths
    ]
    return markdown_table(["config", "Params (M)", "FLOPs mmcv (G)", "torchprofile (G)"], rows)


def tables(published: dict, measured: dict[str, dict]) -> dict[str, dict[str, str]]:
    """Return the generated tables by file and name."""
    in_paper = {row["config"].format(dataset="OPM") for row in published["methods"]}
    in_paper |= {row["config"] for row in published["ablation"]}
    large = [path for path in measured if ".large." in path and ".OPM." in path and ".scratch." not in path]
    others = [path for path in measured if path not in in_paper and path not in large]
    return {
        "README.md": {"model table": results_table(published, measured, best=3)},
        "docs/model_zoo.md": {
            "results": results_table(published, measured),
            "complexity": complexity_table(published, measured),
            "ablation": ablation_table(published, measured),
            "large": leaf_table(measured, large),
            "others": leaf_table(measured, others),
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when a table is stale")
    parser.add_argument("--json", action="store_true", help="print what was measured, and write nothing")
    args = parser.parse_args()

    published = read_results(PUBLISHED)
    measured = measure_leaves()
    failures = unexplained(published, measured)
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
