"""Scores of files: masks, probabilities or lines against the truth, no network involved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from ..errors import DataError
from ..geo import (
    VECTOR_SUFFIXES,
    PixelFrame,
    RasterInfo,
    check_same_ground,
    clipped,
    common_ground,
    ground_sampling_distance,
    is_remote,
    joined,
    metric_of,
    public_name,
    read_lines,
    reprojected,
)
from ..geo.raster import Window
from ..geo.vector import file_of
from ..imagery.raw_mask import IMAGE_ROLES, MASK_ROLES, is_black_and_white, read_grey, without_role
from ..imagery.reading import check_same_size, image_info, is_tiff, read_pixels, reading_of, rgb_of
from ..imagery.voc import IGNORE, IMAGE_SUFFIXES, RAW_MASK_SUFFIXES, files_by_stem, list_files
from ..roads import graph_from_lines, graph_lines, road_graph
from .image_scores import ImageScores, RoadMasks, ScoringSettings, score_graphs, score_image

_JOIN_M = 0.1
_FAR_APART_M = 5_000
_ROUNDING = 1e-6  # of a probability by its scale
_SUFFIXES = (*RAW_MASK_SUFFIXES, *VECTOR_SUFFIXES)


@dataclass(frozen=True)
class FilePair:
    """The paths of predicted and true masks or lines of one name; the prediction may be probabilities."""

    name: str
    prediction: str
    truth: str

    @property
    def has_lines(self) -> bool:
        """Whether at least one of them holds lines instead of pixels."""
        return _is_vector(self.prediction) or _is_vector(self.truth)


def _is_vector(path: str) -> bool:
    return file_of(path).lower().endswith(VECTOR_SUFFIXES)


def _holds_probabilities(path: str) -> bool:
    return is_tiff(path) and image_info(path).holds_reals


def _by_name(folder: str) -> dict[str, str]:
    """Return the paths of the masks and line files in ``folder`` by name, without suffix and role."""
    found: dict[str, str] = {}
    for file in list_files(folder, _SUFFIXES):
        name = without_role(os.path.splitext(file)[0], MASK_ROLES)
        if name in found:
            raise DataError(
                f"{folder}: {os.path.basename(found[name])} and {file} both stand for '{name}'; keep one of them"
            )
        found[name] = os.path.join(folder, file)
    if not found:
        raise DataError(f"{folder}: no masks or lines there ({', '.join(_SUFFIXES)})")
    return found


def pair_predictions(prediction: str, truth: str, names: Sequence[str] | None = None) -> list[FilePair]:
    """Return the pairs of two folders, or of two files, in the order of their names.

    Names pair when they are equal without suffix and without a known role at their end (``_mask``, ``_road``, ...).
    Predictions without a truth are left out.

    Args:
        prediction: folder or file of masks, probabilities or lines; ``file:layer`` for a layer of lines.
        truth: folder or file of masks or lines, likewise.
        names: the truths of a folder to take; None for all.

    Raises:
        DataError: missing, empty, one name twice, or a truth has no prediction.
    """
    prediction, truth = public_name(prediction), public_name(truth)
    for path in (prediction, truth):
        if not (is_remote(path) or os.path.exists(file_of(path))):
            raise DataError(f"{path}: no such file or folder")
    if os.path.isdir(prediction) != os.path.isdir(truth):
        raise DataError(f"{prediction} and {truth}: one is a folder, the other a file; give two of a kind")
    if not os.path.isdir(truth):
        for path in (prediction, truth):
            if not file_of(path).lower().endswith(_SUFFIXES):
                raise DataError(f"{path}: neither a mask nor lines ({', '.join(_SUFFIXES)})")
        return [FilePair(os.path.splitext(os.path.basename(file_of(truth)))[0], prediction, truth)]
    predicted, true = _by_name(prediction), _by_name(truth)
    if names is not None:
        for name in names:
            if name not in true:
                raise DataError(f"{os.path.join(truth, name)}.*: no such truth; add it, or take the name out")
        true = {name: true[name] for name in names}
    missing = [name for name in true if name not in predicted]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise DataError(
            f"{true[missing[0]]}: has no prediction of its name in {prediction}{more}; predict it, or take it out"
        )
    return [FilePair(name, predicted[name], path) for name, path in true.items()]


def holds_labels(paths: Sequence[str]) -> bool:
    """Return whether masks hold labels (0, 1 and 255 for ignore) and not black and white.

    They hold labels where at least one has the value 1 or says that 255 is nodata, and otherwise only 0 and 255. Where
    all are black and white, 255 is road. Lines are skipped, and so is nodata.

    Raises:
        DataError: a mask holds other values.
    """
    labels = False
    for path in paths:
        if _is_vector(path):
            continue
        grey, valid = read_grey(path)
        counts = np.bincount(grey.ravel() if valid is None else grey[valid], minlength=256)
        values = np.flatnonzero(counts)
        if np.isin(values, (0, 1, IGNORE)).all():
            labels = labels or counts[1] > 0 or image_info(path).nodata == IGNORE
        elif not is_black_and_white(counts):
            raise DataError(
                f"{path}: holds the values {', '.join(map(str, values[:6]))}{', ...' if len(values) > 6 else ''}, "
                "neither a road mask nor labels 0, 1, 255; give --probability where they are probabilities"
            )
    return labels


def _read_mask(path: str, labels: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Return road (H, W) bool, and where it is valid, None for everywhere."""
    grey, valid = read_grey(path)
    if labels and (ignored := grey == IGNORE).any():
        valid = ~ignored if valid is None else valid & ~ignored
    return grey == 1 if labels else grey >= 128, valid


