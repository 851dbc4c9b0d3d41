"""From a road mask or a probability map of any size to lines, nodes and surfaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count, product
from typing import Any

import geopandas as gpd
import networkx as nx
import numpy as np
import shapely

from ..errors import ConfigError, DataError
from ..geo import PixelFrame, RasterSource
from ..geo.vector import merged, traced_areas
from ..roads import road_graph, tiled_centreline
from ..roads.polyline import length, points_at

_BORDER_PX = 3
_SMOOTH_PX = 0.25
_WIDTHS = ("width_median", "width_p10", "width_p90")


def check_not_negative(settings: object, *names: str) -> None:
    """Refuse settings that are negative, NaN or Inf, by a ConfigError; None is left alone."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not 0 <= value < np.inf:
            raise ConfigError(f"{name.replace('_', ' ')} of {value:g}: give 0 or more")


@dataclass(frozen=True)
class NetworkSettings:
    """How a road network is made; lengths in metres, or in pixels where the raster has no georeference.

    Attributes:
        threshold: probability from which a pixel is road.
        road_values: values of a mask that are road; None for all but 0.
        min_length: pieces of the network with less road in all are left out.
        min_width: roads that are narrower are left out.
        close_gaps: longest gap between dead ends facing each other that is closed.
        smooth: wiggles of the lines that are shorter than this are smoothed out, as far as the lines stay on the road;
            None for each road's own width, 24 pixels at least, 0 for none.
        simplify: farthest that simplified lines may be from the smoothed ones and outlines from the pixels'; None for
            one pixel, a quarter for smoothed lines.
        tile_px: rows and columns in memory at a time.
        halo_px: how far around a tile the map is read; roads up to half as wide are found as in one piece.
    """

    threshold: float = 0.5
    road_values: Sequence[int] | None = None
    min_length: float = 0.0
    min_width: float = 0.0
    close_gaps: float = 0.0
    simplify: float | None = None
    tile_px: int = 2048
    halo_px: int = 256
    smooth: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ConfigError(f"a threshold of {self.threshold:g}: give a probability between 0 and 1")
        check_not_negative(self, "min_length", "min_width", "close_gaps", "simplify", "smooth")
        if self.tile_px < 1 or self.halo_px < 8:
            raise ConfigError(f"tiles of {self.tile_px} px with a halo of {self.halo_px} px: give 1 and 8 or more")


@dataclass(frozen=True)
class RoadLayers:
    """A road network as three tables, in the coordinate reference system of its raster.

    Attributes:
        edges: centrelines: ``edge_id``, ``node_from``, ``node_to``, ``length_m``, ``width_median_m``,
            ``width_p10_m``, ``width_p90_m``, ``probability`` (mean along the line; only of a probability map) and
            ``closed_gap`` (put across a gap). ``_px`` in place of ``_m`` without georeference.
        nodes: ``node_id``, ``degree`` and ``kind``: ``end``, ``junction``, ``border`` (where the road leaves the
            raster, or what is valid of it), ``ring`` (where a closed ring begins) or ``joint`` (of two edges, one of
            which closes a gap, or at which a road was left out).
        surface: polygons of the road's pixels, with holes: ``area_m2``. Where short or narrow roads are left out,
            so are the polygons without a line.
        wide: places (x, y) on the map of tiles with road too wide for the halo, with that width in metres.
    """

    edges: gpd.GeoDataFrame
    nodes: gpd.GeoDataFrame
    surface: gpd.GeoDataFrame
    wide: tuple[tuple[float, float, float], ...] = ()

    def named(self) -> dict[str, gpd.GeoDataFrame]:
        """Return the tables by the names of their layers."""
        return {name: table for name, table in vars(self).items() if isinstance(table, gpd.GeoDataFrame)}


