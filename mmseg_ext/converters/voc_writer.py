"""Writes a data set in the VOC layout, complete or not at all; the simplest one is of synthetic mines."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from PIL import Image

from ..datasets import generate_mine
from ..errors import DataError
from ..files import remove, write_text, writing
from ..imagery import ImageReading, voc

_RECORDS, _KEY, _LOCK = ".scenes", ".key", ".lock"


class VocWriter:
    """Collects image and mask pairs in the folder ``<dest>.partial``, which takes its place when all are written.

    Use as a context manager. An error before the first scene is finished leaves nothing behind; an interruption
    afterwards leaves ``<dest>.partial``, with which the same conversion resumes. An existing ``dest`` is untouched
    until the end. An `OSError` in the block counts as one of writing.

    Args:
        dest: root folder of the new data set.
        overwrite: replace an existing ``dest``.
        key: names sources and settings; unfinished work under the same key is resumed. None starts anew.

    Attributes:
        reading: how the images are read, for the statistics and for ``dataset.json``.
        about: what else ``dataset.json`` says.
        records: the finished scenes by name.

    Raises:
        DataError: ``dest`` exists and is not to be replaced, cannot be written, or is being written already.
    """

    def __init__(self, dest: str, overwrite: bool = False, key: str | None = None) -> None:
        self.dest = os.path.abspath(dest)
        if os.path.lexists(self.dest) and not overwrite:
            raise DataError(
                f"{dest}: exists already, made from other files or with other settings; choose another folder or give "
                "--overwrite"
            )
        self.partial = f"{self.dest}.partial"
        self.reading = ImageReading()
        self.about: dict = {}
        self.records: dict[str, dict] = {}
        self._key = key
        self._lock: IO | None = None

    def __enter__(self) -> VocWriter:
        """Create the folders, or find what an interrupted conversion left."""
        with writing(self.dest, "choose another folder", DataError):
            os.makedirs(self.partial, exist_ok=True)
            self._lock = open(os.path.join(self.partial, _LOCK), "w")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(
                    f"{self.dest}: another conversion is writing it; wait for it or choose another folder"
                ) from None
            key_file = Path(self.partial, _KEY)
            if self._key is None or not key_file.is_file() or key_file.read_text(encoding="utf-8") != self._key:
                for name in os.listdir(self.partial):
                    if name != _LOCK:
                        remove(os.path.join(self.partial, name))
            voc.make_folders(self.partial)
            os.makedirs(os.path.join(self.partial, _RECORDS), exist_ok=True)
            if self._key is not None:
                write_text(str(key_file), self._key)
        for file in Path(self.partial, _RECORDS).glob("*.json"):
            record = json.loads(file.read_text(encoding="utf-8"))
            self.records[record["name"]] = record
        return self

    def image_path(self, stem: str, suffix: str) -> str:
        """Return where the image ``stem`` is written, with ``suffix``, its dot included."""
        return os.path.join(self.partial, voc.IMAGES, f"{stem}{suffix}")

    def write_mask(self, stem: str, mask: np.ndarray) -> None:
        """Write the labels (H, W) of the image ``stem``."""
        Image.fromarray(mask).save(os.path.join(self.partial, voc.MASKS, f"{stem}.png"))

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
        """Remember that all ``tiles`` of the scene ``name`` are written; a resumed conversion skips it."""
        record = dict(name=name, splits=list(splits), tiles=tiles, statistics=statistics)
        file = hashlib.sha256(name.encode()).hexdigest()[:24]
        write_text(os.path.join(self.partial, _RECORDS, f"{file}.json"), json.dumps(record))
        self.records[name] = record

    def add(self, stem: str, image: np.ndarray, mask: np.ndarray, split: str) -> None:
        """Write one scene of one tile: RGB uint8 (H, W, 3) and labels (H, W)."""
        Image.fromarray(image).save(self.image_path(stem, ".png"))
        self.write_mask(stem, mask)
        self.finish_scene(stem, (split,), [stem], [self.statistics_of(image, None, mask)])

    def metadata(self) -> dict:
        """Return what ``dataset.json`` says: counts, statistics of the training images, how images are read."""
        labels: dict[str, Counter[str]] = {split: Counter() for split in voc.SPLITS}
        images = dict.fromkeys(voc.SPLITS, 0)
        for record in self.records.values():
            for split in record["splits"]:
                images[split] += len(record["tiles"])
                for part in record["statistics"]:
                    labels[split].update(part["labels"])
        training = [part for r in self.records.values() if "train" in r["splits"] for part in r["statistics"]]
        pixels = sum(part["pixels"] for part in training)
        sums, squares = (
            np.atleast_1d(np.sum([part[key] for part in training], axis=0, dtype=np.float64))
            for key in ("sums", "squares")
        )
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the split files and put the folder in place, or clear away what is not worth keeping."""
        if self._lock is not None:
            self._lock.close()
        if error is not None and (self._key is None or not self.records):
            remove(self.partial)
        with writing(self.dest, "free some disk space or choose another folder, then re-run the command", DataError):
            if isinstance(error, OSError):
                raise error
            if error is None:
                self._put_in_place()

    def _put_in_place(self) -> None:
        records = [self.records[name] for name in sorted(self.records)]
        stems = {s: [tile for r in records if s in r["splits"] for tile in r["tiles"]] for s in voc.SPLITS}
        stems["test"] = stems["test"] or stems["val"]
        for split in voc.SPLITS:
            voc.write_split(self.partial, split, stems[split])
        voc.write_metadata(self.partial, self.metadata())
        for name in (_RECORDS, _KEY, _LOCK):
            remove(os.path.join(self.partial, name))
        remove(self.dest)
        os.replace(self.partial, self.dest)


def write_synthetic_mines(
    dest: str,
    train_seeds: Sequence[int],
    val_seeds: Sequence[int],
    test_seeds: Sequence[int],
    size_px: int = 1024,
    tile_px: int = 256,
    gsd_m: float = 1.0,
    overwrite: bool = False,
) -> None:
    """Write a data set of synthetic mines; those for training and validation are cut into tiles, the others stay whole.

    Each seed makes a mine, all tiles of which are in one split; ``size_px`` are its rows and columns, ``tile_px`` those
    of a tile. What does not fill a tile is left out. ``dest`` and ``overwrite`` are as in `VocWriter`.
    """
    with VocWriter(dest, overwrite) as writer:
        writer.reading = ImageReading(gsd_m=gsd_m)
        for split, seeds in zip(voc.SPLITS, (train_seeds, val_seeds, test_seeds), strict=True):
            side = size_px if split == "test" else tile_px
            for seed in seeds:
                mine = generate_mine(seed, size_px, gsd_m)
                for row in range(0, size_px - side + 1, side):
                    for col in range(0, size_px - side + 1, side):
                        window = (slice(row, row + side), slice(col, col + side))
                        stem = f"mine{seed:04d}" if side == size_px else f"mine{seed:04d}_r{row:05d}_c{col:05d}"
                        writer.add(stem, mine.image[window], mine.mask[window], split)
