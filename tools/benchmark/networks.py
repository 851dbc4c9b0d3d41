#!/usr/bin/env python
"""Speed and memory of methods on backends, beside each other: ``python tools/benchmark/networks.py CELL [CELL ...]``.

A cell is METHOD[@BACKEND[+PRECISION]]; ratios are to the first. Methods: dsegnext-t, segformer-b0, linknet,
... (--list), a config file, or a peer as its users run it, eager in float32: mmseg:segformer-b0, smp:unet-resnet34,
smp:linknet-resnet34, smp:segformer-mit_b0. Backends: auto, plain (the network as the papers write it), torch,
compile, onnxruntime, openvino, tensorrt. Example:

    python tools/benchmark/networks.py dsegnext-t@plain dsegnext-t@openvino+bf16 smp:unet-resnet34 --sizes 512 1024

--scaling measures one cell from 256 to 4096 px, as a whole and in tiles, and says whether time is linear in pixels.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import mmseg_ext  # noqa: F401  isort: skip  before what is slow to import, for an early Ctrl-C

import numpy as np
import torch
from timing import in_turns, machine_line, ratio
from cells import Cell, Record, Settings, measure
from methods import Contender, build_method, method_configs, parse_contender

from mmseg_ext.deploy.onnx import export_onnx
from mmseg_ext.deploy.openvino import compile_settings, openvino_core
from mmseg_ext.errors import ConfigError, lazy_import, require, run_tool
from mmseg_ext.files import complete_file, writing
from mmseg_ext.report.tables import markdown_table, update_blocks

DOCS = Path(__file__).resolve().parents[2] / "docs" / "speed.md"
SIZES, SCALING_SIZES = (512, 1024), (256, 512, 1024, 2048, 3072, 4096)
TILES = (640, 128)  # fit into every size of SCALING_SIZES from 1024 on
LINEAR_WITHIN = 0.15
_ANOTHER = "choose another --out"
Row = Mapping[str, Any]


def figures(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the figures of each of ``records``; where one failed or was never measured, they are None.

    ``speedup`` is the median, over the rounds that both have, of how many times as fast a pixel is mapped as in the
    first cell of the same size and batch; with tiles among the cells (--scaling), as in the smallest image that is
    mapped in tiles, for whole images in the whole one of that size.
    """
    smallest = min((record.cell.size_px for record in records if record.cell.tiles), default=None)

    def kind(cell: Cell) -> object:
        return (cell.size_px, cell.batch) if smallest is None else cell.tiles

    references: dict[object, Record] = {}
    for record in records:
        if smallest in (None, record.cell.size_px):
            references.setdefault(kind(record.cell), record)
    return [_figures(record, references.get(kind(record.cell))) for record in records]


def _figures(record: Record, reference: Record | None) -> dict[str, Any]:
    cell, ran = record.cell, dict(backend=record.backend, precision=record.precision, failed=record.failed)
    row: dict[str, Any] = dict(contender=str(cell.contender), size_px=cell.size_px, batch=cell.batch, tiles=cell.tiles)
    row |= dict(ran, computed=cell.computed, round_seconds=record.round_seconds)
    row |= dict.fromkeys(("latency_s", "latency_p90_s", "images_per_s", "megapixels_per_s", "speedup", "peak_bytes"))
    if record.failed or not record.turns:
        return row
    seconds = [second for turn, _ in record.turns for second in turn]
    row |= dict(latency_s=median(seconds), latency_p90_s=float(np.quantile(seconds, 0.9)))
    row |= dict(images_per_s=cell.images / median(seconds), megapixels_per_s=cell.megapixels / median(seconds))
    row["peak_bytes"] = max((peak for _, peak in record.turns if peak is not None), default=None)
    if reference is not None and not reference.failed:
        times = ratio(reference.round_seconds, record.round_seconds)
        row["speedup"] = times * cell.megapixels / reference.cell.megapixels
    return row


def text(value: float | None, form: str) -> str:
    """Return ``value`` as text, nothing for None."""
    return "" if value is None else f"{value:{form}}"


def mib(size_bytes: float | None) -> str:
    """Return bytes as whole MiB, nothing for None."""
    return "" if size_bytes is None else f"{size_bytes / 2**20:,.0f}"


