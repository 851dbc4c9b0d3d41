"""Vectors: lines and polygons of any GIS format, onto the pixels of a raster, and pixels to outlines."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError, LazyModule
from ..tiling import windows
from .metric import check_same_ground, metric_of, reprojected, same_map, warp
from .raster import RasterInfo, Transform, Window, rasterio, transform_at
from .sources import is_remote

_PURPOSE = "vector data"
shapely = LazyModule("shapely", None, _PURPOSE)
pyogrio = LazyModule("pyogrio", None, _PURPOSE)
features = LazyModule("rasterio.features", None, _PURPOSE)
_gdal = LazyModule("rasterio._err", None, _PURPOSE)

NO_LINES = "{}: has no lines; give road lines, such as those of tools/extract_network.py"
VECTOR_SUFFIXES = (".geojson", ".json", ".gpkg", ".shp", ".fgb")
_NAMED_FEATURES = 5
_AROUND = 0.05  # of an extent
_PARTS = 100  # of the diagonal of an extent: a straight line is a curve on another map
_LOOK_PX = 1024
_KEPT_CHARACTERS = 10  # of the name of a field in a Shapefile
_UNDEFINED = ("Undefined Cartesian SRS", "Undefined geographic SRS")  # how a GeoPackage says that there is none
logger = logging.getLogger(__name__)


class FileLines(NamedTuple):
    """The ``lines`` of a vector file, map (x, y), (N, 2) each; ``crs`` as an authority code or WKT, None without."""

    lines: list[np.ndarray]
    crs: str | None


def read_lines(source: str) -> FileLines:
    """Return the lines of a vector file (GeoJSON, GeoPackage, Shapefile, ...), read as by `read_layer`.

    The layer is that of `lines_layer`; areas in it are skipped.

    Raises:
        DataError: as of `read_layer`, or areas but no lines in it.
    """
    path, chosen = file_and_layer(source)
    layer = _read(source, path, lines_layer(source, chosen, layers_of(path)), ())
    if len(layer.shapes) and not layer.are_lines.any():
        raise DataError(NO_LINES.format(source))
    return FileLines([shapely.get_coordinates(line) for line in layer.shapes[layer.are_lines]], layer.crs)


@dataclass(frozen=True)
class VectorLayer:
    """The lines and polygons of one layer of a vector file, all valid, those of several parts taken apart.

    Attributes:
        path: the file, with ``:layer`` where one was chosen.
        shapes: shapely LineStrings and Polygons (N,), x and y.
        crs: coordinate reference system as an authority code or WKT, None without.
        fields: values (N,) of the fields that were asked for.
        fids: the file's own number (N,) of the feature that each shape is of.
    """

    path: str
    shapes: np.ndarray
    crs: str | None
    fields: dict[str, np.ndarray]
    fids: np.ndarray

    @property
    def are_lines(self) -> np.ndarray:
        """Whether each shape is a line, bool (N,)."""
        return shapely.get_dimensions(self.shapes) == 1


def read_layer(source: str, fields: Sequence[str] = ()) -> VectorLayer:
    """Return the lines and polygons of a layer, ``file`` or ``file:layer``, with some ``fields``; points are skipped.

    Curves become lines with a vertex every four degrees. Invalid geometries are repaired, or left out where nothing
    remains of them; the log names both. A field may have the name that a Shapefile leaves of it, see `field_of`.

    Raises:
        DataError: missing or unreadable, no such layer or field, several layers and none chosen, or a coordinate
            reference system of degrees for what are none.
    """
    path, chosen = file_and_layer(source)
    return _read(source, path, one_layer(source, chosen, layers_of(path)), fields)


def _read(source: str, path: str, layer: str, fields: Sequence[str]) -> VectorLayer:
    try:
        known = pyogrio.read_info(path, layer=layer)["fields"]
        stored = {name: field_of(name, known) for name in fields}
        for name, own in stored.items():
            if own is None:
                raise DataError(f"{source}: has no field {name}; it has {', '.join(known) or 'none'}")
        meta, fids, raw, values = pyogrio.raw.read(
            path, layer=layer, columns=list(stored.values()), force_2d=True, return_fids=True
        )
    except (RuntimeError, ValueError):
        raise unreadable(source) from None
    shapes, index = valid_parts(source, shapely.from_wkb(raw, on_invalid="fix"), fids)
    crs = meta["crs"] if states_crs(meta["crs"]) else None
    check_degrees(source, shapes, crs)
    columns = dict(zip(meta["fields"], values, strict=True))
    return VectorLayer(source, shapes, crs, {name: columns[own][index] for name, own in stored.items()}, fids[index])


def unreadable(source: str) -> DataError:
    """Return what to raise where no vectors can be read."""
    return DataError(f"{source}: cannot be read as vector data; replace it or take it out")


def states_crs(crs: Any) -> bool:
    """Return whether a file says in which coordinate reference system it is; in a GeoPackage it may be undefined."""
    return crs is not None and not any(name in str(crs) for name in _UNDEFINED)


def field_of(name: str, fields: Iterable[str]) -> str | None:
    """Return the one of ``fields`` with this ``name``, or with the 10 characters of it that a Shapefile keeps, or None.

    Of names that begin alike, it renames one to end in ``_1``; these cannot be told apart.
    """
    known = set(fields)
    cut = name[:_KEPT_CHARACTERS]
    if name in known:
        return name
    return cut if cut in known and f"{cut[:-2]}_1" not in known else None


def read_areas(source: str) -> VectorLayer:
    """Return the polygons of a layer, as `read_layer` does.

    Raises:
        DataError: as of `read_layer`, or there are lines in it, or nothing.
    """
    layer = read_layer(source)
    check_areas(source, layer.shapes)
    return layer


def check_degrees(source: str, shapes: np.ndarray, crs: str | None) -> None:
    """Refuse, by a DataError, ``shapes`` (N,) that lie nowhere on the globe though their ``crs`` is in degrees."""
    if len(shapes) and crs is not None and rasterio.crs.CRS.from_user_input(crs).is_geographic:
        bounds = shapely.bounds(shapes)
        x, y = np.abs(bounds).reshape(-1, 2, 2).max(axis=(0, 1))
        if x > 360 or y > 90:
            raise DataError(
                f"{source}: is said to be in degrees ({crs[:40]}) but reaches to {max(x, y):.0f}; set the "
                "right coordinate reference system"
            )


def check_areas(source: str, shapes: np.ndarray) -> None:
    """Refuse, by a DataError, ``shapes`` (N,) that are not all polygons, or none at all."""
    if not len(shapes) or (shapely.get_dimensions(shapes) == 1).any():
        found = "lines" if len(shapes) else "none"
        raise DataError(f"{source}: areas are polygons, it has {found}; give another")


def file_of(source: str) -> str:
    """Return the file that ``source`` names, ``file`` or ``file:layer``, even if it is not there."""
    return source if is_remote(source) or os.path.exists(source) else source.rpartition(":")[0] or source


def file_and_layer(source: str) -> tuple[str, str | None]:
    """Return the file that ``source`` names, and the layer if it is ``file:layer``.

    Raises:
        DataError: there is no such file.
    """
    path = file_of(source)
    if not os.path.exists(path):
        raise DataError(f"{source}: no such file")
    return path, None if path == source else source[len(path) + 1 :]


def layers_of(path: str) -> list[tuple[str, str | None]]:
    """Return the names of a file's layers and the kinds of their geometries, None without; curves count as lines."""
    try:
        return [(name, kind) for name, kind in pyogrio.list_layers(path)]
    except (RuntimeError, ValueError):
        raise unreadable(path) from None


