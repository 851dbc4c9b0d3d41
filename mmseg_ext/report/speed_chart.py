"""How fast networks are, as bars."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from ..errors import ConfigError, lazy_import

_BLUE, _GREY = "#0072b2", "#767676"


class Bar(TypedDict):
    """One bar.

    Attributes:
        name: what ran.
        megapixels_per_s: its length; None where it failed.
        note: a few words beside it.
    """

    name: str
    megapixels_per_s: float | None
    note: str


def speed_figure(panels: Mapping[str, Sequence[Bar]]) -> Any:
    """Return matplotlib's figure of horizontal bars, a panel below the other.

    Args:
        panels: bars from top to bottom, by the panel's title.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure_module = lazy_import("matplotlib.figure", "plots", "a chart of speeds")
    rows = [len(bars) for bars in panels.values()]
    height = 0.3 * sum(rows) + 0.9 * len(rows)
    figure = figure_module.Figure(figsize=(9, height), layout="constrained")
    axes = figure.subplots(len(rows), 1, squeeze=False, height_ratios=[count + 1 for count in rows])[:, 0]
    for axis, (title, bars) in zip(axes, panels.items(), strict=True):
        lengths = [bar["megapixels_per_s"] or 0.0 for bar in bars]
        drawn = axis.barh(range(len(bars)), lengths, color=[_GREY, *[_BLUE] * (len(bars) - 1)])
        axis.bar_label(drawn, [bar["note"] for bar in bars], padding=4, fontsize=9)
        axis.set_yticks(range(len(bars)), [bar["name"] for bar in bars], parse_math=False)
        axis.set(xlabel="megapixels/s", ylim=(len(bars) - 0.4, -0.6))
        axis.set_xlim(0, 1.25 * max(lengths) or 1)
        axis.set_title(title, fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    return figure


def save_speed_chart(panels: Mapping[str, Sequence[Bar]], path: str) -> None:
    """Draw `speed_figure` into a file.

    Args:
        panels: bars from top to bottom, by the panel's title.
        path: file to write: .png, .pdf or .svg.

    Raises:
        ConfigError: the file cannot be written, or no such kind of picture is known.
        MissingExtraError: matplotlib is not installed.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    try:
        speed_figure(panels).savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be written ({error}); name a .png, .pdf or .svg file") from None
