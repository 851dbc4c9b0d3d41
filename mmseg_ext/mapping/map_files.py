"""The files of a map: the rasters to map, finished strips that a killed run left, and the maps, preview and record."""

from __future__ import annotations

import glob
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path

import cv2
import numpy as np

from ..errors import ConfigError, DataError
from ..files import complete_file, is_hidden, write_text, writing
from ..geo import RasterArea, RasterSource, is_remote, public_name, result_name, write_cog
from ..imagery.reading import ImageReading, rgb_of
from ..imagery.voc import IMAGE_SUFFIXES, list_files
from ..report.pictures import paint_labels, save_picture
from ..report.qgis_style import write_qgis_probability_style, write_qgis_style, write_qgis_uncertainty_style
from ..runtime.facts import NetworkFacts
from ..tiling import even_parts
from .cleaning import Cleaning

RASTER_SUFFIXES = (*IMAGE_SUFFIXES, ".vrt", ".jp2", ".img")
NODATA = 255
PROBABILITY_STEPS = 250
_PREVIEW_PX = 2048
_READ_PX = 512, 2048  # rows and columns of the raster that the preview reads at a time
_OWN_ENDINGS = ("_roads.tif", "_probability.tif", "_uncertainty.tif", "_preview.png")
logger = logging.getLogger(__name__)


def find_rasters(inputs: Sequence[str]) -> list[str]:
    """Return the rasters that files, folders or patterns such as ``flights/*.tif`` name, in order, none twice.

    Those elsewhere, such as ``https://HOST/a.tif``, are taken as they are, by their `public_name`.

    Hidden files and the maps of earlier runs, which may lie beside their rasters, are left out.

    Raises:
        DataError: nothing is there.
        ConfigError: two rasters have one name, so their results would too.
    """
    found: list[str] = []
    for name in inputs:
        if is_remote(name):
            here = [public_name(name)]
        elif os.path.isdir(name):
            here = [os.path.join(name, file) for file in list_files(name, RASTER_SUFFIXES)]
            if not here:
                raise DataError(f"{name}: no raster in this folder ({', '.join(RASTER_SUFFIXES)})")
        else:
            here = [name] if os.path.isfile(name) else sorted(filter(os.path.isfile, glob.glob(name)))
            if not here:
                raise DataError(f"{name}: no such file, folder or pattern")
        found += here
    found = [path if is_remote(path) else os.path.normpath(path) for path in found]
    found = [path for path in found if is_remote(path) or not is_hidden(os.path.basename(path))]
    rasters = [path for path in dict.fromkeys(found) if not _is_own_map(path)]
    if not rasters:
        raise DataError(f"{inputs[0]}: only maps of an earlier run, or hidden files; give the rasters that they are of")
    if left_out := len(set(found)) - len(rasters):
        logger.info("%d maps of earlier runs among the inputs are left out", left_out)
    names: dict[str, str] = {}
    for path in rasters:
        name = MapFiles.of(path, "").name
        if other := names.get(name):
            raise ConfigError(f"{other} and {path}: both are called {name}; map them into two folders")
        names[name] = path
    return rasters


def _is_own_map(path: str) -> bool:
    """Return whether a raster is what a run wrote: beside it are the record of that, or strips that are not done."""
    stem = next((path[: -len(ending)] for ending in _OWN_ENDINGS if path.endswith(ending)), None)
    if stem is None:
        return False
    try:
        with open(f"{stem}.json", encoding="utf-8") as file:
            return "weights_sha256" in file.read()
    except (OSError, ValueError):
        return os.path.isdir(f"{stem}.parts")