def lines_layer(source: str, chosen: str | None, layers: Sequence[tuple[str, str | None]]) -> str:
    """Return the layer that is chosen, else the layer ``edges``, else the only one of lines; errors as `one_layer`."""
    if chosen is None:
        chosen = "edges" if "edges" in [name for name, _ in layers] else None
        layers = [(name, kind) for name, kind in layers if "Polygon" not in (kind or "")] or layers
    return one_layer(source, chosen, layers)


def one_layer(source: str, chosen: str | None, layers: Sequence[tuple[str, str | None]]) -> str:
    """Return the layer of ``layers``, (name, kind of geometry), that is chosen or the only one of lines or polygons.

    Raises:
        DataError: it is not there or there twice, or none is chosen of several.
    """
    names = [name for name, kind in layers if kind is not None and "Point" not in kind]
    twice = [name for name, count in Counter(names).items() if count > 1 and chosen in (None, name)]
    if twice:
        raise DataError(f"{source}: has two layers of the name {twice[0]}; rename one")
    if chosen is not None:
        if chosen not in names:
            raise DataError(f"{source}: has no such layer of lines or polygons; it has {', '.join(names) or 'none'}")
        return chosen
    if len(names) != 1:
        found = f"has the layers {', '.join(names)}; choose one as {source}:{names[0]}" if names else None
        raise DataError(f"{source}: {found or 'has no layer of lines or polygons; replace it'}")
    return names[0]


