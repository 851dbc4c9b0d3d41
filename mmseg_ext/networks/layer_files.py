"""Layers as files: GeoPackage, GeoJSON, GeoParquet. A new format is a function here and a line in `_WRITERS`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import geopandas as gpd
import pyogrio

from ..errors import ConfigError, lazy_import
from ..files import complete_file
from ..geo import is_placed

_WGS84 = "EPSG:4326"
# said for empty layers, which do not show it
_KINDS = dict(edges="LineString", nodes="Point", surface="Polygon", changes="LineString", grades="LineString")
_UNPLACED = (
    "GeoJSON is in WGS 84, but the map has no coordinate reference system or is a local grid, so its place on Earth is "
    "not known; write .gpkg instead"
)
_DEGREES = 9  # digits: a tenth of a millimetre


def _geopackage(file: str, layers: Mapping[str, gpd.GeoDataFrame]) -> None:
    for name, table in layers.items():
        kind = None if len(table) else _KINDS.get(name)
        pyogrio.write_dataframe(table, file, layer=name, driver="GPKG", geometry_type=kind)


def _geojson(file: str, layers: Mapping[str, gpd.GeoDataFrame]) -> None:
    options = dict(driver="GeoJSON", RFC7946="YES", COORDINATE_PRECISION=_DEGREES)
    for name, table in layers.items():
        pyogrio.write_dataframe(table.to_crs(_WGS84), file, layer=name, **options)


def _geoparquet(file: str, layers: Mapping[str, gpd.GeoDataFrame]) -> None:
    for table in layers.values():
        table.to_parquet(file, index=False, compression="zstd", schema_version="1.1.0", write_covering_bbox=True)


# each writes one layer, a GeoPackage all
_WRITERS = {".gpkg": _geopackage, ".geojson": _geojson, ".parquet": _geoparquet}


def layer_files(path: str, names: Sequence[str]) -> dict[str, str]:
    """Return the file of each layer: ``path`` for all in a GeoPackage, else ``NAME_LAYER`` with the suffix of ``path``.

    Raises:
        ConfigError: the suffix is not one of `_WRITERS`.
    """
    stem, suffix = os.path.splitext(path)
    if suffix not in _WRITERS:
        raise ConfigError(f"{path}: the suffix says the format; give one of {', '.join(_WRITERS)}")
    return {name: path if suffix == ".gpkg" else f"{stem}_{name}{suffix}" for name in names}


def check_layer_files(path: str, names: Sequence[str], overwrite: bool, placed: bool = True) -> None:
    """Refuse, before the work, what could not be written after it; layers are ``placed`` as `is_placed` says.

    Raises:
        ConfigError: another suffix, a file is there already and ``overwrite`` is not set, or GeoJSON of what is not
            ``placed``.
        MissingExtraError: GeoParquet needs pyarrow.
    """
    for file in set(layer_files(path, names).values()):
        if os.path.exists(file) and not overwrite:
            raise ConfigError(f"{file}: is there already; give --overwrite, or another --out")
    if path.endswith(".parquet"):
        lazy_import("pyarrow", "parquet", "GeoParquet")
    if path.endswith(".geojson") and not placed:
        raise ConfigError(_UNPLACED)


def write_layers(path: str, layers: Mapping[str, gpd.GeoDataFrame]) -> list[str]:
    """Write layers by name, each file complete or not at all, and return the files; ``path`` as of `layer_files`.

    GeoJSON is in WGS 84, as RFC 7946 wants it.

    Raises:
        ConfigError: a file cannot be written, the suffix is not one of `_WRITERS`, or GeoJSON of a map that is not
            placed, as `is_placed` says.
    """
    files = layer_files(path, list(layers))
    suffix = os.path.splitext(path)[1]
    if suffix == ".geojson" and not all(is_placed(table.crs) for table in layers.values()):
        raise ConfigError(_UNPLACED)
    written = list(dict.fromkeys(files.values()))
    for file in written:
        with complete_file(file) as unfinished, _gdal_errors():
            _WRITERS[suffix](unfinished, {name: table for name, table in layers.items() if files[name] == file})
    return written


@contextmanager
def _gdal_errors() -> Iterator[None]:
    """Turn what GDAL raises into an OSError, which `complete_file` reports."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*CRS.*")  # where it is missing, the user was warned
            yield
    except (pyogrio.errors.DataSourceError, pyogrio.errors.FeatureError, RuntimeError) as error:
        raise OSError(f"GDAL: {error}") from None
