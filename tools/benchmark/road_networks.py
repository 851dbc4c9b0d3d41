#!/usr/bin/env python
"""Memory and time of road networks of maps of growing size: ``python tools/benchmark/road_networks.py SIZE ...``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile

import mmseg_ext  # noqa: F401  isort: skip  before what is slow to import, for an early Ctrl-C

from timing import apart, process_bytes, timed
from mapping import RepeatedRaster

from mmseg_ext.datasets.synthetic_mine import generate_mine
from mmseg_ext.errors import run_tool
from mmseg_ext.geo import Georeference
from mmseg_ext.networks import extract_network, write_layers
from mmseg_ext.report.tables import markdown_table

_GSD_M = 0.5
_MINE_PX = 2000


def extracted(mask: str, layers_file: str) -> tuple[float, int, float, float, int]:
    """Return metres of road, edges, seconds of the network and of its file, and this process's peak memory in bytes."""
    found = []
    extracting = timed(lambda: found.append(extract_network(mask)))()
    layers = found[0]
    writing = timed(lambda: write_layers(layers_file, layers.named()))()
    return layers.edges["length_m"].sum(), len(layers.edges), extracting, writing, process_bytes("VmHWM") or 0


def row(size_px: int) -> list[str]:
    """Return what the network of ``size_px`` rows and columns of synthetic mines, one beside the other, costs."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "mask.tif")
        place = Georeference("EPSG:32612", (_GSD_M, 0.0, 500_000.0, 0.0, -_GSD_M, 4_000_000.0))
        RepeatedRaster(generate_mine(3, _MINE_PX, _GSD_M).mask, size_px, size_px).write(path, place)
        length_m, edges, extracting, writing, peak = apart(extracted, path, os.path.join(folder, "roads.gpkg"))
    figures = f"{length_m / 1000:.0f} km", f"{edges:,}", f"{extracting:.0f} s", f"{writing:.0f} s"
    return [f"{size_px:,} x {size_px:,}", *figures, f"{peak / 2**30:.2f} GiB"]


def main() -> None:
    """Measure each size in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="+", help="rows and columns of the masks")
    rows = [row(size_px) for size_px in parser.parse_args().sizes]
    header = ["mask", "road", "edges", "network", "writing", "peak memory"]
    sys.stdout.write(markdown_table(header, rows) + "\n")


if __name__ == "__main__":
    run_tool(main)