def _read_road(
    path: str, labels: bool, probability: bool, threshold: float
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Return road and valid pixels as `_read_mask`, and the probability of road in 0..1 (H, W) if the file holds it.

    Floating-point values are probabilities, and so are integers with a scale or an offset, as `tools/predict.py` writes
    them; with ``probability`` other integers are too, as parts of their type's largest (8 bits: 255). Nodata has the
    probability 0, as a prediction cannot take pixels out.

    Raises:
        DataError: probabilities of several bands, or beyond 0 and 1.
    """
    if not (probability or _holds_probabilities(path)):
        return (*_read_mask(path, labels), None)
    values, valid = read_pixels(path)
    if values.shape[2] != 1:
        raise DataError(f"{path}: {values.shape[2]} bands, but probabilities of road have one")
    chance = values[:, :, 0]
    info = image_info(path)
    whole = np.issubdtype(chance.dtype, np.integer)
    if whole and not info.holds_reals:
        chance = chance / np.float64(np.iinfo(chance.dtype).max)
    else:
        chance = info.as_reals(chance.astype(np.float32) if whole else chance)
    if valid is not None:
        chance = np.where(valid, chance, 0)
    if chance.size and (chance.min() < -_ROUNDING or chance.max() > 1 + _ROUNDING):
        raise DataError(f"{path}: values from {chance.min():g} to {chance.max():g} are not probabilities (0 to 1)")
    chance = chance.clip(0, 1)
    return chance >= threshold, valid, chance


def read_masks(pair: FilePair, labels: tuple[bool, bool], settings: ScoringSettings, probability: bool) -> RoadMasks:
    """Return the masks of a pair of rasters on their `common_ground`. Nodata in the prediction is no road.

    ``labels``: whether predictions, and whether truths, hold labels (`holds_labels`). ``probability``: integers in the
    prediction are probabilities.

    Raises:
        DataError: unreadable, or without common ground on one grid.
    """
    if _holds_probabilities(pair.truth) and not image_info(pair.truth).dtype.startswith("float"):
        raise DataError(
            f"{pair.truth}: holds probabilities, but the truth is a mask; give one of 0 and 1, or 0 and 255"
        )
    truth, valid = _read_mask(pair.truth, labels[1])
    prediction, _, chance = _read_road(pair.prediction, labels[0], probability, settings.road_from)
    infos = image_info(pair.truth), image_info(pair.prediction)
    here, there = (_inside(window) for window in common_ground(*infos))
    metres = [gsd for gsd in map(ground_sampling_distance, infos) if gsd is not None]
    return RoadMasks(
        prediction[there],
        truth[here],
        None if valid is None else valid[here],
        None if chance is None else chance[there],
        metres[0] if metres else None,
    )


def _areas(pair: FilePair) -> dict[str, float]:
    """Return the pixels of a pair of rasters, and those that both have, as counts.

    Raises:
        DataError: without common ground on one grid.
    """
    infos = image_info(pair.truth), image_info(pair.prediction)
    (_, _, height, width), _ = common_ground(*infos)
    truth, prediction = (float(info.height * info.width) for info in infos)
    return {"truth_area": truth, "prediction_area": prediction, "common_area": float(height * width)}


def _inside(window: Window) -> tuple[slice, slice]:
    """Return the rows and columns of a window."""
    row, column, height, width = window
    return slice(row, row + height), slice(column, column + width)


def _lines_of(
    path: str, labels: bool, probability: bool, threshold: float
) -> tuple[list[np.ndarray], str | None, RasterInfo | None]:
    """Return the road lines of a file in map coordinates, their coordinate reference system, and a raster's header."""
    if _is_vector(path):
        found = read_lines(path)
        return found.lines, found.crs, None
    info = image_info(path)
    if info.transform is None:
        raise DataError(f"{path}: has no georeference, so it does not compare to lines; add one")
    road, valid, _ = _read_road(path, labels, probability, threshold)
    frame = PixelFrame(info)
    lines = graph_lines(road_graph(road if valid is None else road & valid))
    return [frame.to_map(line) for line in lines], info.crs, info


def _refuse_far_apart(
    pair: FilePair, predicted: Sequence[np.ndarray], true: Sequence[np.ndarray], unit_m: float
) -> None:
    if not predicted or not true:
        return
    low, high = ([reduce(np.concatenate(lines), axis=0) for lines in (predicted, true)] for reduce in (np.min, np.max))
    apart = np.maximum(np.maximum(low[0] - high[1], low[1] - high[0]), 0) * unit_m
    if np.hypot(*apart) > _FAR_APART_M:
        raise DataError(
            f"{pair.prediction}: lies {np.hypot(*apart) / 1000:,.0f} km from its truth {pair.truth}; fix the "
            "coordinate reference system of one of them"
        )


def score_lines(
    pair: FilePair, labels: tuple[bool, bool], settings: ScoringSettings, probability: bool = False
) -> ImageScores:
    """Measure two networks of which at least one is a file of lines, in metres.

    Metres are those of `metric_of` at the truth, so lines without a coordinate reference system are taken to be in
    metres. They have no width: the buffer is the tolerance, of which pixels count as metres here. A line whose end lies
    on another joins it. Compared with a mask, which must be georeferenced, lines count as far as the mask reaches.
    ``labels`` and ``probability`` are as in `read_masks`.

    Raises:
        DataError: unreadable, their maps have no way to each other, or they lie far apart.
    """
    predicted, predicted_crs, predicted_raster = _lines_of(pair.prediction, labels[0], probability, settings.road_from)
    true, true_crs, true_raster = _lines_of(pair.truth, labels[1], False, settings.road_from)
    if (predicted or predicted_raster) and (true or true_raster):  # an empty file of lines may have any map
        check_same_ground(pair.prediction, predicted_crs, pair.truth, true_crs)
    if predicted or true:
        lines, crs, path = (true, true_crs, pair.truth) if true else (predicted, predicted_crs, pair.prediction)
        metric, unit_m = metric_of(crs, lines[0][0], path)
        predicted, true = (
            reprojected(lines, crs, metric) if lines else []
            for lines, crs in ((predicted, predicted_crs), (true, true_crs))
        )
        _refuse_far_apart(pair, predicted, true, unit_m)
        for raster in filter(None, (predicted_raster, true_raster)):
            predicted, true = (clipped(lines, raster, metric) for lines in (predicted, true))
        predicted, true = ([line * unit_m for line in lines] for lines in (predicted, true))
    graphs = [graph_from_lines(joined(lines, _JOIN_M), _JOIN_M) for lines in (predicted, true)]
    tolerance = settings.tolerance_px if settings.tolerance_m is None else settings.tolerance_m
    counts, scores = score_graphs(graphs[0], graphs[1], tolerance, 1.0)
    return ImageScores(pair.name, counts, scores)


class FolderEvaluation:
    """Predictions in files against the truth.

    Args:
        pairs: what `pair_predictions` returned.
        settings: tolerance, threshold, metres per pixel (None: as the georeference of each file tells).
        probability: integer rasters of predictions hold probabilities.
        images_dir: folder of images of the same names, for pictures; None shows the roads alone.

    Raises:
        DataError: lines and pixels are mixed, rasters have no common ground on one grid, a mask holds other values, or
            an image is missing.
    """

    def __init__(
        self,
        pairs: Sequence[FilePair],
        settings: ScoringSettings,
        probability: bool = False,
        images_dir: str | None = None,
    ) -> None:
        odd = [pair for pair in pairs if pair.has_lines != pairs[0].has_lines]
        if odd:
            raise DataError(f"{odd[0].prediction}: lines and masks are mixed; evaluate the files of a kind together")
        self.pairs, self.settings, self.probability = list(pairs), settings, probability
        self._areas = [_areas(pair) for pair in pairs] if self.has_pixels else []
        self.labels = (
            not probability and holds_labels([p.prediction for p in pairs if not _holds_probabilities(p.prediction)]),
            holds_labels([pair.truth for pair in pairs]),
        )
        self._images = None if images_dir is None else _images_of(pairs, images_dir)

    @property
    def has_pixels(self) -> bool:
        """Whether there are masks to show."""
        return not self.pairs[0].has_lines

    def score(self) -> list[ImageScores]:
        """Return the scores of every pair; with its areas, where a pair does not cover the same ground.

        Raises:
            DataError: a file cannot be read.
        """
        shown = tqdm(self.pairs, desc="scoring", unit="image", disable=None, leave=False)
        images = [self._score(pair) for pair in shown]
        if all(len(set(areas.values())) == 1 for areas in self._areas):
            return images
        both = zip(images, self._areas, strict=True)
        return [replace(image, counts={**image.counts, **areas}) for image, areas in both]

    def _score(self, pair: FilePair) -> ImageScores:
        if pair.has_lines:
            return score_lines(pair, self.labels, self.settings, self.probability)
        masks = read_masks(pair, self.labels, self.settings, self.probability)
        settings = self.settings.at(masks.gsd_m)
        return score_image(pair.name, masks.prediction, masks.truth, settings, masks.valid, masks.probability)

    def show(self, index: int) -> RoadMasks:
        """Return the masks of the pair of rasters of an index, with its image where there are images."""
        masks = read_masks(self.pairs[index], self.labels, self.settings, self.probability)
        if self._images is None:
            return masks
        pair = self.pairs[index]
        truth = image_info(pair.truth)
        image, _ = reading_of(None).read(self._images[index])
        check_same_size((truth.height, truth.width), image.shape, pair.truth, self._images[index])
        here, _ = common_ground(truth, image_info(pair.prediction))
        return replace(masks, image=rgb_of(image)[_inside(here)])


def _images_of(pairs: Sequence[FilePair], folder: str) -> list[str]:
    """Return the path of the image of each pair."""
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such folder; give --images the folder of the images, or leave it out")
    by_stem = files_by_stem(folder, IMAGE_SUFFIXES)
    names = {without_role(stem, IMAGE_ROLES): file for stem, file in by_stem.items()}
    for pair in pairs:
        if pair.name not in names:
            raise DataError(f"{os.path.join(folder, pair.name)}.*: no such image; add it, or leave --images out")
    return [os.path.join(folder, names[pair.name]) for pair in pairs]
