"""Generated views of mines as a data set in the VOC layout."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext

from ..datasets import generate_view
from ..datasets.mine_views import LEAST_PX
from ..errors import ConfigError
from ..imagery import ImageReading
from .conversion import Conversion, carry_out, key_of
from .scenes import ConversionSettings, Scene
from .voc_writer import VocWriter

VAL_SHARE = 0.05


class _Views:
    """The conversion of no raw data: scenes are seeds."""

    def __init__(self, seeds: range, size_px: int, pool: ProcessPoolExecutor | None) -> None:
        self.size_px, self.pool = size_px, pool
        self.seeds = {f"view{seed:06d}": seed for seed in seeds}

    def about(self) -> dict:
        return dict(data_set="mines", title="generated views of open-pit mines", licence="that of this program")

    def look(self) -> list[Scene]:
        first = len(self.seeds) - max(1, round(VAL_SHARE * len(self.seeds)))
        return [Scene(name, ("train" if i < first else "val",), name) for i, name in enumerate(self.seeds)]

    def reading(self, scenes: Sequence[Scene]) -> ImageReading:
        return ImageReading()

    def write(self, writer: VocWriter, scene: Scene) -> None:
        asked = self.seeds[scene.name], self.size_px
        view = generate_view(*asked) if self.pool is None else self.pool.submit(generate_view, *asked).result()
        writer.add(scene.name, view.image, view.mask, *scene.splits)


def _leave_with_parent() -> None:
    """Leave Ctrl-C to the parent process, and end when it ends, however that was."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def write_mine_views(
    dest: str, count: int, seed: int = 0, size_px: int = 640, workers: int = 1, overwrite: bool = False
) -> Conversion:
    """Write the views of the seeds from ``seed`` on as a data set; the last `VAL_SHARE` of them validate.

    If it is done already, nothing happens; if it was interrupted, it resumes.

    Args:
        dest: folder to create.
        count: number of views, at least 2.
        seed: the first one's seed.
        size_px: rows and columns of a view.
        workers: processes that generate views.
        overwrite: replace an existing ``dest``.

    Raises:
        ConfigError: a number makes no sense.
        DataError: ``dest`` exists already, made otherwise, or cannot be written.
    """
    for name, value, least in (("count", count, 2), ("seed", seed, 0), ("size", size_px, LEAST_PX)):
        if value < least:
            raise ConfigError(f"--{name} {value}: give {least} or more")
    settings = ConversionSettings(workers=workers, overwrite=overwrite, val=VAL_SHARE, seed=seed)
    # a generator that draws otherwise makes another data set
    drawn = hashlib.sha256(b"".join(generate_view(s, LEAST_PX).image.tobytes() for s in range(3))).hexdigest()
    key = key_of("mines", count, seed, size_px, drawn)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _leave_with_parent) if workers > 1 else nullcontext()
    with pool as processes:
        return carry_out(lambda: _Views(range(seed, seed + count), size_px, processes), dest, settings, key)
