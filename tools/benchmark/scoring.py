#!/usr/bin/env python
"""Time of the road scores of one image, part by part, for networks of more and more junctions, on one core.

Example: python tools/benchmark/scoring.py --size 1024 --roads 2 5 10 20
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from statistics import median

import mmseg_ext  # noqa: F401  isort: skip  before what is slow to import, for an early Ctrl-C

import cv2
import numpy as np
from timing import in_turns, timed

from mmseg_ext.errors import run_tool
from mmseg_ext.metrics.apls import SAT2GRAPH, SPACENET, apls
from mmseg_ext.metrics.centrelines import centreline_lengths, connectivity
from mmseg_ext.metrics.pixels import boundary_counts, cldice_counts, confusion, probability_counts, relaxed_counts
from mmseg_ext.metrics.topo import topo
from mmseg_ext.report.tables import markdown_table
from mmseg_ext.roads import road_graph, skeleton
from mmseg_ext.scoring import ScoringSettings, score_image


def network(size: int, roads: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a true grid of ``roads`` x ``roads`` roads of 12 px, and a prediction: 2 px off, with gaps."""
    truth = np.zeros((size, size), bool)
    for i in range(roads):
        at = (2 * i + 1) * size // (2 * roads)
        truth[at - 6 : at + 6] = True
        truth[:, at - 6 : at + 6] = True
    prediction = np.roll(truth, 2, axis=0)
    for row, column in np.random.default_rng(0).integers(0, size - 12, (roads, 2)):
        prediction[row : row + 12, column : column + 12] = False
    return prediction, truth


def parts(size: int, roads: int) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name."""
    mask, truth = network(size, roads)
    chance = mask * 0.8 + 0.1
    labels = mask.astype(np.uint8), truth.astype(np.uint8)
    graphs = road_graph(mask), road_graph(truth)
    return {
        "confusion matrix": partial(confusion, *labels, 2),
        "boundary IoU": partial(boundary_counts, mask, truth),
        "relaxed F1": partial(relaxed_counts, mask, truth),
        "probabilities": partial(probability_counts, chance, truth),
        "skeletons": lambda: (skeleton(mask), skeleton(truth)),
        "clDice": partial(cldice_counts, mask, truth, skeleton(mask), skeleton(truth)),
        "graphs": lambda: (road_graph(mask), road_graph(truth)),
        "completeness, correctness": partial(centreline_lengths, *graphs, 6),
        "connectivity": partial(connectivity, *graphs, 6),
        "APLS (SpaceNet)": partial(apls, *graphs, SPACENET),
        "APLS (Sat2Graph)": partial(apls, *graphs, SAT2GRAPH),
        "TOPO": partial(topo, *graphs),
        "all of them": partial(score_image, "a", mask, truth, ScoringSettings(), probability=chance),
    }


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="rows and columns of the image (default: 1024)")
    parser.add_argument("--roads", type=int, nargs="+", default=[2, 5, 10, 20], help="in each direction")
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many (default: 3)")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    columns = []
    for roads in args.roads:
        works = {name: timed(work) for name, work in parts(args.size, roads).items()}
        columns.append(in_turns(works, args.rounds))
    header = [f"seconds, {args.size} x {args.size} px", *(f"{n * n} junctions" for n in args.roads)]
    rows = [[name, *(f"{median(column[name]):.3f}" for column in columns)] for name in columns[0]]
    sys.stdout.write(markdown_table(header, rows) + "\n")


if __name__ == "__main__":
    run_tool(main)
