#!/usr/bin/env python
"""Draw loss, mIoU and road IoU of trainings into one picture: ``python tools/plot_runs.py RUN [RUN ...]``."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmseg_ext.cli import distinct_names
from mmseg_ext.errors import ConfigError, DataError, lazy_import, run_tool
from mmseg_ext.files import complete_file

_PANELS = (("train", "loss", "loss"), ("val", "mIoU", "mIoU"), ("val", "IoU.road", "road IoU"))
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
_STYLES = ("-", "--", ":", "-.")
_SMOOTHED_SHARE = 0.05


def _entries(work_dir: str) -> list[dict[str, Any]]:
    """Return the log lines of a run, those of a resumed part in place of what it trained again."""
    paths = sorted(Path(work_dir).glob("*.log.json"))
    if not paths:
        raise DataError(f"{work_dir}: holds no *.log.json; give the work dir of a training")
    entries: list[dict[str, Any]] = []
    for path in paths:
        part = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # the last line of a run that is still writing
                continue
            if "mode" in entry:
                part.append(entry)
        if part:
            first = min(entry["iter"] for entry in part)
            entries = [entry for entry in entries if entry["iter"] < first] + part
    return entries


def read_curves(work_dir: str) -> dict[str, np.ndarray]:
    """Return the curves in the logs of a run, joined over its resumptions.

    Returns:
        By name (``loss``, ``mIoU``, ``IoU.road``): rows of iteration and value, (N, 2), in order.

    Raises:
        DataError: the folder holds no logs.
    """
    entries = _entries(work_dir)
    curves = {}
    for mode, name, _ in _PANELS:
        points = {entry["iter"]: entry[name] for entry in entries if entry["mode"] == mode and name in entry}
        curves[name] = np.array(sorted(points.items()), float).reshape(-1, 2)
    return curves


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Return the mean of each value and its neighbours, ``window`` in all, fewer at the ends; (N,) to (N,)."""
    if len(values) == 0:
        return values
    neighbours = np.ones(2 * (window // 2) + 1)
    return np.convolve(values, neighbours, "same") / np.convolve(np.ones(len(values)), neighbours, "same")


def plot_runs(work_dirs: Sequence[str], path: str) -> None:
    """Draw loss, mIoU and road IoU of the trainings in ``work_dirs`` into one picture (.png, .pdf or .svg).

    Raises:
        DataError: a folder holds no logs.
        ConfigError: the file cannot be written, or is of another kind.
        MissingExtraError: matplotlib is not installed.
    """
    figure_module = lazy_import("matplotlib.figure", "plots", "a picture of runs")
    curves = [read_curves(folder) for folder in work_dirs]
    figure = figure_module.Figure(figsize=(15, 4.6 + 0.22 * len(curves)), layout="constrained")
    axes = figure.subplots(1, len(_PANELS), sharex=True)
    for axis, (_, name, title) in zip(axes, _PANELS, strict=True):
        axis.set(title=title, xlabel="iteration")
        axis.grid(alpha=0.3)
        for number, curve in enumerate(curves):
            x, y = curve[name][np.isfinite(curve[name][:, 1])].T
            colour = _COLOURS[number % len(_COLOURS)]
            style = _STYLES[number // len(_COLOURS) % len(_STYLES)]
            if name == "loss":
                axis.plot(x, y, color=colour, alpha=0.2, linewidth=0.8)
                axis.plot(x, smoothed(y, round(_SMOOTHED_SHARE * len(y))), style, color=colour)
            else:
                axis.plot(x, 100 * y, style, color=colour, marker=".")
        if name != "loss":
            axis.set_ylabel("percent")
    axes[0].set_ylim(bottom=0)
    lines = axes[1].get_lines()
    labels = [_label(name, curve) for name, curve in zip(distinct_names(work_dirs), curves, strict=True)]
    figure.legend(lines, labels, loc="outside lower left", frameon=False, fontsize=9)
    try:
        with complete_file(path) as partial:
            figure.savefig(partial, dpi=120, format=Path(path).suffix[1:])
    except ValueError as error:
        raise ConfigError(f"{path}: cannot be written ({error}); name a .png, .pdf or .svg file") from None


def _label(name: str, curves: dict[str, np.ndarray]) -> str:
    """Return a run's name with its best scores."""
    words = []
    for _, key, title in _PANELS[1:]:
        if len(curves[key]) and not np.isnan(curves[key][:, 1]).all():
            iteration, value = curves[key][np.nanargmax(curves[key][:, 1])]
            words.append(f"best {title} {100 * value:.1f} at {iteration:.0f}")
    return f"{name}: {', '.join(words)}" if words else f"{name}: not evaluated"


def main() -> None:
    """Draw as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="work dir of a training, also of one still running")
    parser.add_argument("--out", default="runs.png", help="picture, .png, .pdf or .svg (default: runs.png)")
    args = parser.parse_args()
    plot_runs(args.runs, args.out)
    sys.stdout.write(f"{args.out}: {len(args.runs)} run(s)\n")


if __name__ == "__main__":
    run_tool(main)
