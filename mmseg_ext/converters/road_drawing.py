"""Road layers of a GIS as labels on any pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError, DataError, LazyModule
from ..geo import GroundGrid, VectorLayer, read_areas, read_layer
from ..geo.raster import Window
from ..geo.vector import Areas, placed
from ..imagery.voc import IGNORE

_PURPOSE = "drawing road layers"
shapely = LazyModule("shapely", None, _PURPOSE)
_NAMED_FEATURES = 5
_MARGIN_M = 1000.0  # no road is half as wide


@dataclass(frozen=True)
class RoadDrawing:
    """Which layers say where roads are, and how they become labels.

    Layers are files of any GIS format, ``file:layer`` where a file has several, in any coordinate reference system.

    Attributes:
        roads: polygons, drawn as they are, or centrelines, widened; where two overlap, the later one counts.
        width_m: full width in metres of lines, for those whose ``width_field`` is empty too.
        width_field: field with the full width of each line in metres.
        class_field: field with the class of each road: whole numbers as they are, or names, which are numbered from 1
            in the order of the alphabet. None: all roads are class 1.
        area: polygons of the area of interest; beyond them nothing is known of the ground. None: everywhere.
        nogo: polygons in which nothing is known.
    """

    roads: str
    width_m: float | None = None
    width_field: str | None = None
    class_field: str | None = None
    area: str | None = None
    nogo: str | None = None

    def __post_init__(self) -> None:
        """Refuse a width that is none."""
        if self.width_m is not None and not self.width_m > 0:
            raise ConfigError(f"--width {self.width_m:g}: must be above 0")

    @property
    def sources(self) -> list[str]:
        """The layers."""
        return [source for source in (self.roads, self.area, self.nogo) if source is not None]


class RoadLabels:
    """The layers of a drawing, read and checked; ``classes`` names the labels, the background first.

    Raises:
        ConfigError: lines without a width.
        DataError: see `read_layer`; a width or class that is none; areas without polygons.
    """

    def __init__(self, drawing: RoadDrawing) -> None:
        fields = [name for name in (drawing.width_field, drawing.class_field) if name is not None]
        self._roads = read_layer(drawing.roads, fields)
        self._widths = _widths(self._roads, drawing)
        self._labels, self.classes = _classes(self._roads, drawing.class_field)
        self._area = None if drawing.area is None else read_areas(drawing.area)
        self._nogo = None if drawing.nogo is None else read_areas(drawing.nogo)

    def on(self, grid: GroundGrid, windows: Sequence[Window]) -> LabelGrid:
        """Return the labels on the pixels of ``grid`` in all ``windows`` (row, column, height, width)."""
        bounds = np.array([grid.bounds(window) for window in windows])
        margin = _MARGIN_M / grid.unit_m
        extent = (*(bounds[:, :2].min(axis=0) - margin).tolist(), *(bounds[:, 2:].max(axis=0) + margin).tolist())
        shapes, which = placed(self._roads, grid.crs, extent, "the image")
        lines = self._roads.are_lines[which]
        shapes[lines] = shapely.buffer(shapes[lines], self._widths[which][lines] / 2 / grid.unit_m, quad_segs=16)
        area, nogo = (
            None if layer is None else Areas(placed(layer, grid.crs, extent, "the image")[0])
            for layer in (self._area, self._nogo)
        )
        return LabelGrid(grid, Areas(shapes, self._labels[which]), area, nogo)


class LabelGrid:
    """The labels on the pixels of a grid."""

    def __init__(self, grid: GroundGrid, roads: Areas, area: Areas | None, nogo: Areas | None) -> None:
        self._grid, self._roads, self._area, self._nogo = grid, roads, area, nogo

    def read(self, window: Window) -> np.ndarray:
        """Return labels (H, W) uint8 of a ``window`` (row, column, height, width), 255 where nothing is known."""
        place = self._grid.transform(*window[:2]), *window[2:]
        labels = self._roads.burn(*place)
        if self._area is not None:
            labels[self._area.burn(*place) == 0] = IGNORE
        if self._nogo is not None:
            labels[self._nogo.burn(*place) > 0] = IGNORE
        return labels


def _refuse(layer: VectorLayer, wrong: np.ndarray, what: str, remedy: str) -> None:
    """Raise a DataError that names the features that are ``wrong`` (N,), if there are any."""
    if wrong.any():
        fids = list(dict.fromkeys(layer.fids[wrong].tolist()))
        named = ", ".join(map(str, fids[:_NAMED_FEATURES])) + (", ..." if len(fids) > _NAMED_FEATURES else "")
        raise DataError(f"{layer.path}: {what} (features {named}); {remedy}")


def _widths(roads: VectorLayer, drawing: RoadDrawing) -> np.ndarray:
    """Return the full width (N,) of the lines in metres."""
    lines = roads.are_lines
    widths = np.full(len(lines), np.nan if drawing.width_m is None else drawing.width_m)
    if drawing.width_field is not None:
        try:
            own = roads.fields[drawing.width_field].astype(float)
        except (TypeError, ValueError):
            raise DataError(f"{roads.path}: the field {drawing.width_field} holds no numbers; name another") from None
        widths = np.where(np.isnan(own), widths, own)
    elif drawing.width_m is None and lines.any():
        raise ConfigError(f"{roads.path}: holds lines; say how wide they are: --width or --width-field")
    _refuse(roads, lines & np.isnan(widths), f"no {drawing.width_field}", "give --width for those")
    _refuse(roads, lines & ~(widths > 0), f"{drawing.width_field} is not above 0", "fix them")
    return widths


def _classes(roads: VectorLayer, field: str | None) -> tuple[np.ndarray, Sequence[str]]:
    """Return the label (N,) uint8 of each road, and the names of all labels."""
    if field is None:
        return np.ones(len(roads.shapes), np.uint8), ["background", "road"]
    values = roads.fields[field]
    empty = np.array([value is None or value != value or value == "" for value in values], bool)
    _refuse(roads, empty, f"no {field}", "say their class")
    if values.dtype.kind in "iuf":
        wrong = (values < 0) | (values > IGNORE) | (values % 1 != 0)
        _refuse(roads, wrong, f"{field} is not a label from 0 to 255", "fix it")
        highest = max((int(value) for value in values if value != IGNORE), default=0)
        return values.astype(np.uint8), ["background", *(f"class {label}" for label in range(1, highest + 1))]
    names, labels = np.unique(values.astype(str), return_inverse=True)
    if len(names) >= IGNORE:
        raise DataError(f"{roads.path}: {field} has {len(names)} values, labels end at 254; name another field")
    return (labels + 1).astype(np.uint8), ["background", *names.tolist()]