def valid_parts(source: str, shapes: np.ndarray, fids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lines and polygons that ``shapes`` (N,) are made of, repaired, and which shape each is of.

    The log names by their ``fids`` (N,) in the ``source`` those that are repaired, and those of which nothing is left.
    """
    count = len(shapes)
    shapes, owner = _out_of_collections(shapes)
    dimension = shapely.get_dimensions(shapes)
    finite = np.isfinite(shapely.bounds(shapes)).all(axis=1)
    broken = finite & ~shapely.is_valid(shapes)
    shapes[broken] = shapely.make_valid(shapes[broken], method="structure", keep_collapsed=False)
    parts, index = shapely.get_parts(shapes, return_index=True)
    kept = (shapely.get_dimensions(parts) == dimension[index]) & ~shapely.is_empty(parts) & finite[index]
    parts, index = parts[kept & (dimension[index] > 0)], index[kept & (dimension[index] > 0)]
    index = owner[index]
    left, repaired = (np.isin(np.arange(count), which) for which in (index, owner[broken]))
    for which, words in (
        (repaired & left, "invalid geometries are repaired"),
        (~left, "geometries are left out, they are empty, points, damaged or of an unreadable kind"),
    ):
        if which.any():
            named = ", ".join(map(str, fids[which][:_NAMED_FEATURES]))
            more = ", ..." if which.sum() > _NAMED_FEATURES else ""
            logger.warning("%s: %d %s (features %s%s)", source, which.sum(), words, named, more)
    return parts, index


def _out_of_collections(shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``shapes`` (N,) with what GeometryCollections hold in their place, and which shape each is (of).

    One that holds a curve, which shapely cannot take apart, is empty.
    """
    owner = np.arange(len(shapes))
    while (collections := shapely.get_type_id(shapes) == shapely.GeometryType.GEOMETRYCOLLECTION).any():
        parts = [
            _parts(shape) if collection else [shape] for shape, collection in zip(shapes, collections, strict=True)
        ]
        owner = np.repeat(owner, [len(some) for some in parts])
        shapes = np.array([part for some in parts for part in some], object)
    return shapes.copy(), owner


def _parts(collection: Any) -> Sequence:
    try:
        return shapely.get_parts(collection)
    except NotImplementedError:
        return []


def outline(raster: RasterInfo, crs: str | None) -> Any:
    """Return the outline of a georeferenced raster as a polygon in ``crs``, with 50 points on each side."""
    assert raster.transform is not None
    to_map = rasterio.Affine(*raster.transform) @ rasterio.Affine.scale(raster.width, raster.height)
    square = shapely.segmentize(shapely.box(0, 0, 1, 1), 1 / 50)
    shape = shapely.transform(square, lambda points: np.stack(to_map @ points.T, axis=1))
    return _reprojected_shape(shape, raster.crs, crs)


def _reprojected_shape(shape: Any, crs: str | None, target: str | None) -> Any:
    return shapely.transform(shape, lambda points: reprojected([points], crs, target)[0])


def placed(
    layer: VectorLayer, crs: str | None, extent: tuple[float, float, float, float], name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the shapes (K,) of ``layer`` that may lie in an ``extent`` of the map ``crs``, on it, and which (K,).

    Others are not brought to that map, nor is what is far from the ``extent`` (left, bottom, right, top): the map may
    be none there. An edge stays as straight as it is on the layer's own map.

    Raises:
        DataError: they cannot be brought there; calls what has that map by its ``name``.
    """
    check_same_ground(layer.path, layer.crs, name, crs)
    same = same_map(layer.crs, crs)
    try:
        spans = [extent] if same else _spans(extent, crs, layer.crs)
        bounds = shapely.bounds(layer.shapes)
        reached = [(bounds[:, :2] <= span[2:]).all(axis=1) & (bounds[:, 2:] >= span[:2]).all(axis=1) for span in spans]
        which = np.flatnonzero(np.any(reached, axis=0))
        shapes = layer.shapes[which]
        if same:
            return shapes, which
        sides = np.subtract(spans[0][2:], spans[0][:2])
        near = shapely.union_all([shapely.box(*(s[:2] - _AROUND * sides), *(s[2:] + _AROUND * sides)) for s in spans])
        shapes = shapely.segmentize(shapely.intersection(shapes, near), np.hypot(*sides) / _PARTS)
        return shapely.transform(shapes, lambda points: reprojected([points], layer.crs, crs)[0]), which
    except _gdal.CPLE_BaseError:
        raise DataError(
            f"{layer.path}: cannot be brought onto the images' map ({str(crs)[:40]}); check its coordinates"
        ) from None


def _spans(
    extent: tuple[float, float, float, float], crs: str | None, target: str | None
) -> list[tuple[float, float, float, float]]:
    """Return where an ``extent`` lies on the map ``target``; in degrees it may be written a turn further, too."""
    left, bottom, right, top = warp.transform_bounds(crs, target, *extent)
    if not rasterio.crs.CRS.from_user_input(target).is_geographic:
        return [(left, bottom, right, top)]
    right += 360 * (right < left)  # across the 180th meridian
    return [(left + turn, bottom, right + turn, top) for turn in (-360, 0, 360)]


class Areas:
    """Polygons (N,) on a map, found by place, each with a label (N,); 1 for all without."""

    def __init__(self, shapes: np.ndarray, labels: np.ndarray | None = None) -> None:
        self._shapes, self._labels = shapes, np.ones(len(shapes), np.uint8) if labels is None else labels
        self._tree = shapely.STRtree(shapes)

    def _found(self, transform: Transform, height: int, width: int) -> np.ndarray:
        """Return which polygons meet the pixels of `burn`."""
        corners = shapely.linearrings([(0, 0), (width, 0), (width, height), (0, height)])
        to_map = rasterio.Affine(*transform)
        ground = shapely.transform(corners, lambda points: np.stack(to_map @ points.T, axis=1))
        return np.sort(self._tree.query(shapely.polygons(ground), predicate="intersects"))

    def meet(self, transform: Transform, height: int, width: int) -> bool:
        """Return whether a polygon meets the pixels of `burn`."""
        return len(self._found(transform, height, width)) > 0

    def burn(self, transform: Transform, height: int, width: int) -> np.ndarray:
        """Return the label of each pixel (H, W) uint8 by its centre, 0 outside; the last polygon counts.

        The ``transform`` is from pixels to the map, as in `RasterInfo`.
        """
        found, burnt = self._found(transform, height, width), np.zeros((height, width), np.uint8)
        if len(found):
            shapes = zip(self._shapes[found], self._labels[found], strict=True)
            features.rasterize(shapes, out=burnt, transform=rasterio.Affine(*transform))
        return burnt


class RasterArea:
    """The polygons of a ``layer`` on the pixels of a ``raster``, which count by their centres.

    Attributes:
        window: (row, column, height, width) of the raster that holds them; None where they hold no pixel of it.

    Raises:
        DataError: the raster has no georeference, or the polygons cannot be brought to its map.
    """

    def __init__(self, layer: VectorLayer, raster: RasterInfo) -> None:
        if raster.transform is None:
            raise DataError(f"{raster.path}: has no georeference, so {layer.path} cannot be placed on it; add one")
        to_map = rasterio.Affine(*raster.transform)
        if to_map.is_degenerate:
            raise DataError(f"{raster.path}: its georeference is degenerate; give it another")
        self._transform = raster.transform
        self._shapes, _ = placed(layer, raster.crs, outline(raster, raster.crs).bounds, raster.path)
        self._areas = Areas(self._shapes)
        self.window = self._window(raster.height, raster.width, ~to_map)

    def _window(self, height: int, width: int, to_pixels: Any) -> Window | None:
        points = shapely.get_coordinates(self._shapes)
        if not len(points):
            return None
        x, y = to_pixels @ points.T
        # centres are half a pixel away from what rounding may move
        left, right = (int(np.clip(np.rint(value), 0, width)) for value in (x.min() - 0.49, x.max() + 0.49))
        top, bottom = (int(np.clip(np.rint(value), 0, height)) for value in (y.min() - 0.49, y.max() + 0.49))
        window = top, left, bottom - top, right - left
        if not window[2] * window[3]:
            return None
        parts = ((top + part[0], left + part[1], *part[2:]) for part in windows(*window[2:], _LOOK_PX, None))
        return window if any(self.inside(*part).any() for part in parts) else None

    @property
    def digest(self) -> str:
        """What tells this area from others, the same while its polygons near the raster are."""
        x, y = np.hypot(*np.reshape(self._transform, (2, 3))[:, :2])
        rounded = shapely.transform(self._shapes, lambda points: np.rint(points / (x, y) * 1000))
        return hashlib.sha256(b"".join(shapely.to_wkb(rounded))).hexdigest()

    def meets(self, row: int, column: int, height: int, width: int) -> bool:
        """Return whether a polygon meets a window of the raster, be it where no pixel has its centre."""
        return self._areas.meet(transform_at(self._transform, row, column), height, width)

    def inside(self, row: int, column: int, height: int, width: int) -> np.ndarray:
        """Return the pixels of a window (height, width) bool that lie in the polygons."""
        return self._areas.burn(transform_at(self._transform, row, column), height, width) > 0


def clipped(lines: Sequence[np.ndarray], raster: RasterInfo, crs: str | None) -> list[np.ndarray]:
    """Return the parts of ``lines``, (x, y) in ``crs``, (N, 2) each, that lie on the ground of a ``raster``."""
    ground = outline(raster, crs)
    parts = shapely.get_parts(shapely.intersection([shapely.LineString(line) for line in lines], ground))
    return [shapely.get_coordinates(part) for part in parts if part.geom_type == "LineString" and not part.is_empty]


def joined(lines: Sequence[np.ndarray], tolerance: float) -> list[np.ndarray]:
    """Return ``lines``, (N, 2) each, with a vertex where the end of another line lies on them.

    People draw side roads that end on a through road which has no vertex there. An end joins a line up to the
    ``tolerance`` away, in the lines' (metric) unit.
    """
    shapes = [shapely.LineString(line) for line in lines]
    ends = [shapely.Point(line[i]) for line in lines for i in (0, -1)]
    touches: dict[int, list[tuple[float, np.ndarray]]] = {}
    for end, line in zip(*shapely.STRtree(shapes).query(ends, "dwithin", distance=tolerance), strict=True):
        point = shapely.get_coordinates(ends[end])[0]
        if np.hypot(*(lines[line] - point).T).min() > tolerance:  # it has no vertex there
            touches.setdefault(int(line), []).append((shapes[line].project(ends[end]), point))
    return [_with_vertices(line, touches[i]) if i in touches else line for i, line in enumerate(lines)]


def _with_vertices(line: np.ndarray, touches: Sequence[tuple[float, np.ndarray]]) -> np.ndarray:
    """Return ``line`` (N, 2) with a point more at each (distance from its start, point)."""
    own = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    along = np.concatenate([own, [distance for distance, _ in touches]])
    return np.concatenate([line, [point for _, point in touches]])[np.argsort(along, kind="stable")]


def burn_lines(path: str, grid: RasterInfo, width_m: float, window: Window | None = None) -> np.ndarray:
    """Return the centrelines of a vector file as road areas on a raster's pixels.

    Lines are widened to ``width_m``, measured at their first point as `metric_of` says; without a coordinate reference
    system they are in that of the raster, ``grid``. Areas beside lines are skipped, see `read_lines`.

    Returns:
        uint8 (H, W) of the raster or its ``window``: 1 where the pixel's centre lies within half the width of a line.

    Raises:
        DataError: unreadable, the raster has no georeference, or there is no way between their maps.
    """
    if grid.transform is None:
        raise DataError(f"{grid.path}: has no georeference, so the lines of {path} cannot be placed; add one")
    row, column, height, width = window or (0, 0, grid.height, grid.width)
    found = read_lines(path)
    if not found.lines:
        return np.zeros((height, width), np.uint8)
    crs = found.crs or grid.crs
    check_same_ground(path, crs, grid.path, grid.crs)
    metric, unit_m = metric_of(crs, found.lines[0][0], path)
    areas = [
        _reprojected_shape(shapely.LineString(line).buffer(width_m / 2 / unit_m), metric, grid.crs)
        for line in reprojected(found.lines, crs, metric)
    ]
    transform = rasterio.Affine(*transform_at(grid.transform, row, column))
    return features.rasterize(areas, (height, width), transform=transform, default_value=1, dtype=np.uint8)


def traced_areas(road: np.ndarray, row: int = 0, column: int = 0) -> list:
    """Return the outlines of ``road`` pixels, bool (h, w), of the window that begins at ``row`` and ``column``.

    They are shapely polygons with holes along the pixels' edges, in pixels: x the column and y the row, whole numbers
    at the pixels' corners. Pixels that touch at a corner only are in two polygons.
    """
    place = rasterio.Affine.translation(column, row)
    found = features.shapes(road.astype(np.uint8), mask=road, connectivity=4, transform=place)
    return [shapely.Polygon(rings[0], rings[1:]) for rings in (shape["coordinates"] for shape, _ in found)]


def merged(areas: Sequence, tolerance: float) -> list:
    """Return one polygon for all shapely ``areas`` that share an edge, none overlapping, simplified.

    They are in the order of the rows and columns, y and x, where they begin. An outline moves by the ``tolerance`` at
    most, in the areas' unit.
    """
    if not areas:
        return []
    whole = shapely.get_parts(shapely.disjoint_subset_union_all(np.array(areas, object)))
    corners = shapely.simplify(shapely.normalize(whole), 0)  # the same, of however many parts it was made
    left, first, *_ = shapely.bounds(corners).T
    order = sorted(range(len(corners)), key=lambda i: (first[i], left[i], corners[i].wkb))
    return list(shapely.simplify(corners[order], tolerance, preserve_topology=True))
