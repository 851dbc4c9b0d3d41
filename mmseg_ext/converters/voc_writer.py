"""Writes the VOC layout, complete or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from types import TracebackType
from typing import IO

import numpy as np
from PIL import Image

from ..datasets.reading import METADATA_FILE, ImageReading
from ..errors import DataError
from .scenes import SPLITS

_RECORDS = ".scenes"
_KEY = ".key"


def _write_whole(path: str, text: str) -> None:
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(f"{path}.new", path)


class VocWriter:
    """Collects image and mask pairs in the folder ``<dest>.partial``, which takes its place when all are written.

    Use as a context manager. An error before the first scene is finished leaves nothing behind; an interruption
    afterwards leaves ``<dest>.partial``, and the same conversion goes on with it. An existing ``dest`` is untouched
    until the end.

    Args:
        dest: root folder of the new data set.
        overwrite: replace an existing ``dest``.
        key: names sources and settings; unfinished work under the same key is taken up again. None starts anew.
        reading: how the images are read, for the statistics and for ``dataset.json``.
        about: more that ``dataset.json`` shall say.

    Raises:
        DataError: ``dest`` exists and is not to be replaced, cannot be written, or is being written already.
    """

    def __init__(
        self,
        dest: str,
        overwrite: bool = False,
        key: str | None = None,
        reading: ImageReading | None = None,
        about: dict | None = None,
    ) -> None:
        self.dest = os.path.abspath(dest)
        if os.path.lexists(self.dest) and not overwrite:
            raise DataError(
                f"{dest}: exists already, made from other files or with other settings; choose another folder or give "
                "--overwrite"
            )
        self.partial = f"{self.dest}.partial"
        self.reading = reading or ImageReading()
        self.about = about or {}
        self.records: dict[str, dict] = {}
        self._key = key
        self._lock: IO | None = None

    def __enter__(self) -> VocWriter:
        """Create the folders, or find what an interrupted conversion left."""
        try:
            os.makedirs(self.partial, exist_ok=True)
            self._lock = open(os.path.join(self.partial, ".lock"), "w")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(
                    f"{self.dest}: another conversion is writing it; wait for it or choose another folder"
                ) from None
            key_file = os.path.join(self.partial, _KEY)
            kept = None
            if self._key is not None and os.path.isfile(key_file):
                with open(key_file, encoding="utf-8") as file:
                    kept = file.read()
            if kept is None or kept != self._key:
                for name in os.listdir(self.partial):
                    path = os.path.join(self.partial, name)
                    if os.path.isdir(path):
                        shutil.rmtree(path)
                    elif name != ".lock":
                        os.remove(path)
            for folder in ("JPEGImages", "SegmentationClass", _RECORDS):
                os.makedirs(os.path.join(self.partial, folder), exist_ok=True)
            if self._key is not None:
                _write_whole(key_file, self._key)
        except OSError as error:
            raise DataError(f"{self.dest}: cannot be written ({error.strerror}); choose another folder") from None
        for name in os.listdir(os.path.join(self.partial, _RECORDS)):
            if name.endswith(".json"):
                with open(os.path.join(self.partial, _RECORDS, name), encoding="utf-8") as file:
                    record = json.load(file)
                self.records[record["name"]] = record
        return self

    def image_path(self, stem: str, suffix: str) -> str:
        """Return where the image ``stem`` is written, with ``suffix``, its dot included."""
        return os.path.join(self.partial, "JPEGImages", f"{stem}{suffix}")

    def write_mask(self, stem: str, mask: np.ndarray) -> None:
        """Write the labels (H, W) of the image ``stem``."""
        Image.fromarray(mask).save(os.path.join(self.partial, "SegmentationClass", f"{stem}.png"))

    def statistics_of(self, image: np.ndarray, valid: np.ndarray | None, mask: np.ndarray) -> dict:
        """Return the sums that a record keeps of one tile: of the bands as they are read, and of the labels."""
        bands = [
            np.bincount((b if valid is None else b[valid]).ravel(), minlength=256) for b in np.moveaxis(image, 2, 0)
        ]
        levels = np.arange(256, dtype=np.int64)
        labels = np.bincount(mask.ravel(), minlength=256)
        return dict(
            pixels=int(bands[0].sum()),
            sums=[int((counts * levels).sum()) for counts in bands],
            squares=[int((counts * levels**2).sum()) for counts in bands],
            labels={str(label): int(labels[label]) for label in np.flatnonzero(labels)},
        )

    def finish_scene(self, name: str, splits: tuple[str, ...], tiles: list[str], statistics: list[dict]) -> None:
        """Remember that all ``tiles`` of the scene ``name`` are written; a resumed conversion passes it over."""
        record = dict(name=name, splits=list(splits), tiles=tiles, statistics=statistics)
        file = hashlib.sha256(name.encode()).hexdigest()[:24]
        _write_whole(os.path.join(self.partial, _RECORDS, f"{file}.json"), json.dumps(record))
        self.records[name] = record

    def add(self, stem: str, image: np.ndarray, mask: np.ndarray, split: str) -> None:
        """Write one scene of one tile: RGB uint8 (H, W, 3) and labels (H, W)."""
        Image.fromarray(image).save(self.image_path(stem, ".png"))
        self.write_mask(stem, mask)
        self.finish_scene(stem, (split,), [stem], [self.statistics_of(image, None, mask)])

    def metadata(self) -> dict:
        """Return what ``dataset.json`` says: counts, statistics of the training images, how images are read."""
        labels: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
        images = dict.fromkeys(SPLITS, 0)
        pixels, sums, squares = 0, np.zeros(1), np.zeros(1)
        for record in self.records.values():
            for split in record["splits"]:
                images[split] += len(record["tiles"])
                for part in record["statistics"]:
                    for label, count in part["labels"].items():
                        labels[split][label] = labels[split].get(label, 0) + count
            if "train" in record["splits"]:
                for part in record["statistics"]:
                    pixels += part["pixels"]
                    sums = sums + np.array(part["sums"], np.float64)
                    squares = squares + np.array(part["squares"], np.float64)
        mean = sums / max(pixels, 1)
        std = np.sqrt(np.maximum(squares / max(pixels, 1) - mean**2, 0))
        return dict(
            **self.about,
            images=images,
            label_pixels=labels,
            mean=[round(float(v), 2) for v in mean],
            std=[round(float(v), 2) for v in std],
            **self.reading.as_dict(),
            key=self._key,
        )

    def _write_splits(self) -> None:
        folder = os.path.join(self.partial, "ImageSets", "Segmentation")
        os.makedirs(folder, exist_ok=True)
        records = [self.records[name] for name in sorted(self.records)]
        stems = {s: [tile for r in records if s in r["splits"] for tile in r["tiles"]] for s in SPLITS}
        for split in SPLITS:
            lines = stems[split] or (stems["val"] if split == "test" else [])
            with open(os.path.join(folder, f"{split}.txt"), "w", encoding="utf-8") as file:
                file.writelines(f"{stem}\n" for stem in lines)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the split files and put the folder in place, or clear away what is not worth keeping."""
        if self._lock is not None:
            self._lock.close()
        if kind is not None:
            if self._key is None or not self.records:
                shutil.rmtree(self.partial, ignore_errors=True)
            return
        self._write_splits()
        _write_whole(os.path.join(self.partial, METADATA_FILE), json.dumps(self.metadata(), indent=1))
        shutil.rmtree(os.path.join(self.partial, _RECORDS))
        for name in (_KEY, ".lock"):
            if os.path.exists(os.path.join(self.partial, name)):
                os.remove(os.path.join(self.partial, name))
        if os.path.islink(self.dest) or os.path.isfile(self.dest):
            os.remove(self.dest)
        elif os.path.isdir(self.dest):
            shutil.rmtree(self.dest)
        os.replace(self.partial, self.dest)
