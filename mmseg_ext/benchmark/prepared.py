"""From a cell to the function whose calls are timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..datasets.reading import ImageReading
from ..deploy.choice import choose_backend, fast_precisions
from ..deploy.facts import NetworkFacts
from ..deploy.runner import accelerated, make_runner
from ..deploy.trained import TrainedNetwork
from ..errors import ConfigError
from ..geo.raster import RasterInfo
from ..mapping import TilePlan, map_strips
from .cell import AUTO, Cell, Contender
from .methods import CLASSES, Method, build_method, is_peer


@dataclass(frozen=True)
class Prepared:
    """What is timed.

    Attributes:
        call: maps the images of the cell once.
        backend: that runs, where ``auto`` chose too.
        precision: that runs.
    """

    call: Callable[[], object]
    backend: str
    precision: str


class SyntheticRaster:
    """A raster of any size that takes no memory: a square of random values, again and again.

    Args:
        size_px: rows and columns.
        bands: number of bands.
    """

    def __init__(self, size_px: int, bands: int) -> None:
        self.info = RasterInfo("a synthetic raster", size_px, size_px, bands, "uint8")
        self._square = np.random.default_rng(0).integers(0, 256, (256, 256, bands), np.uint8)

    def read(
        self,
        row: int,
        column: int,
        height: int,
        width: int,
        bands: Sequence[int] | None = None,
        out_shape: tuple[int, int] | None = None,
    ) -> tuple[np.ndarray, None]:
        """Return a part (height, width, bands), of which every pixel is valid."""
        side = len(self._square)
        rows, columns = np.arange(row, row + height) % side, np.arange(column, column + width) % side
        return self._square[rows[:, None], columns], None


@dataclass(frozen=True)
class Settings:
    """How every cell is measured.

    Attributes:
        threads: that a network may use; None for the default.
        checkpoint: weights; None for random ones.
        int8_file: exported network, for the cells with precision int8.
        turn_seconds: a turn makes calls until these are over.
    """

    threads: int | None = None
    checkpoint: str | None = None
    int8_file: str | None = None
    turn_seconds: float = 0.5


def prepare(cell: Cell, device: torch.device, settings: Settings) -> Prepared:
    """Return the function that maps what ``cell`` says on ``device``.

    Raises:
        UserError: the method does not run on this backend, at this precision or at this size.
    """
    method = build_method(cell.contender.method, settings.checkpoint)
    if cell.tiles is not None:
        return _tiled(cell, cell.tiles, method, device, settings)
    if cell.size_px % method.stride:
        raise ConfigError(f"{cell.size_px} px is no multiple of {method.stride}")
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(cell.batch, method.bands, cell.size_px, cell.size_px, generator=generator).to(device)
    if is_peer(cell.contender.method):
        network = method.network.to(device)
        return Prepared(torch.inference_mode()(lambda: network(images)), "plain", "fp32")
    backend, precision = _chosen(cell.contender, method, images.shape, device, settings)
    file = settings.int8_file if precision == "int8" else None
    runner = make_runner(method.network, backend, precision, device, settings.threads, file)
    return Prepared(lambda: runner(images), backend, precision)


def _chosen(
    contender: Contender, method: Method, shape: Sequence[int], device: torch.device, settings: Settings
) -> tuple[str, str]:
    """Return backend and precision of ``contender``, after its choice where that is ``auto``."""
    if contender.backend != AUTO:
        return contender.backend, contender.precision or "fp32"
    precisions = fast_precisions(device) if contender.precision is None else (contender.precision,)
    choice = choose_backend(method.network, shape, precisions, device, settings.threads)
    return choice.backend, choice.precision


def _tiled(cell: Cell, tiles: tuple[int, int], method: Method, device: torch.device, settings: Settings) -> Prepared:
    """Return the function that maps a raster of the cell's size in tiles."""
    if is_peer(cell.contender.method):
        raise ConfigError("a peer does not map rasters")
    plan = TilePlan(cell.size_px, cell.size_px, *tiles, stride=method.stride)
    shape = (cell.batch, method.bands, *plan.network_shape)
    backend, precision = _chosen(cell.contender, method, shape, device, settings)
    file = settings.int8_file if precision == "int8" else None
    fast = accelerated(method.network, backend, precision, device, settings.threads, file)
    head: Any = method.network.decode_head
    facts = NetworkFacts(
        classes=tuple(map(str, range(CLASSES))),
        palette=((0, 0, 0),) * CLASSES,
        mean=(127.5,) * method.bands,
        std=(74.0,) * method.bands,
        to_rgb=True,
        reading=ImageReading(),
        stride=method.stride,
        outputs=head.out_channels,
        threshold=None,
        weights_sha256="none",
    )
    network = TrainedNetwork(fast, facts, device, backend, precision)
    raster = SyntheticRaster(cell.size_px, method.bands)

    def call() -> None:
        for _ in map_strips(raster, network, plan, batch=cell.batch):  # type: ignore[arg-type]
            pass

    return Prepared(call, backend, precision)