def by_size(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return ``rows`` of each size and batch, by a title."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(f"{row['batch']} x {row['size_px']} x {row['size_px']} px", []).append(row)
    return groups


def speed_markdown(machine: str, rows: Sequence[Row]) -> str:
    """Return the ``machine``, and a table of what `figures` returned for every size and batch."""
    memory = "what torch allocated on the GPU" if torch.cuda.is_available() else "what the process grew by"
    parts = [
        machine,
        "Every line is a process of its own; those of one table took turns. Median and 90th percentile of all calls; "
        f"times as fast: as the first line, median of the rounds. Peak memory: {memory}.",
    ]
    header = ["what", "ran", "median ms", "p90 ms", "images/s", "megapixels/s", "times as fast", "peak MiB"]
    for title, group in by_size(rows).items():
        lines = []
        for row in group:
            values = [row["failed"] or "not measured", *[""] * 5]
            if row["latency_s"] is not None:
                times = [f"{1000 * row[name]:.1f}" for name in ("latency_s", "latency_p90_s")]
                rates = [f"{row[name]:.3g}" for name in ("images_per_s", "megapixels_per_s")]
                values = [*times, *rates, text(row["speedup"], ".2f"), mib(row["peak_bytes"])]
            lines.append([row["contender"], f"{row['backend']} {row['precision']}" if row["backend"] else "", *values])
        parts += [f"**{title}**", markdown_table(header, lines)]
    return "\n\n".join(parts)


def save_chart(rows: Sequence[Row], path: Path) -> None:
    """Draw the megapixels per second of what `figures` returned as bars, a panel for every size and batch."""
    panels = by_size(rows)
    height = sum(0.3 * len(group) + 0.9 for group in panels.values())
    matplotlib = lazy_import("matplotlib.figure", "plots", "a chart of speeds")
    figure = matplotlib.Figure(figsize=(9, height), layout="constrained")
    ratios = [len(group) + 1 for group in panels.values()]
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=ratios)[:, 0]
    for axis, (title, group) in zip(axes, panels.items(), strict=True):
        lengths = [row["megapixels_per_s"] or 0.0 for row in group]
        notes = [
            ("failed" if row["failed"] else "not measured")
            if row["latency_s"] is None
            else f"{row['megapixels_per_s']:.3g}" + ("" if row["speedup"] is None else f" ({row['speedup']:.2f} x)")
            for row in group
        ]
        bars = axis.barh(range(len(group)), lengths, color=["#767676", *["#0072b2"] * (len(group) - 1)])
        axis.bar_label(bars, notes, padding=4, fontsize=9)
        axis.set_yticks(range(len(group)), [row["contender"] for row in group], parse_math=False)
        axis.set(xlabel="megapixels/s", ylim=(len(group) - 0.4, -0.6), xlim=(0, 1.25 * max(lengths) or 1))
        axis.set_title(title, fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    with complete_file(str(path), _ANOTHER) as partial:
        figure.savefig(partial, dpi=120)


def scaling_cells(contender: Contender, sizes: Sequence[int], tiles: tuple[int, int], batch: int = 1) -> list[Cell]:
    """Return every size as a whole, and in tiles (side and overlap in pixels) from the tile's size up."""
    whole = [Cell(contender, size) for size in sizes]
    return [*whole, *(Cell(contender, size, batch, tiles) for size in sizes if size >= tiles[0])]


def scaling_markdown(machine: str, contender: Contender, rows: Sequence[Row]) -> str:
    """Return the ``machine``, a table of whole images and tiles from `figures`, and whether time is linear in pixels.

    Relative is the time of a megapixel, 1 in the smallest image that is mapped in tiles.
    """
    ways: dict[str, dict[int, Row]] = {"tiles": {}, "whole": {}}
    for row in rows:
        ways["tiles" if row["tiles"] else "whole"][row["size_px"]] = row
    tiled, whole = ways["tiles"], ways["whole"]

    def values(row: Row | None) -> list[str]:
        if row is None or row["latency_s"] is None:
            return ["" if row is None else row["failed"] or "not measured", "", "", ""]
        per_megapixel, relative = 1 / row["megapixels_per_s"], row["speedup"] and 1 / row["speedup"]
        return [f"{row['latency_s']:.3f}", f"{per_megapixel:.3f}", text(relative, ".2f"), mib(row["peak_bytes"])]

    units = ("s", "s/megapixel", "relative", "peak MiB")
    header = ["px", *(f"whole, {unit}" for unit in units), *(f"tiles, {unit}" for unit in units)]
    lines = [[f"{size:,}", *values(whole.get(size)), *values(tiled.get(size))] for size in sorted({*whole, *tiled})]
    ran = sorted({f"{row['backend']} {row['precision']}" for row in rows if row["backend"]})
    parts = [machine, f"{contender} (ran: {', '.join(ran) or 'nothing'}):", markdown_table(header, lines)]
    for name, found in (("In tiles", tiled), ("As a whole", whole)):
        relative = {size: 1 / row["speedup"] for size, row in found.items() if row["speedup"] and size >= min(tiled)}
        if len(relative) > 1:
            worst = max(abs(value - 1) for value in relative.values())
            parts.append(
                f"{name}: from {min(relative):,} to {max(relative):,} px the time for a megapixel differs by at most "
                f"{100 * worst:.0f} % from that at {min(relative):,} px, so it is "
                f"{'linear' if worst <= LINEAR_WITHIN else 'not linear'} within {100 * LINEAR_WITHIN:.0f} %."
            )
    if tiled:
        tile, overlap = next(iter(tiled.values()))["tiles"]
        computed = ", ".join(f"{row['computed']:.2f} at {size:,} px" for size, row in sorted(tiled.items()))
        parts.append(
            f"Tiles of {tile} px overlap by {overlap} px or more, so the network computes a pixel this often: "
            f"{computed}."
        )
    return "\n\n".join(parts)


def layer_profile(contender: Contender, size_px: int, settings: Settings, rounds: int) -> str:
    """Return a Markdown table of the time in each kind of layer, for one image of ``size_px`` rows and columns.

    Kinds are OpenVINO's, with the implementation that it chose; times are medians over calls, of all layers of a kind.

    Raises:
        ConfigError: the cell is not on OpenVINO.
    """
    if contender.backend != "openvino":
        raise ConfigError(f"--profile {contender}: OpenVINO tells its layers' times; give a cell such as unet@openvino")
    precision = contender.precision or "fp32"
    method = build_method(contender.method, settings.checkpoint)
    core = openvino_core()
    with tempfile.TemporaryDirectory() as folder:
        path = settings.int8_file if precision == "int8" else None
        if path is None:
            path = os.path.join(folder, "network.onnx")
            export_onnx(method.network, path)
        model = core.read_model(path)
    shape = [1, method.bands, size_px, size_px]
    model.reshape(shape)
    compiled = core.compile_model(model, "CPU", compile_settings(precision) | {"PERF_COUNT": True})
    request = compiled.create_infer_request()
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    def times() -> Counter[str]:
        request.infer({"image": image})
        sums: Counter[str] = Counter()
        for layer in request.get_profiling_info():
            sums[f"{layer.node_type}, {layer.exec_type}"] += 1000 * layer.real_time.total_seconds()
        return sums

    found = in_turns({"": times}, rounds, warm_up=2)[""]
    medians = {kind: median(one[kind] for one in found) for kind in found[0]}
    total = sum(medians.values())
    rows = [
        [kind, f"{milliseconds:.1f}", f"{100 * milliseconds / total:.0f} %"]
        for kind, milliseconds in sorted(medians.items(), key=lambda item: -item[1])
        if milliseconds > 0.005 * total
    ]
    return f"{contender}, {size_px} px: {total:.0f} ms\n\n{markdown_table(['layers', 'ms', 'share'], rows)}"


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("cells", nargs="*", metavar="CELL", help="default: dsegnext-t@plain dsegnext-t@auto")
    add("--list", action="store_true", help="print the methods' names and configs")
    add("--scaling", action="store_true", help="time and memory against size (of dsegnext-t@auto)")
    add("--profile", action="store_true", help="print where the time of cells on OpenVINO goes")
    add("--sizes", type=int, nargs="+", help=f"rows and columns, pixels (default: {SIZES})")
    add("--batch", type=int, nargs="+", default=[1], help="images at a time (default: 1)")
    add("--rounds", type=int, default=7, help="turns of every cell (default: 7)")
    add("--threads", type=int, help="CPU threads of a network (default: torch's)")
    add("--checkpoint", help="weights, where all cells are of one method (default: random)")
    add("--int8", metavar="FILE", help="exported int8 network, for the cells with +int8")
    add("--tiles", type=int, nargs=2, default=TILES, metavar=("PX", "OVERLAP"), help="of --scaling (default: 640 128)")
    add("--out", type=Path, default=Path("work_dirs/benchmark"), help="default: %(default)s")
    add("--docs", type=Path, nargs="?", const=DOCS, help="write the tables into this page too (docs/speed.md)")
    return parser.parse_args()


def contenders(args: argparse.Namespace) -> list[Contender]:
    """Return the cells of the command line, or the default ones.

    Raises:
        ConfigError: no measurement could run with these arguments; says what to change.
    """
    numbers = dict(sizes=args.sizes or [1], batch=args.batch, rounds=[args.rounds], threads=[args.threads or 1])
    for name, values in numbers.items():
        if min(values) < 1:
            raise ConfigError(f"--{name} {min(values)}: give 1 or more")
    for file in (args.checkpoint, args.int8):
        if file and not Path(file).is_file():
            raise ConfigError(f"{file}: no such file")
    default = ["dsegnext-t@plain", "dsegnext-t@auto"]
    if args.scaling or args.profile:
        default = ["dsegnext-t@auto" if args.scaling else "dsegnext-t@openvino"]
    found = list(dict.fromkeys(map(parse_contender, args.cells or default)))
    if args.scaling and (len(found) > 1 or len(args.batch) > 1):
        raise ConfigError("--scaling measures one cell with one --batch; give one")
    largest = max(args.sizes or SCALING_SIZES)
    if args.scaling and largest < args.tiles[0]:
        raise ConfigError(
            f"--scaling up to {largest} px: no size has a tile of {args.tiles[0]} px; give larger --sizes or "
            "smaller --tiles"
        )
    if args.checkpoint and len({contender.method for contender in found}) > 1:
        raise ConfigError("--checkpoint: the cells are of several methods; give those of one")
    return found


def write(args: argparse.Namespace, results: dict, markdown: str) -> None:
    """Write results.json, results.md and, of speeds, chart.png; where asked, the page of the docs too."""
    texts = {"results.json": json.dumps(results, indent=1), "results.md": markdown}
    for name, content in texts.items():
        with complete_file(str(args.out / name), "the results are above") as partial:
            Path(partial).write_text(content + "\n", encoding="utf-8")
    block = f"{'scaling' if args.scaling else 'speed'} {'gpu' if torch.cuda.is_available() else 'cpu'}"
    if not args.scaling:
        save_chart(results["rows"], args.out / "chart.png")
    if args.docs and results["complete"]:
        if not args.scaling:
            chart = args.docs.with_name(f"{block.replace(' ', '_')}.png")
            with complete_file(str(chart)) as partial:
                shutil.copyfile(args.out / "chart.png", partial)
            markdown += f"\n\n![Megapixels per second of every line]({chart.name})"
        update_blocks(str(args.docs), {block: f"`{results['command']}`\n\n{markdown}"})


def main() -> None:
    """Measure, then write the results, also those of a run that was stopped."""
    args = parse_args()
    if args.list:
        sys.stdout.writelines(f"{name:14} {path}\n" for name, path in method_configs().items())
        return
    chosen = contenders(args)
    settings = Settings(args.threads, args.checkpoint, args.int8)
    if args.profile:
        for contender in chosen:
            for size in args.sizes or SIZES[-1:]:
                sys.stdout.write(f"{layer_profile(contender, size, settings, args.rounds)}\n\n")
        return
    with writing(str(args.out), _ANOTHER):
        args.out.mkdir(parents=True, exist_ok=True)
    machine = machine_line(args.threads)
    if args.scaling:
        cells = scaling_cells(chosen[0], args.sizes or SCALING_SIZES, tuple(args.tiles), args.batch[0])
    else:
        require(["matplotlib"], "plots", "the chart of a benchmark")
        cells = [Cell(c, size, batch) for size in args.sizes or SIZES for batch in args.batch for c in chosen]
    records, complete = measure(cells, args.rounds, settings, together=args.scaling)
    rows = figures(records)
    markdown = scaling_markdown(machine, chosen[0], rows) if args.scaling else speed_markdown(machine, rows)
    if not complete:
        markdown += "\n\nStopped early: what is missing was not measured."
    sys.stdout.write(f"{markdown}\n\n")  # before the files, which may fail
    command = shlex.join(["python", "tools/benchmark/networks.py", *sys.argv[1:]])
    with writing(str(args.out), "the results are above"):
        write(args, dict(command=command, machine=machine, rounds=args.rounds, complete=complete, rows=rows), markdown)
    sys.stdout.write(f"{args.out}: results.json, results.md{'' if args.scaling else ', chart.png'}\n")
    if not complete:
        raise KeyboardInterrupt
    if all(record.failed for record in records):
        raise ConfigError(f"nothing could be measured: {records[0].cell.contender}: {records[0].failed}")


if __name__ == "__main__":
    run_tool(main, "stopped; what was measured is written")