def threshold_of(probability: str) -> float | None:
    """Return the threshold of the map that the file ``NAME_probability.tif`` is of, as ``NAME.json`` beside it says.

    None where that is not there, and for a map whose roads are what is likelier than not.
    """
    try:
        record = json.loads(Path(probability.removesuffix("_probability.tif") + ".json").read_text(encoding="utf-8"))
        return float(record["settings"]["threshold"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True)
class MapFiles:
    """The results for one raster.

    Attributes:
        folder: where they are.
        name: of the raster, without its suffix.
        key: what identifies the map, of which strips and record are; empty where only paths are asked for.
    """

    folder: str
    name: str
    key: str = ""

    @classmethod
    def of(cls, raster: str, folder: str, key: str = "") -> MapFiles:
        """Return those of the raster at a path."""
        return cls(folder, result_name(raster), key)

    def path(self, ending: str) -> str:
        """Return the path of a result: ``_roads.tif``, ``_probability.tif``, ``.json``, ..."""
        return os.path.join(self.folder, f"{self.name}{ending}")

    def finished(self) -> dict | None:
        """Return the record of the finished map, None where there is none.

        Raises:
            ConfigError: its key is another: it is of another raster, or was made otherwise.
        """
        path = self.path(".json")
        if not os.path.exists(path):
            return None
        try:
            with open(path, encoding="utf-8") as file:
                record = json.load(file)
        except (OSError, ValueError):
            record = {}
        if record.get("key") != self.key:
            raise ConfigError(
                f"{path}: is there already, of another raster, checkpoint or setting; give --overwrite or another --out"
            )
        return record

    def prepare(self, disk_bytes: int, raster: str) -> None:
        """Make the folder of strips. Those of another key that a killed run left stay until the map is finished.

        Raises:
            ConfigError: the folder cannot be written, or its disk has less than ``disk_bytes`` left.
        """
        parts = Path(self.path(".parts"))
        with writing(self.folder, "choose another --out"):
            parts.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(parts).free
        if free < disk_bytes:
            raise ConfigError(
                f"{self.folder}: {free / 2**30:.1f} GiB are free, but mapping {raster} may need "
                f"{disk_bytes / 2**30:.1f} GiB; free some, or choose another --out"
            )

    def strip(self, index: int) -> str:
        """Return the path of a finished strip, in a folder that stays until the map is finished.

        The key is in its name, so a strip of another map is never taken for it, whoever writes when.
        """
        return os.path.join(self.path(".parts"), f"{index:06d}.{self.key[:16]}.npz")

    def has_strips_of_others(self) -> bool:
        """Return whether strips of another key are there: of other options, weights or number of threads."""
        names = glob.glob(os.path.join(glob.escape(self.path(".parts")), "*.npz"))
        return any(not name.endswith(f".{self.key[:16]}.npz") for name in names)

    def save_strip(self, index: int, row: int, layers: Mapping[str, np.ndarray]) -> None:
        """Write a finished strip, which begins at ``row`` of the raster, complete or not at all.

        Layers are uint8 (h, W) by name, `NODATA` where the raster is nodata: ``labels``, ``probability`` and, if
        wanted, ``uncertainty`` as `PROBABILITY_STEPS` of 1, and ``other``, the likeliest class of the other side: no
        road where the label is road, else road.
        """
        remedy = "finished strips are kept, free some disk space"
        with complete_file(self.strip(index), remedy) as partial, open(partial, "wb") as file:
            np.savez_compressed(file, row=row, **layers)  # type: ignore[arg-type]

    def read_strips(self, strips: Iterable[int], layer: str) -> Iterator[tuple[int, np.ndarray]]:
        """Yield first row and values (h, W) of a layer, strip by strip.

        Raises:
            DataError: the file of a strip is missing or damaged.
        """
        for index in strips:
            path = self.strip(index)
            try:
                with np.load(path, allow_pickle=False) as part:
                    found = int(part["row"]), part[layer]
            except Exception as error:  # a damaged file can break its reader anywhere
                reason = type(error).__name__
                raise DataError(f"{path}: cannot be read ({reason}); remove it and re-run to map its rows") from None
            yield found

    def write_maps(
        self,
        strips: Sequence[int],
        source: RasterSource,
        reading: ImageReading,
        facts: NetworkFacts,
        layers: Sequence[str],
        area: RasterArea | None = None,
        cleaning: Cleaning | None = None,
    ) -> np.ndarray:
        """Put all finished strips together: maps of ``layers``, their QGIS styles, and the preview of raster or area.

        A ``cleaning`` changes the labels, and all that is made of them.

        Returns:
            The number of pixels with each label (256).
        """
        Path(self.path(".json")).unlink(missing_ok=True)  # of the map that is replaced from here on
        info, place = source.info, source.georeference
        colours = {label: (red, green, blue) for label, (red, green, blue) in enumerate(facts.palette)}
        write_qgis_style(self.path("_roads.qml"), dict(enumerate(zip(facts.classes, colours.values(), strict=True))))
        write_qgis_probability_style(self.path("_probability.qml"))
        if "uncertainty" in layers:
            write_qgis_uncertainty_style(self.path("_uncertainty.qml"))
        counts = np.zeros(256, np.int64)

        def counted(parts: Iterable[tuple[int, np.ndarray]]) -> Iterator[tuple[int, np.ndarray]]:
            for row, labels in parts:
                np.add(counts, np.bincount(labels.ravel(), minlength=256), out=counts)
                yield row, labels

        def sides() -> Iterator[tuple[int, np.ndarray]]:
            both = (self.read_strips(strips, name) for name in ("labels", "other"))
            for (row, labels), (_, other) in zip(*both, strict=True):
                yield row, np.stack([labels, other])

        for layer in layers:
            parts = self.read_strips(strips, layer)
            if layer == "labels":
                name, band, parts = "_roads.tif", "class", counted(parts if cleaning is None else cleaning(sides))
                look: dict = dict(colours=colours, overview_resampling="mode")
            else:
                name, band, look = f"_{layer}.tif", layer, dict(scale=1 / PROBABILITY_STEPS)
            path, size = self.path(name), (info.height, info.width)
            write_cog(path, parts, *size, "uint8", place, nodata=NODATA, band_names=(band,), **look)
        self._write_preview(source, reading, facts, area)
        return counts

    def _write_preview(
        self, source: RasterSource, reading: ImageReading, facts: NetworkFacts, area: RasterArea | None
    ) -> None:
        """Write the raster, or what is around the area, with its roads tinted, small enough to look at."""
        info = source.info
        top, left, height, width = (area and area.window) or (0, 0, info.height, info.width)
        shrink = min(1.0, _PREVIEW_PX / max(height, width))
        shape = max(1, round(height * shrink)), max(1, round(width * shrink))
        rows, columns = (
            [start + size * i // count for i in range(count + 1)]
            for start, size, count in ((top, height, shape[0]), (left, width, shape[1]))
        )
        bands = info.bands if reading.bands is None else len(reading.bands)
        values, valid = np.zeros((*shape, bands), info.dtype), np.zeros(shape, bool)
        y_parts, x_parts = (even_parts(n, max(1, round(px * shrink))) for n, px in zip(shape, _READ_PX, strict=True))
        for (y, h), (x, w) in product(y_parts, x_parts):
            place = rows[y], columns[x], rows[y + h] - rows[y], columns[x + w] - columns[x]
            if area is None or area.meets(*place):
                values[y : y + h, x : x + w], valid[y : y + h, x : x + w] = _shrunk(
                    *source.read(*place, reading.bands), (w, h)
                )
        plain = replace(reading, bands=None if reading.bands is None else tuple(range(1, bands + 1)))
        image = rgb_of(plain.as_read(values, None if valid.all() else valid, info.path))
        with RasterSource(self.path("_roads.tif")) as roads:
            labels, holes = np.zeros(shape, np.uint8), np.zeros(shape, bool)
            # a road thinner than a pixel of the preview stays visible: the largest label below a pixel counts
            starts = np.subtract(columns[:-1], left)
            for row, (first, last) in enumerate(pairwise(rows)):
                found = roads.read(first, left, last - first, width)[0][:, :, 0]
                below = np.where(found == NODATA, 0, found).max(axis=0)
                labels[row] = np.maximum.reduceat(below, starts)
                holes[row] = np.minimum.reduceat(found.min(axis=0), starts) == NODATA
        picture = paint_labels(image, labels, facts.palette)
        picture[holes] = 255
        save_picture(self.path("_preview.png"), picture)

    def finish(self, record: dict) -> None:
        """Write the record, which says that the map is finished, and remove the strips."""
        write_text(self.path(".json"), json.dumps(record, indent=1, default=float))
        shutil.rmtree(self.path(".parts"))


def _shrunk(values: np.ndarray, valid: np.ndarray | None, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the average of the valid ones of ``values`` (H, W, B) at a ``size`` (w, h), and where there are any."""
    if valid is None:
        valid = np.ones(values.shape[:2], bool)

    def shrunk(plane: np.ndarray) -> np.ndarray:
        return cv2.resize(plane.astype(np.float32), size, interpolation=cv2.INTER_AREA)

    shares = shrunk(valid)
    sums = np.stack([shrunk(np.where(valid, plane, 0)) for plane in values.transpose(2, 0, 1)], axis=2)
    means = sums / np.maximum(shares, np.float32(1e-6))[:, :, None]
    return (means if values.dtype.kind == "f" else np.rint(means)).astype(values.dtype), shares > 0
