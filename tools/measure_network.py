#!/usr/bin/env python
"""Memory and time of a road network against the size of its map: ``python tools/measure_network.py 10000 20000``."""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np

from mmseg_ext.datasets.synthetic_mine import generate_mine
from mmseg_ext.errors import run_tool
from mmseg_ext.geo import Georeference, write_cog
from mmseg_ext.networks import extract_network, write_layers

_GSD_M = 0.5
_MINE_PX = 2000
_ROWS = 500


def mines(size_px: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the strips of a mask of one synthetic mine beside the other, each with its first row."""
    mask = generate_mine(3, _MINE_PX, _GSD_M).mask
    wide = np.tile(mask, (1, -(-size_px // _MINE_PX)))[:, :size_px]
    for row in range(0, size_px, _ROWS):
        start = row % _MINE_PX
        yield row, wide[start : start + min(_ROWS, size_px - row)]


def measure(size_px: int) -> None:
    """Print what the network of a mask of ``size_px`` rows and columns costs; of this process, from its start."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "mask.tif")
        place = Georeference("EPSG:32612", (_GSD_M, 0.0, 500_000.0, 0.0, -_GSD_M, 4_000_000.0))
        # in a process of its own: writing the mask is not what is measured
        if not (writer := os.fork()):
            write_cog(path, mines(size_px), size_px, size_px, "uint8", place)
            os._exit(0)
        os.waitpid(writer, 0)
        start = time.perf_counter()
        layers = extract_network(path)
        extracted = time.perf_counter()
        write_layers(os.path.join(folder, "roads.gpkg"), layers.named())
        written = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sys.stdout.write(
        f"| {size_px:,} x {size_px:,} | {layers.edges['length_m'].sum() / 1000:.0f} km | {len(layers.edges):,} | "
        f"{extracted - start:.0f} s | {written - extracted:.0f} s | {peak:.2f} GiB |\n"
    )


def main() -> None:
    """Measure each size in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="+", help="rows and columns of the masks")
    args = parser.parse_args()
    if len(args.sizes) == 1:
        measure(args.sizes[0])
        return
    sys.stdout.write(
        "| mask | road | edges | network | writing | peak memory |\n| --- | --- | --- | --- | --- | --- |\n"
    )
    for size_px in args.sizes:
        sys.stdout.flush()
        subprocess.run([sys.executable, __file__, str(size_px)], check=True)


if __name__ == "__main__":
    run_tool(main)
