#!/usr/bin/env python
"""Speed and memory of methods on backends, beside each other: ``python tools/benchmark.py CELL [CELL ...]``.

A cell is METHOD[@BACKEND[+PRECISION]]; ratios are to the first. Methods: dsegnext-t, segformer-b0, linknet,
... (--list), a config file, or a peer as its users run it, eager in float32: mmseg:segformer-b0, smp:unet-resnet34,
smp:linknet-resnet34, smp:segformer-mit_b0. Backends: auto, plain (the network as the papers write it), torch,
compile, onnxruntime, openvino, tensorrt. Example:

    python tools/benchmark.py dsegnext-t@plain dsegnext-t@openvino+bf16 smp:unet-resnet34 --sizes 512 1024

--scaling measures one cell from 256 to 4096 px, as a whole and in tiles, and says whether time is linear in pixels.
"""

import argparse
import json
import shlex
import shutil
import sys
from pathlib import Path

from mmseg_ext.benchmark import (
    Cell,
    Contender,
    Settings,
    figures,
    layer_profile,
    machine_facts,
    measure,
    parse_contender,
    scaling_cells,
    scaling_markdown,
    scaling_rows,
    speed_bars,
    speed_markdown,
)
from mmseg_ext.benchmark.methods import method_configs
from mmseg_ext.errors import ConfigError, require, run_tool
from mmseg_ext.report import update_blocks
from mmseg_ext.report.speed_chart import save_speed_chart

DOCS = Path(__file__).resolve().parents[1] / "docs" / "speed.md"
SIZES, SCALING_SIZES = (512, 1024), (256, 512, 1024, 2048, 3072, 4096)


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", nargs="*", metavar="CELL", help="default: dsegnext-t@plain dsegnext-t@auto")
    parser.add_argument("--list", action="store_true", help="print the methods' names and configs")
    parser.add_argument("--scaling", action="store_true", help="time and memory against size (of dsegnext-t@auto)")
    parser.add_argument("--profile", action="store_true", help="print where the time of cells on OpenVINO goes")
    parser.add_argument("--sizes", type=int, nargs="+", help=f"rows and columns, pixels (default: {SIZES})")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="images at a time (default: 1)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of every cell (default: 7)")
    parser.add_argument("--threads", type=int, help="CPU threads of a network (default: torch's)")
    parser.add_argument("--checkpoint", help="weights, where all cells are of one method (default: random)")
    parser.add_argument("--int8", metavar="FILE", help="exported int8 network, for the cells with +int8")
    parser.add_argument("--tile", type=int, default=640, help="with --scaling: pixels of a tile (default: 640)")
    parser.add_argument(
        "--overlap", type=int, default=128, help="of tiles; 640 less 128 fits into every size (default: 128)"
    )
    parser.add_argument("--out", type=Path, default=Path("work_dirs/benchmark"), help="default: work_dirs/benchmark")
    parser.add_argument(
        "--docs", type=Path, nargs="?", const=DOCS, help="write the tables into this page too (docs/speed.md)"
    )
    return parser.parse_args()


def check(args: argparse.Namespace) -> None:
    """Refuse what no cell could run with.

    Raises:
        ConfigError: says what to change.
    """
    numbers = dict(sizes=args.sizes or [1], batch=args.batch, rounds=[args.rounds], threads=[args.threads or 1])
    for name, values in numbers.items():
        if min(values) < 1:
            raise ConfigError(f"--{name} {min(values)}: give 1 or more")
    for file in (args.checkpoint, args.int8):
        if file and not Path(file).is_file():
            raise ConfigError(f"{file}: no such file")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{args.out}: cannot be made ({error.strerror}); choose another --out") from None


def contenders(args: argparse.Namespace, default: list[str]) -> list[Contender]:
    """Return the cells of the command line, or those of ``default``.

    Raises:
        ConfigError: one cannot be read, or they are more than one measurement bears.
    """
    found = list(dict.fromkeys(map(parse_contender, args.cells or default)))
    if args.scaling and (len(found) > 1 or len(args.batch) > 1):
        raise ConfigError("--scaling measures one cell with one --batch; give one")
    if args.checkpoint and len({contender.method for contender in found}) > 1:
        raise ConfigError("--checkpoint: the cells are of several methods; give those of one")
    return found


def write(args: argparse.Namespace, results: dict, markdown: str) -> None:
    """Write results.json, results.md and, of speeds, chart.png; where asked, the page of the docs too."""
    (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (args.out / "results.md").write_text(markdown + "\n", encoding="utf-8")
    block = f"{'scaling' if args.scaling else 'speed'} {'gpu' if results['machine']['gpu'] else 'cpu'}"
    if not args.scaling:
        save_speed_chart(speed_bars(results["rows"]), str(args.out / "chart.png"))
    if args.docs and results["complete"]:
        if not args.scaling:
            chart = args.docs.with_name(f"{block.replace(' ', '_')}.png")
            shutil.copyfile(args.out / "chart.png", chart)
            markdown += f"\n\n![Megapixels per second of every line]({chart.name})"
        update_blocks(str(args.docs), {block: f"`{results['command']}`\n\n{markdown}"})


def main() -> None:
    """Measure, then write the results, also those of a run that was stopped."""
    args = parse_args()
    if args.list:
        sys.stdout.writelines(f"{name:14} {path}\n" for name, path in method_configs().items())
        return
    check(args)
    settings = Settings(args.threads, args.checkpoint, args.int8)
    if args.profile:
        for contender in contenders(args, ["dsegnext-t@openvino"]):
            for size in args.sizes or SIZES[-1:]:
                sys.stdout.write(f"{layer_profile(contender, size, settings)}\n\n")
        return
    facts = machine_facts(args.threads)
    if args.scaling:
        (contender,) = contenders(args, ["dsegnext-t@auto"])
        cells = scaling_cells(contender, args.sizes or SCALING_SIZES, (args.tile, args.overlap), args.batch[0])
    else:
        require(["matplotlib"], "plots", "the chart of a benchmark")
        chosen = contenders(args, ["dsegnext-t@plain", "dsegnext-t@auto"])
        cells = [Cell(c, size, batch) for size in args.sizes or SIZES for batch in args.batch for c in chosen]
    records, complete = measure(cells, args.rounds, settings, together=args.scaling)
    rows = scaling_rows(records) if args.scaling else figures(records)
    markdown = scaling_markdown(facts, contender, rows) if args.scaling else speed_markdown(facts, rows)
    if not complete:
        markdown += "\n\nStopped early: what is missing was not measured."
    command = shlex.join(["python", "tools/benchmark.py", *sys.argv[1:]])
    write(args, dict(command=command, machine=facts, rounds=args.rounds, complete=complete, rows=rows), markdown)
    sys.stdout.write(f"{markdown}\n\n{args.out}: results.json, results.md{'' if args.scaling else ', chart.png'}\n")
    if not complete:
        raise KeyboardInterrupt
    if all(record.failed for record in records):
        raise ConfigError(f"nothing could be measured: {records[0].cell.contender}: {records[0].failed}")


if __name__ == "__main__":
    run_tool(main, "stopped; what was measured is written")
