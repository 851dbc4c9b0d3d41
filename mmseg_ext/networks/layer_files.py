"""Layers as files: GeoPackage, GeoJSON, GeoParquet."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import geopandas as gpd
import pyogrio

from ..errors import ConfigError, lazy_import
from ..files import complete_file

LAYER_SUFFIXES = (".gpkg", ".geojson", ".parquet")
_WGS84 = "EPSG:4326"
# said for empty layers, which do not show it
_KINDS = dict(edges="LineString", nodes="Point", surface="Polygon", changes="LineString", grades="LineString")
_UNPLACED = "GeoJSON is in WGS 84, but the map has no coordinate reference system; write .gpkg instead"
_DEGREES = 9  # digits: a tenth of a millimetre


def layer_files(path: str, names: Sequence[str]) -> dict[str, str]:
    """Return the file of each layer: ``path`` for all in a GeoPackage, else ``NAME_LAYER`` with the suffix of ``path``.

    Raises:
        ConfigError: the suffix is none of `LAYER_SUFFIXES`.
    """
    stem, suffix = os.path.splitext(path)
    if suffix not in LAYER_SUFFIXES:
        raise ConfigError(f"{path}: the suffix says the format; give one of {', '.join(LAYER_SUFFIXES)}")
    return {name: path if suffix == ".gpkg" else f"{stem}_{name}{suffix}" for name in names}


def check_layer_files(path: str, names: Sequence[str], overwrite: bool, placed: bool = True) -> None:
    """Refuse, before the work, what could not be written after it.

    Args:
        path: where; the suffix says the format, see `layer_files`.
        names: of the layers.
        overwrite: whether files that are there are replaced.
        placed: whether the layers will have a coordinate reference system.

    Raises:
        ConfigError: another suffix, a file is there already and ``overwrite`` is not set, or GeoJSON of what has no
            coordinate reference system.
        MissingExtraError: GeoParquet needs pyarrow.
    """
    for file in set(layer_files(path, names).values()):
        if os.path.exists(file) and not overwrite:
            raise ConfigError(f"{file}: is there already; give --overwrite, or another --out")
    if path.endswith(".parquet"):
        lazy_import("pyarrow", "gis", "GeoParquet")
    if path.endswith(".geojson") and not placed:
        raise ConfigError(_UNPLACED)


def write_layers(path: str, layers: Mapping[str, gpd.GeoDataFrame]) -> list[str]:
    """Write layers, each file complete or not at all; GeoJSON in WGS 84, as RFC 7946 wants it.

    Args:
        path: where; the suffix says the format, see `layer_files`.
        layers: tables by the names of their layers.

    Returns:
        the files written.

    Raises:
        ConfigError: the disk or the suffix is against it, or GeoJSON of a map without coordinate reference system.
    """
    files = layer_files(path, list(layers))
    if path.endswith(".gpkg"):
        with complete_file(path) as unfinished:
            _write_with_suffix(unfinished, partial(_geopackage, layers=layers), ".gpkg")
        return [path]
    for name, table in layers.items():
        with complete_file(files[name]) as unfinished:
            if path.endswith(".parquet"):
                options = dict(compression="zstd", schema_version="1.1.0", write_covering_bbox=True)
                table.to_parquet(unfinished, index=False, **options)
            else:
                _write_with_suffix(unfinished, partial(_geojson, table=table, name=name), ".geojson")
    return list(files.values())


def _write_with_suffix(unfinished: str, write: Callable[[str], None], suffix: str) -> None:
    """Call ``write`` with a name that has a suffix, as GDAL wants it, then move the file to ``unfinished``."""
    named = unfinished + suffix
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*CRS.*")  # where there is none, the user was told
            write(named)
        os.replace(named, unfinished)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.FeatureError, RuntimeError) as error:
        raise OSError(f"GDAL: {error}") from None
    finally:
        for leftover in (named, named + "-journal"):
            if os.path.exists(leftover):
                os.remove(leftover)


def _geopackage(file: str, layers: Mapping[str, gpd.GeoDataFrame]) -> None:
    for name, table in layers.items():
        kind = None if len(table) else _KINDS.get(name)
        pyogrio.write_dataframe(table, file, layer=name, driver="GPKG", geometry_type=kind)


def _geojson(file: str, table: gpd.GeoDataFrame, name: str) -> None:
    if table.crs is None:
        raise ConfigError(_UNPLACED)
    options = dict(driver="GeoJSON", RFC7946="YES", COORDINATE_PRECISION=_DEGREES)
    pyogrio.write_dataframe(table.to_crs(_WGS84), file, layer=name, **options)
