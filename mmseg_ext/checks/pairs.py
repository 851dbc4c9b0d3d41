"""A split, and what each of its images and masks says on its own."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field

import cv2
import numpy as np

from ..datasets.loading import check_labels
from ..errors import DataError
from ..geo import RasterInfo, disagreement
from ..imagery.raw_mask import first_values, is_black_and_white, read_grey, read_stored, shows_scene
from ..imagery.reading import ImageReading, check_same_size, image_info, orientation, read_pixels, rgb_of
from ..imagery.voc import IGNORE, ROAD_CLASSES, Pair
from .findings import Problem

THUMBNAIL_PX = 32
_MIN_TEXTURE = 2.0  # standard deviation in grey levels
_BLANK = 0.5


@dataclass(frozen=True)
class Split:
    """Pairs that train, validate or test together.

    Attributes:
        name: ``train``, ``val``, ``test``, or ``pairs`` for folders without splits; of several data sets that train
            together ``train 1``, ``train 2`` and so on.
        pairs: in the order of the split file; what is missing is left out.
        images_dir: folder of the images.
        masks_dir: folder of the masks, None without masks.
        reading: how the images become what a network sees.
        classes: class names in the order of their labels.
        ignore_index: label that is left out of everything.
        split_file: file that lists the pairs, None without one.
        normalize: mean and standard deviation (0 to 255) in the order of the read bands, None where no config says.
        raw: masks may be of any kind that the converters understand.
    """

    name: str
    pairs: tuple[Pair, ...]
    images_dir: str
    masks_dir: str | None
    reading: ImageReading = field(default_factory=ImageReading)
    classes: tuple[str, ...] = ROAD_CLASSES
    ignore_index: int = IGNORE
    split_file: str | None = None
    normalize: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    raw: bool = False

    @property
    def trains(self) -> bool:
        """Whether a network learns from it."""
        return self.name.split()[0] == "train"

    @property
    def place(self) -> str:
        """What to name where the whole split is meant."""
        return self.split_file or self.images_dir

    def contents(self) -> dict[tuple[str, str], str]:
        """Return the images by what tells them apart: real folder and file name."""
        folder = os.path.realpath(self.images_dir)
        return {(folder, os.path.basename(pair.image)): pair.image for pair in self.pairs}


def mean_and_std(histograms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation (B,) of the values whose counts are ``histograms`` (B, 256)."""
    counts = np.maximum(histograms.sum(axis=1), 1)
    mean, mean_of_squares = (histograms @ np.arange(256.0) ** power / counts for power in (1, 2))
    return mean, np.sqrt(np.maximum(mean_of_squares - mean**2, 0))


@dataclass(frozen=True)
class ImageLook:
    """What the pixels of an image, as a network sees it, boil down to.

    Attributes:
        histograms: valid pixels of each value, (B, 256).
        thumbnail: mean of the first three bands, float32 (32, 32), area-averaged.
        digest: of the pixels.
        road_on_nothing: share of the invalid pixels that are labelled above 0.
    """

    histograms: np.ndarray
    thumbnail: np.ndarray
    digest: bytes
    road_on_nothing: float

    @classmethod
    def of(cls, image: np.ndarray, valid: np.ndarray | None, road_on_nothing: float) -> ImageLook:
        """Return what is remembered of an image uint8 (H, W, B) and its valid pixels (H, W), None for all."""
        image = np.ascontiguousarray(image)
        where = None if valid is None else valid.astype(np.uint8)
        bands = [cv2.calcHist([image], [band], where, [256], [0, 256]).ravel() for band in range(image.shape[2])]
        picture, size = np.ascontiguousarray(image[:, :, :3]), (THUMBNAIL_PX, THUMBNAIL_PX)
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).reshape(*size, -1)
        return cls(
            histograms=np.stack(bands).astype(np.int64),
            thumbnail=small.mean(axis=2, dtype=np.float32),
            digest=hashlib.blake2b(image.data, digest_size=16).digest(),
            road_on_nothing=road_on_nothing,
        )

    @property
    def levels(self) -> int:
        """Number of values that occur, of the band with most."""
        return int((self.histograms > 0).sum(axis=1).max())

    @property
    def is_blank(self) -> bool:
        """Whether all valid pixels are of one colour, as far as JPEG lets them."""
        return bool(not self.histograms.any(axis=1).all() or mean_and_std(self.histograms)[1].max() < _BLANK)


@dataclass
class PairFacts:
    """One pair and what was found of it.

    Attributes:
        pair: its files.
        problems: its defects.
        image: header of the image, None where it cannot be read.
        counts: mask pixels of each value (256,); class labels, or grey values of a raw mask; None without a mask
            that can be used.
        look: the image's pixels, None where they were not read.
        textured_ignore: whether the mask has no class but ignores what the image shows, as 0/255 masks do.
    """

    pair: Pair
    problems: list[Problem] = field(default_factory=list)
    image: RasterInfo | None = None
    counts: np.ndarray | None = None
    look: ImageLook | None = None
    textured_ignore: bool = False

    def add(self, code: str, path: str | None, words: str = "") -> None:
        """Note a defect of the file at ``path``."""
        self.problems.append(Problem(code, path or self.pair.image, words))

    def labelled(self, split: Split) -> int:
        """Return the pixels that the mask labels above 0; 0 without a mask."""
        return 0 if self.counts is None else int(self.counts[1 : len(split.classes)].sum())


