#!/usr/bin/env python
"""How smooth the lines of road networks are, and how far from the true ones, before and after smoothing.

Example: python tools/benchmark/centrelines.py --gsd 0.5 1 2
With --masks the lines of drawn masks, of --gsd metres per pixel, are found again in the same masks with ragged edges.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence

import mmseg_ext  # noqa: F401  isort: skip  before what is slow to import, for an early Ctrl-C

import numpy as np
import shapely
from scipy.ndimage import distance_transform_edt, gaussian_filter

from mmseg_ext.datasets.synthetic_mine import generate_mine
from mmseg_ext.errors import run_tool
from mmseg_ext.geo import write_geotiff
from mmseg_ext.imagery.raw_mask import read_grey
from mmseg_ext.networks import NetworkSettings, extract_network
from mmseg_ext.report.tables import markdown_table

_MINE_M = 700
_CORNER = 500_000.0, 4_000_000.0
VARIANTS = {
    "as the pixels (--smooth 0)": NetworkSettings(smooth=0),
    "smoothed (default)": NetworkSettings(),
    "--smooth 40": NetworkSettings(smooth=40),
}


def ragged(mask: np.ndarray, gsd_m: float, seed: int, off_m: float = 1.0, long_m: float = 3.0) -> np.ndarray:
    """Return a road mask (H, W) whose edges are off by about ``off_m``, in waves some ``long_m`` long, as predicted."""
    inside = distance_transform_edt(mask) - distance_transform_edt(mask == 0)
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(mask.shape), long_m / gsd_m)
    return inside + noise / noise.std() * off_m / gsd_m > 0


def network_lines(mask: np.ndarray, gsd_m: float, settings: NetworkSettings) -> list[np.ndarray]:
    """Return the lines (N, 2) of a mask's road network, metres to the right and up of the image's upper left corner."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "mask.tif")
        write_geotiff(path, mask.astype(np.uint8), "EPSG:32612", (gsd_m, 0.0, _CORNER[0], 0.0, -gsd_m, _CORNER[1]))
        lines = extract_network(path, settings).edges.geometry
    return [shapely.get_coordinates(line) - _CORNER for line in lines]


def mine_and_roads(seed: int, gsd_m: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the mask of a synthetic mine, and the centrelines of its roads inside of it as `network_lines` does."""
    mine = generate_mine(seed, round(_MINE_M / gsd_m), gsd_m)
    side = len(mine.mask) * gsd_m
    roads = shapely.MultiLineString([road.xy_m * (1, -1) for road in mine.roads])
    inside = shapely.get_parts(shapely.intersection(roads, shapely.box(0, -side, side, 0)))
    return mine.mask > 0, [shapely.get_coordinates(part) for part in inside]


def turning(line: np.ndarray) -> float:
    """Return the degrees that a line (N, 2) turns in all, to either side."""
    steps = np.diff(line, axis=0)
    angle = np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))
    return float(np.degrees(np.abs(np.diff(angle)).sum()))


def figures(lines: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> dict[str, float]:
    """Return how lines are beside the true ones, all in metres: turning, distances and lengths, and the lines' points.

    ``distance`` is the mean, along the lines, to the nearest true one, ``missed`` the other way round.
    """
    found, true = shapely.MultiLineString(lines), shapely.MultiLineString(truth)

    def mean_distance(one: shapely.Geometry, other: shapely.Geometry) -> float:
        pieces = shapely.get_parts(shapely.segmentize(one, 0.5))
        middles = np.concatenate([(xy[1:] + xy[:-1]) / 2 for xy in map(shapely.get_coordinates, pieces)])
        lengths = np.concatenate([np.hypot(*np.diff(xy, axis=0).T) for xy in map(shapely.get_coordinates, pieces)])
        return float(np.average(shapely.distance(shapely.points(middles), other), weights=lengths))

    return {
        "turning": sum(map(turning, lines)) / found.length,
        "distance": mean_distance(found, true),
        "missed": mean_distance(true, found),
        "length": found.length,
        "true_length": true.length,
        "points": float(shapely.get_num_coordinates(found)),
    }


def measured(cases: Iterator[tuple[np.ndarray, list[np.ndarray], float]]) -> dict[str, dict[str, float]]:
    """Return for each of `VARIANTS` the means of `figures` over cases: a mask, its true lines and metres per pixel."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for mask, truth, gsd_m in cases:
        for name, settings in VARIANTS.items():
            found[name].append(figures(network_lines(mask, gsd_m, settings), truth))
    return {name: {key: float(np.mean([one[key] for one in each])) for key in each[0]} for name, each in found.items()}


def mines(gsd_m: float, seeds: int, off_m: float) -> Iterator[tuple[np.ndarray, list[np.ndarray], float]]:
    """Yield cases for `measured`: synthetic mines with exact edges, or with edges ``off_m`` off."""
    for seed in range(seeds):
        mask, truth = mine_and_roads(seed, gsd_m)
        yield (ragged(mask, gsd_m, seed, off_m) if off_m else mask), truth, gsd_m


def drawn(paths: Sequence[str], gsd_m: float, off_m: float) -> Iterator[tuple[np.ndarray, list[np.ndarray], float]]:
    """Yield cases for `measured`: drawn masks with ragged edges, and the pixels' centrelines of the masks as drawn."""
    for seed, path in enumerate(paths):
        mask = read_grey(path)[0] >= 128
        if truth := network_lines(mask, gsd_m, NetworkSettings(smooth=0, simplify=0)):
            yield ragged(mask, gsd_m, seed, off_m), truth, gsd_m


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gsd", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="metres per pixel")
    parser.add_argument("--seeds", type=int, default=4, help="synthetic mines (default: 4)")
    parser.add_argument("--off", type=float, default=1.0, metavar="M", help="of ragged edges (default: 1)")
    parser.add_argument("--masks", nargs="+", metavar="FILE", help="drawn masks, road from grey 128, instead of mines")
    args = parser.parse_args()
    rows = []
    for gsd_m in args.gsd:
        if args.masks:
            kinds = {"drawn, then ragged": drawn(args.masks, gsd_m, args.off)}
        else:
            kinds = {"exact": mines(gsd_m, args.seeds, 0), "ragged": mines(gsd_m, args.seeds, args.off)}
        for kind, cases in kinds.items():
            for name, means in measured(cases).items():
                off = 100 * (means["length"] / means["true_length"] - 1)
                cells = f"{means['turning']:.2f}", f"{means['distance']:.2f}", f"{means['missed']:.2f}", f"{off:+.1f} %"
                density = f"{1000 * means['points'] / means['length']:.0f}"
                rows.append([f"{kind}, {gsd_m:g} m", name, *cells, density])
    header = ["mask", "lines", "turning, degrees/m", "to the truth, m", "from the truth, m", "length", "points per km"]
    sys.stdout.write(markdown_table(header, rows) + "\n")


if __name__ == "__main__":
    run_tool(main)
