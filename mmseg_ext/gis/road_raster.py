"""The road pixels of a mask or a probability map, by windows."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import numpy as np

from ..errors import DataError
from ..geo import RasterSource


class RoadRaster:
    """A raster of classes or of road probabilities that stays open; a context manager.

    Attributes:
        info: what its header says.
        is_probability: whether it holds probabilities: floats, or integers with a scale, as `tools/predict.py` writes,
            or an offset.

    Args:
        path: raster of one band.
        threshold: probability from which a pixel is road.
        road_values: the values of a mask that are road; None for all but 0.

    Raises:
        DataError: unreadable, or of several bands.
    """

    def __init__(self, path: str, threshold: float = 0.5, road_values: Sequence[int] | None = None) -> None:
        self._source = RasterSource(path)
        self.info = self._source.info
        if self.info.bands != 1:
            self._source.close()
            raise DataError(f"{path}: has {self.info.bands} bands; give a mask or a probability map, which has one")
        self.is_probability = self.info.dtype.startswith("float") or (self.info.scale, self.info.offset) != (1, 0)
        self._threshold, self._road_values = threshold, road_values

    def __enter__(self) -> RoadRaster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._source.close()

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the values (h, w) of a part, probabilities scaled, and what is valid (h, w), None for all.

        Raises:
            DataError: truncated or damaged there, or probabilities that are none.
        """
        values, valid = self._source.read(row, column, height, width)
        found = values[:, :, 0]
        if self.is_probability:
            with np.errstate(over="ignore", invalid="ignore"):  # of nodata
                found = found.astype(np.float32) * self.info.scale + self.info.offset
            if valid is not None:
                found[~valid] = 0
            if found.size and (found.min() < -0.001 or found.max() > 1.001):
                raise DataError(
                    f"{self.info.path}: holds {found.min():g} to {found.max():g}, which are no probabilities; "
                    "give values from 0 to 1, or a mask of whole numbers"
                )
        return found, valid

    def road(self, values: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
        """Return the road pixels (h, w), bool, of what `read` returned."""
        if self.is_probability:
            road = values >= self._threshold
        elif self._road_values is None:
            road = values != 0
        else:
            road = np.isin(values, self._road_values)
        return road if valid is None else road & valid