def extract_network(
    path: str,
    settings: NetworkSettings | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
    mask: str | None = None,
) -> RoadLayers:
    """Return the road network of a mask or a probability map.

    The raster at ``path``, of one band with classes or probabilities (see `RoadRaster`), is read by tiles; memory grows
    with the length of road only. ``progress`` is called with the tiles done and the tiles in all. A ``mask`` of the
    same pixels says what is road instead, such as one that was cleaned; the probabilities along the lines are still
    those at ``path``.

    Raises:
        DataError: the raster cannot be read, or is neither a mask nor a probability map; the mask has another size.
    """
    settings = settings or NetworkSettings()
    with ExitStack() as files:
        raster = files.enter_context(RoadRaster(path, settings.threshold, settings.road_values))
        roads = raster
        if mask is not None:
            roads = files.enter_context(RoadRaster(mask, settings.threshold, settings.road_values))
            if (roads.info.height, roads.info.width) != (raster.info.height, raster.info.width):
                raise DataError(f"{mask}: has another size than {path}; give the mask of that map")
        for source in (raster, roads):
            source.make_room(*(2 * [settings.tile_px + 2 * settings.halo_px]))
        frame = PixelFrame(raster.info)
        shape = raster.info.height, raster.info.width
        tiles = list(product(*(range(0, size, settings.tile_px) for size in shape)))
        counter = count(1)

        def done() -> None:
            progress(next(counter), 2 * len(tiles))

        def read(row: int, column: int, height: int, width: int) -> np.ndarray:
            return roads.road(*roads.values(row, column, height, width))

        centreline, wide = tiled_centreline(read, shape, tile_px=settings.tile_px, halo_px=settings.halo_px, done=done)
        lengths = settings.close_gaps, settings.smooth, settings.simplify
        close_gaps_px, smooth_px, simplify_px = (each and each / frame.pixel_size for each in lengths)
        graph = road_graph(
            centreline,
            close_gaps_px=close_gaps_px or 0,
            smooth_px=smooth_px,
            # what is smooth needs more points: straight lines between few of them lie on the inner side of its bends
            simplify_px=(1.0 if smooth_px == 0 else _SMOOTH_PX) if simplify_px is None else simplify_px,
        )
        _measure(graph, frame)
        _leave_out(graph, settings)
        graph = nx.convert_node_labels_to_integers(graph, ordering="sorted")
        look = _SecondLook(raster, roads, graph, settings.tile_px)
        areas = []
        for row, column in tiles:
            areas += look.at(row, column)
            done()
    return RoadLayers(
        _edges(graph, frame, look.probability if raster.is_probability else None),
        _nodes(graph, frame, look.cut),
        _surface(
            merged(areas, 1.0 if simplify_px is None else simplify_px),
            graph,
            frame,
            keep_all=not (settings.min_length or settings.min_width),
        ),
        tuple(
            (*frame.to_map(np.array([[column, row]], float))[0].tolist(), width_px * frame.pixel_size)
            for row, column, width_px in wide
        ),
    )


def _measure(graph: nx.MultiGraph, frame: PixelFrame) -> None:
    """Give each edge its ``metres`` along the line, and its widths in metres instead of pixels."""
    for *_, data in graph.edges(data=True):
        line = data["line"]
        data["metres"] = length(frame.to_metres(line))
        data["width_px"] = data["width_median"]
        # a strip of straight road keeps its area: where the pixels are not square its direction decides on its width
        area = float(frame.pixel_area(points_at(line, np.array([data["length"] / 2])))[0])
        factor = area * data["length"] / data["metres"] if data["metres"] else frame.pixel_size
        for name in _WIDTHS:
            data[name] *= factor


def _leave_out(graph: nx.MultiGraph, settings: NetworkSettings) -> None:
    """Remove what is narrower or, in all, shorter than wanted."""
    narrow = [edge for *edge, width in graph.edges(keys=True, data="width_median") if width < settings.min_width]
    graph.remove_edges_from(narrow)
    for piece in list(nx.connected_components(graph)):
        total = graph.subgraph(piece).size("metres")
        if total == 0 or total < settings.min_length:  # a speck has no line
            graph.remove_nodes_from(piece)


