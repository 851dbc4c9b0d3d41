"""The table of trained methods in docs/benchmarks.md: mean and deviation over seeds."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .tables import markdown_table


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
    """Return a row per config of ``results``, the best mIoU first.

    Args:
        results: rows with ``config``, ``seed``, ``iterations``, ``road_iou`` and ``miou`` (0 to 1).
        published: the paper's tables, for the methods' names.
    """
    by_config: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        by_config.setdefault(result["config"], []).append(result)
    rows = []
    for config, runs in by_config.items():
        mean = statistics.mean(run["miou"] for run in runs)
        cells = [
            f"[{method_name(config, published)}](../{config})",
            f"{runs[0]['iterations']:,}",
            ", ".join(str(seed) for seed in sorted(run["seed"] for run in runs)),
            _percent([run["road_iou"] for run in runs]),
            _percent([run["miou"] for run in runs]),
        ]
        rows.append((mean, cells))
    rows.sort(key=lambda row: -row[0])
    return markdown_table(["method", "iterations", "seed", "road IoU", "mIoU"], [cells for _, cells in rows])