def measure_pair(pair: Pair, split: Split, decode: bool) -> PairFacts:
    """Return what the files of a ``pair`` of ``split`` say; defects are noted, not raised.

    With ``decode`` the image's pixels are read too, not just its header.
    """
    facts = PairFacts(pair)
    try:
        facts.image = image_info(pair.image)
    except DataError as error:
        facts.add("image-unreadable", pair.image, _words(error, pair.image))
    for file in filter(None, (pair.image, pair.mask)):
        if (turn := orientation(file)) != 1:
            facts.add("orientation", file, f"EXIF orientation {turn} is not applied")
    labels = None if pair.mask is None else _read_labels(facts, split)
    if labels is not None:
        facts.counts = np.bincount(labels.ravel(), minlength=256)
    # a mask of 0 and 255 may be a mistake that would train without a word, so its image is looked at in any case
    suspect = labels is not None and not facts.labelled(split) and bool((labels == split.ignore_index).any())
    if facts.image is not None and (decode or suspect):
        _look(facts, split, labels, decode, suspect)
    return facts


def as_seen(
    values: np.ndarray, valid: np.ndarray | None, path: str, split: Split
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return what `read_pixels` gave of the image at ``path`` as uint8 (H, W, B), and its valid pixels.

    Raw images of any depth and bands are shown by their first three bands between their 1st and 99th percentile.

    Raises:
        DataError: bands or depth do not fit.
    """
    if not split.raw:
        return split.reading.as_read(values, valid, path), valid
    values = rgb_of(values)
    if values.dtype != np.uint8:
        known = values if valid is None else values[valid]
        low, high = np.percentile(known, (1, 99)) if known.size else (0, 1)
        scaled = (values.astype(np.float32) - low) * (255 / max(high - low, 1e-12))
        values = np.clip(np.rint(np.nan_to_num(scaled)), 0, 255).astype(np.uint8)
    return values, valid


def _words(error: Exception, path: str) -> str:
    """Return what an exception says of the file, without its name and without what to do."""
    return str(error).removeprefix(f"{path}: ").rsplit("; ", 1)[0]


def _read_labels(facts: PairFacts, split: Split) -> np.ndarray | None:
    """Return labels (or raw grey values) (H, W), None where the mask cannot be used."""
    mask = facts.pair.mask
    assert mask is not None
    try:
        values, palette, valid = read_stored(mask)
    except DataError as error:
        facts.add("mask-unreadable", mask, _words(error, mask))
        return None
    if facts.image is not None:
        try:
            check_same_size(values.shape, (facts.image.height, facts.image.width), mask, facts.pair.image)
        except DataError as error:
            facts.add("size", mask, _words(error, mask))
        else:
            if facts.image.transform is not None and (shift := disagreement(facts.image, image_info(mask))):
                facts.add("georeference", mask, shift)
    found = _raw_defect(mask, values) if split.raw else _defect(mask, values, palette, split)
    if valid is not None and isinstance(found, np.ndarray) and not split.raw:
        found = np.where(valid, found, split.ignore_index).astype(np.uint8)
    if isinstance(found, Problem):
        facts.problems.append(found)
        return None
    return found


def _raw_defect(path: str, values: np.ndarray) -> np.ndarray | Problem:
    try:
        return read_grey(path)[0]
    except DataError as error:
        code = "mask-photograph" if shows_scene(values) else "mask-many-colours"
        return Problem(code, path, _words(error, path))


def _defect(path: str, values: np.ndarray, palette: np.ndarray | None, split: Split) -> np.ndarray | Problem:
    """Return the labels (H, W), or why ``values`` as stored are none."""
    if values.shape[2] != 1 or values.dtype != np.uint8:
        words = f"{values.shape[2]} band(s) of {values.dtype}, but a mask holds one 8-bit label"
        if shows_scene(values):
            return Problem("mask-photograph", path, words)
        try:
            read_grey(path)
        except DataError as error:
            return Problem("mask-many-colours", path, _words(error, path))
        return Problem("mask-deep" if values.shape[2] == 1 else "mask-colour", path, words)
    labels = values[:, :, 0]
    classes = len(split.classes)
    counts = np.bincount(labels.ravel(), minlength=256)
    used = np.flatnonzero(counts)
    try:
        check_labels(labels, classes, split.ignore_index, path)
    except DataError as error:
        words = _words(error, path)
    else:
        if palette is not None and palette[0].any():
            black = [v for v in used if 0 < v < min(classes, len(palette)) and not palette[v].any()]
            if black:
                return Problem("mask-palette", path, f"value 0 is coloured and value {black[0]} is black")
        return labels
    if palette is not None and max(used) < len(palette):
        colours = np.unique(palette[used], axis=0)
        if len(colours) <= 2 and not colours[0].any():
            return Problem("mask-palette", path, f"values {first_values(used)} of a palette of black and one colour")
    if shows_scene(values):
        return Problem("mask-photograph", path, words)
    if classes == 2 and is_black_and_white(counts):
        return Problem("mask-grey", path, words)
    return Problem("mask-labels", path, words)


def _look(facts: PairFacts, split: Split, labels: np.ndarray | None, decode: bool, suspect: bool) -> None:
    """Note what the image's pixels say."""
    path = facts.pair.image
    try:
        values, valid = read_pixels(path, bands=split.reading.bands)
    except DataError as error:
        facts.add("image-unreadable", path, _words(error, path))
        return
    try:
        image, valid = as_seen(values, valid, path, split)
    except DataError as error:
        facts.add("image-unfit", path, _words(error, path))
        return
    if labels is not None and labels.shape != image.shape[:2]:
        labels = None
    if suspect and labels is not None:
        ignored = labels == split.ignore_index
        seen = ignored if valid is None else ignored & valid
        facts.textured_ignore = bool(seen.any() and image[seen].std(axis=0).max() > _MIN_TEXTURE)
    if decode:
        on_nothing = 0.0
        if labels is not None and valid is not None:
            on_nothing = float(((labels > 0) & (labels != split.ignore_index))[~valid].mean())
        facts.look = ImageLook.of(image, valid, on_nothing)
