"""The model tables of README and model zoo: what the paper publishes beside what is measured here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .tables import markdown_table

PARAMS_TOLERANCE_M = 0.01
FLOPS_TOLERANCE_G = 0.1
_DATASETS = {"OPM": "opm", "DP": "deepglobe"}


def deviations(published: Mapping[str, Any], cost: Mapping[str, Any]) -> list[str]:
    """Return in words where the measured ``cost`` of a network leaves the published figures' tolerance.

    Args:
        published: a row with ``params_m``, ``flops_g`` and optionally ``counter`` (of the paper's FLOPs).
        cost: the measured row of its config, see `tools/model_table.py`.
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


def _links(config: str, measured: Mapping[str, Any], encoder: str, prefix: str) -> str:
    """Return links to the configs of a row, one for each data set."""
    links = []
    for name in _DATASETS:
        path = config.format(dataset=name)
        if encoder == "none":
            path = path.replace(".py", ".scratch.py").replace("/Dsegnext.", "/dsegnext.")
        if path in measured:
            links.append(f"[{name}]({prefix}{path})")
    return " ".join(links)


def _marks(published: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of the note of each method whose published FLOPs are not reproducible."""
    noted = [row["method"] for row in published["methods"] if "flops_note" in row]
    return {method: number for number, method in enumerate(noted, start=1)}


def notes(published: Mapping[str, Any]) -> str:
    """Return the notes to the marked figures as a Markdown list."""
    marks = _marks(published)
    rows = [row for row in published["methods"] if row["method"] in marks]
    return "\n".join(f"- <sup>{marks[row['method']]}</sup> {row['method']}: {row['flops_note']}." for row in rows)


def results_table(published: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """Return published mIoU and measured complexity, by the paper's counter, with links to the configs: the README."""
    marks = _marks(published)
    rows = []
    for row in published["methods"]:
        mark = f" <sup>{marks[row['method']]}</sup>" if row["method"] in marks else ""
        cost = measured[row["config"].format(dataset="OPM")]
        for result in row["results"]:
            rows.append(
                [
                    row["method"],
                    result["encoder"],
                    _number(cost["params_with_imagenet_head_m"]),
                    _number(cost[f"{row['counter']}_g"]) + mark,
                    _number(result["opm"]),
                    _number(result["deepglobe"]),
                    _links(row["config"], measured, result["encoder"], ""),
                ]
            )
    header = ["method", "encoder weights", "Params (M)", "FLOPs (G)", "OPM mIoU", "DeepGlobe mIoU", "config"]
    return f"{markdown_table(header, rows)}\n\n{notes(published)}"


def _cost_cells(row: Mapping[str, Any], cost: Mapping[str, Any], mark: str = "") -> list[str]:
    return [
        _number(row["params_m"]),
        _number(cost["params_with_imagenet_head_m"]),
        _number(row["flops_g"]) + mark,
        *(f"**{cost[f'{c}_g']:.2f}**" if c == row["counter"] else f"{cost[f'{c}_g']:.2f}" for c in _COUNTERS),
    ]


_COUNTERS = ("mmcv", "torchprofile")
_COST_HEADER = ["Params, published (M)", "measured", "FLOPs, published (G)", "mmcv", "torchprofile"]


def complexity_table(published: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """Return published and measured complexity of every method; the paper's counter is bold."""
    marks = _marks(published)
    rows = []
    for row in published["methods"]:
        mark = f" <sup>{marks[row['method']]}</sup>" if row["method"] in marks else ""
        path = row["config"].format(dataset="OPM")
        rows.append([f"[{row['method']}](../{path})", *_cost_cells(row, measured[path], mark)])
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
    rows = []
    for path in paths:
        cost = measured[path]
        rows.append(
            [
                f"[{os.path.basename(path)}](../{path})",
                _number(cost["params_m"]),
                *(_number(cost[f"{counter}_g"]) for counter in _COUNTERS),
            ]
        )
    return markdown_table(["config", "Params (M)", "FLOPs mmcv (G)", "torchprofile (G)"], rows)
