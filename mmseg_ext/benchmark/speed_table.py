"""The figures of a benchmark for people: Markdown and the bars of a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..report import markdown_table
from ..report.speed_chart import Bar
from .machine import machine_line


def speed_markdown(facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the machine, and a table for every size and batch.

    Args:
        facts: what `machine_facts` returned.
        rows: what `figures` returned.
    """
    energy = any(row["joules"] is not None for row in rows)
    parts = [machine_line(facts), _explanation(facts, energy)]
    for title, group in _groups(rows).items():
        header = ["what", "ran", "median ms", "p90 ms", "images/s", "megapixels/s", "times as fast", "peak MiB"]
        table = markdown_table(header + ["J/image"] * energy, [_cells(row, energy) for row in group])
        parts += [f"**{title}**", table]
    return "\n\n".join(parts)


def speed_bars(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Bar]]:
    """Return a panel of bars for every size and batch of what `figures` returned."""
    return {
        title: [Bar(name=row["contender"], megapixels_per_s=row["megapixels_per_s"], note=_note(row)) for row in group]
        for title, group in _groups(rows).items()
    }


def _groups(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(f"{row['batch']} x {row['size_px']} x {row['size_px']} px", []).append(row)
    return groups


def _explanation(facts: Mapping[str, Any], energy: bool) -> str:
    memory = "what torch allocated on the GPU" if facts["gpu"] else "what the process grew by"
    used = "the whole GPU" if facts["gpu"] else "the whole processor"
    return (
        "Every line is a process of its own; those of one table took turns. Median and 90th percentile of all calls; "
        "times as fast: as the first line, median of the rounds. Peak memory: "
        f"{memory}. Energy: {f'of {used}, its idle share included' if energy else 'this machine does not tell'}."
    )


def _cells(row: Mapping[str, Any], energy: bool) -> list[str]:
    ran = f"{row['backend']} {row['precision']}" if row["backend"] else ""
    if row["latency_s"] is None:
        return [row["contender"], ran, row["failed"] or "not measured", *[""] * (5 + energy)]
    cells = [
        f"{1000 * row['latency_s']:.1f}",
        f"{1000 * row['latency_p90_s']:.1f}",
        f"{row['images_per_s']:.3g}",
        f"{row['megapixels_per_s']:.3g}",
        "" if row["speedup"] is None else f"{row['speedup']:.2f}",
        "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:,.0f}",
    ]
    if energy:
        cells.append("" if row["joules"] is None else f"{row['joules']:.2f}")
    return [row["contender"], ran, *cells]


def _note(row: Mapping[str, Any]) -> str:
    if row["latency_s"] is None:
        return "failed" if row["failed"] else "not measured"
    times = "" if row["speedup"] is None else f" ({row['speedup']:.2f} x)"
    return f"{row['megapixels_per_s']:.3g}{times}"
