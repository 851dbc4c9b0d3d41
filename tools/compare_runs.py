#!/usr/bin/env python
"""Give road scores their confidence intervals; of several runs, say which differences are significant.

Example: python tools/compare_runs.py scores/segnext scores/dsegnext
Each RUN is a folder written by tools/test.py --report or tools/evaluate.py --out; of the same
images, the others are compared with the first.
"""

import argparse
import sys

from mmseg_ext.cli import distinct_names
from mmseg_ext.errors import ConfigError, run_tool
from mmseg_ext.files import write_text


def main() -> None:
    """Compare as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder with scores.json")
    parser.add_argument("--scores", nargs="+", metavar="KEY", help="IoU, relaxed_F1, APLS_spacenet, ...")
    parser.add_argument("--confidence", type=float, default=0.95, help="of the intervals (default: 0.95)")
    parser.add_argument("--resamples", type=int, default=10_000, help="of the bootstrap (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    parser.add_argument("--out", metavar="FILE", help="write the table to this Markdown file too")
    args = parser.parse_args()
    from mmseg_ext.scoring.comparison import compare_runs, comparison_table
    from mmseg_ext.scoring.results import read_scores

    names = distinct_names(args.runs)
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ConfigError(f"{args.runs[i]}: given twice; give different runs")
    runs = {name: read_scores(path) for name, path in zip(names, args.runs, strict=True)}
    chosen = {} if args.scores is None else {"keys": args.scores}
    found = compare_runs(runs, confidence=args.confidence, resamples=args.resamples, seed=args.seed, **chosen)
    table = comparison_table(found, args.confidence) + "\n"
    sys.stdout.write(table)
    if args.out:
        write_text(args.out, table)


if __name__ == "__main__":
    run_tool(main)