class _SecondLook:
    """What a second look shows, tile by tile: areas of the roads, probabilities on the lines, and cut roads."""

    def __init__(self, raster: RoadRaster, roads: RoadRaster, graph: nx.MultiGraph, tile_px: int) -> None:
        self._raster, self._roads, self._tile_px = raster, roads, tile_px
        keys, points = [np.empty(0, int)], [np.empty((0, 2))]
        for place, (*_, data) in enumerate(graph.edges(data=True)):
            points.append(points_at(data["line"], np.arange(0, data["length"] + 1)).round())
            keys.append(np.full(len(points[-1]), place))
        along = np.concatenate(points).astype(int)
        tile = self._tile_of(along[:, 0], along[:, 1])
        order = tile.argsort(kind="stable")
        self._points, self._edge, self._tile = along[order], np.concatenate(keys)[order], tile[order]
        self._sum = np.zeros(graph.number_of_edges())
        self._count = np.zeros(graph.number_of_edges())
        self._tips: dict[int, list[tuple[int, float, float, float]]] = {}
        for node in graph:
            if graph.degree(node) == 1:
                [(*_, width)] = graph.edges(node, data="width_px")
                x, y = graph.nodes[node]["x"], graph.nodes[node]["y"]
                tip = node, x, y, _BORDER_PX + width / 2
                self._tips.setdefault(int(self._tile_of(x, y)), []).append(tip)
        self.cut: set[int] = set()

    def _tile_of(self, x: Any, y: Any) -> Any:
        """Return the number of the tile, row by row, of a point or of each of many."""
        across = -(-self._raster.info.width // self._tile_px)
        return y // self._tile_px * across + x // self._tile_px

    @property
    def probability(self) -> np.ndarray:
        """Mean along each edge, nan where nothing is valid."""
        return np.divide(self._sum, self._count, out=np.full_like(self._sum, np.nan), where=self._count > 0)

    def at(self, row: int, column: int) -> list[shapely.Polygon]:
        """Look at the tile of a first pixel; return the outlines of its road in pixels, corners at whole numbers."""
        info = self._raster.info
        height, width = min(self._tile_px, info.height - row), min(self._tile_px, info.width - column)
        values, valid = self._raster.values(row, column, height, width)
        number = int(self._tile_of(column, row))
        here = slice(*np.searchsorted(self._tile, [number, number + 1]))
        x, y = self._points[here].T
        at = y - row, x - column
        counts = np.ones(len(x)) if valid is None else valid[at].astype(float)
        self._sum += np.bincount(self._edge[here], values[at] * counts, len(self._sum))
        self._count += np.bincount(self._edge[here], counts, len(self._count))
        for node, tip_x, tip_y, reach in self._tips.get(number, ()):
            if self._leaves(tip_x, tip_y, reach):
                self.cut.add(node)
        if self._roads is not self._raster:
            values, valid = self._roads.values(row, column, height, width)
        road = self._roads.road(values, valid)
        return traced_areas(road, row, column) if road.any() else []

    def _leaves(self, x: float, y: float, reach: float) -> bool:
        """Say whether a dead end is where the raster, or what is valid of it, ends."""
        info = self._raster.info
        if x < 1 or y < 1 or x > info.width - 2 or y > info.height - 2:
            return True
        if not info.may_have_holes and not info.dtype.startswith("float"):
            return False
        top, left = max(int(y - reach), 0), max(int(x - reach), 0)
        bottom, right = min(int(y + reach) + 2, info.height), min(int(x + reach) + 2, info.width)
        _, valid = self._raster.read(top, left, bottom - top, right - left)
        return valid is not None


def _edges(graph: nx.MultiGraph, frame: PixelFrame, probability: np.ndarray | None) -> gpd.GeoDataFrame:
    rows = list(graph.edges(data=True))
    columns: dict[str, object] = {
        "edge_id": np.arange(len(rows)),
        "node_from": np.array([min(u, v) for u, v, _ in rows], np.int64),
        "node_to": np.array([max(u, v) for u, v, _ in rows], np.int64),
        f"length_{frame.unit}": np.array([data["metres"] for *_, data in rows], float),
    }
    for name in _WIDTHS:
        columns[f"{name}_{frame.unit}"] = np.array([data[name] for *_, data in rows], float)
    if probability is not None:
        columns["probability"] = probability
    columns["closed_gap"] = np.array([data.get("closed_gap", False) for *_, data in rows], bool)
    lines = [shapely.LineString(frame.to_map(data["line"])) for *_, data in rows]
    return gpd.GeoDataFrame(columns, geometry=gpd.GeoSeries(lines, crs=frame.crs), crs=frame.crs)


def _nodes(graph: nx.MultiGraph, frame: PixelFrame, cut: set[int]) -> gpd.GeoDataFrame:
    nodes = list(graph)
    places = np.array([(graph.nodes[node]["x"], graph.nodes[node]["y"]) for node in nodes], float).reshape(-1, 2)
    columns = {
        "node_id": np.array(nodes, np.int64),
        "degree": np.array([graph.degree(node) for node in nodes], np.int64),
        "kind": np.array([_kind(graph, node, cut) for node in nodes], str),
    }
    points = gpd.GeoSeries(list(shapely.points(frame.to_map(places))), crs=frame.crs)
    return gpd.GeoDataFrame(columns, geometry=points, crs=frame.crs)


def _kind(graph: nx.MultiGraph, node: int, cut: set[int]) -> str:
    if node in cut:
        return "border"
    if graph.degree(node) == 2:
        return "ring" if graph.has_edge(node, node) else "joint"
    return "junction" if graph.degree(node) > 2 else "end"


def _surface(areas: list[shapely.Polygon], graph: nx.MultiGraph, frame: PixelFrame, keep_all: bool) -> gpd.GeoDataFrame:
    """Return the table of areas in pixels; those without a line too if ``keep_all`` is set."""
    if not keep_all:
        lines = [shapely.LineString(line + 0.5) for *_, line in graph.edges(data="line")]
        with_road, _ = shapely.STRtree(lines).query(areas, predicate="intersects")
        areas = [areas[place] for place in np.unique(with_road)]
    to_map, to_metres = (
        [shapely.transform(area, lambda xy, move=move: move(xy - 0.5)) for area in areas]
        for move in (frame.to_map, frame.to_metres)
    )
    columns = {f"area_{frame.unit}2": shapely.area(to_metres) if to_metres else np.empty(0)}
    return gpd.GeoDataFrame(columns, geometry=gpd.GeoSeries(to_map, crs=frame.crs), crs=frame.crs)


class RoadRaster(RasterSource):
    """A raster of one band, of classes or of road probabilities; what is road in it is as in `NetworkSettings`.

    Attributes:
        is_probability: whether it holds probabilities: floats, or integers with a scale, as `tools/predict.py` writes,
            or an offset (`RasterInfo.holds_reals`).

    Raises:
        DataError: unreadable, or of several bands.
    """

    def __init__(self, path: str, threshold: float = 0.5, road_values: Sequence[int] | None = None) -> None:
        super().__init__(path)
        if self.info.bands != 1:
            self.close()
            raise DataError(f"{path}: has {self.info.bands} bands; give a mask or a probability map, which has one")
        self.is_probability = self.info.holds_reals
        self._threshold, self._road_values = threshold, road_values

    def values(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the values (h, w) of a window, probabilities scaled, and what is valid (h, w), None for all.

        Raises:
            DataError: truncated or damaged there, or values outside 0 to 1.
        """
        values, valid = self.read(row, column, height, width)
        found = values[:, :, 0]
        if self.is_probability:
            found = self.info.as_reals(found.astype(np.float32))
            if valid is not None:
                found[~valid] = 0
            if found.size and (found.min() < -0.001 or found.max() > 1.001):
                raise DataError(
                    f"{self.info.path}: holds {found.min():g} to {found.max():g}, which are no probabilities; "
                    "give values from 0 to 1, or a mask of whole numbers"
                )
        return found, valid

    def road(self, values: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
        """Return the road pixels (h, w), bool, of what `values` returned."""
        if self.is_probability:
            road = values >= self._threshold
        elif self._road_values is None:
            road = values != 0
        else:
            road = np.isin(values, self._road_values)
        return road if valid is None else road & valid
