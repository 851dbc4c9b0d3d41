#!/usr/bin/env python
"""Time of the road scores of one image, part by part, for networks of more and more junctions, on one core.

Example: python tools/measure_scoring.py --size 1024 --roads 2 5 10 20
"""

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median

import cv2
import numpy as np

from mmseg_ext.errors import run_tool
from mmseg_ext.report import markdown_table


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="rows and columns of the image (default: 1024)")
    parser.add_argument("--roads", type=int, nargs="+", default=[2, 5, 10, 20], help="in each direction")
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many (default: 3)")
    return parser.parse_args()


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


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Return the median time of ``work``."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)


def main() -> None:
    """Measure as the command line says."""
    args = parse_args()
    from mmseg_ext.metrics import apls, centrelines, pixels, topo
    from mmseg_ext.roads import road_graph, skeleton
    from mmseg_ext.scoring import ScoringSettings, score_image

    cv2.setNumThreads(1)
    road_graph(network(64, 1)[0])  # what is compiled at first use
    columns = []
    for roads in args.roads:
        mask, truth = network(args.size, roads)
        chance = mask * 0.8 + 0.1
        thin, true_thin = skeleton(mask), skeleton(truth)
        ours, theirs = road_graph(mask), road_graph(truth)
        parts: dict[str, Callable[[], object]] = {
            "confusion matrix": lambda m=mask, t=truth: pixels.confusion(m.astype(np.uint8), t.astype(np.uint8), 2),
            "boundary IoU": lambda m=mask, t=truth: pixels.boundary_counts(m, t),
            "relaxed F1": lambda m=mask, t=truth: pixels.relaxed_counts(m, t),
            "probabilities": lambda c=chance, t=truth: pixels.probability_counts(c, t),
            "skeletons": lambda m=mask, t=truth: (skeleton(m), skeleton(t)),
            "clDice": lambda m=mask, t=truth, a=thin, b=true_thin: pixels.cldice_counts(m, t, a, b),
            "graphs": lambda m=mask, t=truth: (road_graph(m), road_graph(t)),
            "completeness, correctness": lambda a=ours, b=theirs: centrelines.centreline_lengths(a, b, 6),
            "connectivity": lambda a=ours, b=theirs: centrelines.connectivity(a, b, 6),
            "APLS (SpaceNet)": lambda a=ours, b=theirs: apls.apls(a, b, apls.SPACENET),
            "APLS (Sat2Graph)": lambda a=ours, b=theirs: apls.apls(a, b, apls.SAT2GRAPH),
            "TOPO": lambda a=ours, b=theirs: topo.topo(a, b),
            "all of them": lambda m=mask, t=truth, c=chance: score_image("a", m, t, ScoringSettings(), probability=c),
        }
        columns.append({name: seconds(work, args.rounds) for name, work in parts.items()})
    header = [f"seconds, {args.size} x {args.size} px", *(f"{n * n} junctions" for n in args.roads)]
    rows = [[name, *(f"{column[name]:.3f}" for column in columns)] for name in columns[0]]
    sys.stdout.write(markdown_table(header, rows) + "\n")


if __name__ == "__main__":
    run_tool(main)
