"""The scores of a data set from those of its images, and the files that hold them."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError
from ..files import write_text, writing
from ..metrics.pixels import ProbabilityCounts, entropy, region_scores
from ..report.tables import markdown_table
from .image_scores import ImageScores, ScoringSettings
from .measures import MEASURES, RoadMeasure

_UNKNOWN_METRES = (
    "The metres per pixel are not known: APLS and TOPO count a pixel as a metre. Give --gsd to score in metres."
)
SCORES_FILE, IMAGES_FILE, TABLE_FILE = "scores.json", "images.csv", "scores.md"
KINDS = ("labels", "probability", "entropy")


@dataclass(frozen=True)
class Total:
    """One score of a data set.

    Attributes:
        measure: what it is.
        pooled: of the images' sums, as if they were one image; nan where it is not defined, None where it does not
            add up.
        mean: of the images where it is defined; nan where it is for none.
        undefined: number of the other images.
    """

    measure: RoadMeasure
    pooled: float | None
    mean: float
    undefined: int

    @property
    def value(self) -> float:
        """The pooled score, or the mean where there is none."""
        return self.mean if self.pooled is None else self.pooled


def _score(measure: RoadMeasure, counts: Mapping[str, float], probability: ProbabilityCounts | None) -> float | None:
    """Return the score that follows from counts, None where they are missing (lines have no pixels)."""
    if measure.of_probability is not None:
        return None if probability is None else measure.of_probability(probability)
    try:
        return None if measure.of is None else measure.of(counts)
    except KeyError:
        return None


def image_values(image: ImageScores) -> dict[str, float]:
    """Return every score of one image by its key, in the order of `MEASURES`; nan where it is not defined."""
    values = {}
    for measure in MEASURES:
        value = image.scores.get(measure.key, _score(measure, image.counts, image.probability))
        if value is not None:
            values[measure.key] = value
    return values


def probabilities_of(images: Sequence[ImageScores]) -> ProbabilityCounts | None:
    """Return the sum of the images' counts by probability, None where an image has none."""
    each = [image.probability for image in images]
    return None if any(one is None for one in each) else sum(each)  # type: ignore[arg-type, return-value]


def summarise(images: Sequence[ImageScores]) -> list[Total]:
    """Return the scores of a data set of at least one image, in the order of `MEASURES`."""
    common = [key for key in images[0].counts if all(key in image.counts for image in images)]
    counts = {key: sum(image.counts[key] for image in images) for key in common}
    probability = probabilities_of(images)
    values = [image_values(image) for image in images]
    totals = []
    for measure in MEASURES:
        if any(measure.key not in value for value in values):
            continue
        scores = [value[measure.key] for value in values]
        undefined = sum(map(math.isnan, scores))
        totals.append(Total(measure, _score(measure, counts, probability), _mean(scores), undefined))
    return totals


def _mean(values: Sequence[float]) -> float:
    """Return the mean of the values that are defined; nan where none is."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def class_scores(images: Sequence[ImageScores], classes: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the region scores of every class, pooled and as the mean of the images where they are defined.

    The images have pixels. Found are ``pooled`` and ``mean``, of those each class, of those the scores of
    `region_scores`; nan where not defined.
    """
    pixels = [image.confusion for image in images if image.confusion is not None]
    whole, each = region_scores(np.sum(pixels, axis=0)), [region_scores(one) for one in pixels]
    found: dict[str, dict[str, dict[str, float]]] = {"pooled": {}, "mean": {}}
    for label, name in enumerate(classes):
        found["pooled"][name] = {key: float(values[label]) for key, values in whole.items()}
        found["mean"][name] = {key: _mean([float(one[key][label]) for one in each]) for key in whole}
    return found


def remarks(images: Sequence[ImageScores]) -> list[str]:
    """Return what a reader of the scores of ``images`` must know of them, a sentence or two each."""
    found = []
    if all("common_area" in image.counts for image in images):
        common, truth, prediction = (
            np.array([image.counts[f"{whose}_area"] for image in images]) for whose in ("common", "truth", "prediction")
        )
        share = common / np.maximum(truth, prediction)
        least = f" (least in {images[share.argmin()].name})" if len(images) > 1 else ""
        found.append(
            f"Not the same ground in prediction and truth: {(share < 1).sum()} of {len(images)} image(s){least}. "
            f"Only the ground that both cover is scored: {100 * common.sum() / truth.sum():.2f} % of the truth's area, "
            f"{100 * common.sum() / prediction.sum():.2f} % of the prediction's."
        )
    if not all("truth_km" in image.counts for image in images):
        found.append(_UNKNOWN_METRES)
    return found


def shown_value(value: float | None, measure: RoadMeasure) -> str:
    """Return a score as people read it: in per cent with two digits, others with up to three; - where undefined."""
    if value is None:
        return ""
    if math.isnan(value):
        return "-"
    if measure.unit == "%":
        return f"{100 * value:.2f}"
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.3f}"


def totals_table(totals: Sequence[Total]) -> str:
    """Return the scores of a data set as a Markdown table."""
    rows = []
    for total in totals:
        unit = f", {total.measure.unit}" if total.measure.unit else ""
        values = [shown_value(value, total.measure) for value in (total.pooled, total.mean)]
        rows.append([f"{total.measure.name}{unit}", *values, str(total.undefined or "")])
    return markdown_table(["score", "pooled", "mean of images", "images without"], rows)


def write_scores(
    folder: str,
    images: Sequence[ImageScores],
    settings: ScoringSettings,
    classes: Sequence[str] = ("background", "road"),
    **facts: object,
) -> None:
    """Write the scores of a data set as `SCORES_FILE`, `IMAGES_FILE` and `TABLE_FILE`, each complete or not at all.

    The JSON holds ``facts``, ``settings``, ``classes`` (`class_scores`), ``road`` (by key: pooled, mean, undefined,
    definition) and ``images`` (counts and scores of each, of which `compare_runs` makes its resamples).

    Raises:
        ConfigError: they cannot be written.
    """
    totals, values = summarise(images), [image_values(image) for image in images]
    content = dict(
        facts,
        settings=asdict(settings),
        classes=class_scores(images, classes) if images[0].confusion is not None else {},
        road={
            total.measure.key: dict(
                pooled=total.pooled, mean=total.mean, undefined=total.undefined, definition=total.measure.definition
            )
            for total in totals
        },
        images=[
            dict(name=image.name, counts=image.counts, scores=value)
            for image, value in zip(images, values, strict=True)
        ],
    )
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    keys = [total.measure.key for total in totals]
    writer.writerow(["image", *keys])
    for image, value in zip(images, values, strict=True):
        writer.writerow([image.name, *("" if math.isnan(value[key]) else f"{value[key]:.6g}" for key in keys)])
    table = totals_table(totals) + "\n"
    texts = {SCORES_FILE: json.dumps(_without_nan(content), indent=1), IMAGES_FILE: rows.getvalue(), TABLE_FILE: table}
    for name, text in texts.items():
        write_text(os.path.join(folder, name), text)


def _without_nan(value: Any) -> Any:
    """Return JSON's null for every nan in a tree of dicts and lists."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def read_scores(folder: str) -> dict:
    """Return what `write_scores` wrote into ``folder`` as JSON.

    Raises:
        DataError: there is none, or it is no scores file.
    """
    path = os.path.join(folder, SCORES_FILE) if os.path.isdir(folder) else folder
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        content["images"][0]["counts"], content["road"]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        raise DataError(
            f"{path}: holds no road scores; write them with tools/test.py --eval road --report, or tools/evaluate.py"
        ) from None
    return content


class MapWriter:
    """Keeps label, probability and entropy of each image as 8-bit PNGs, ``labels/NAME.png`` and so on.

    255 is probability 1, and an entropy of 1 bit (probability 0.5).

    Args:
        folder: where to write; made if it is not there.

    Raises:
        ConfigError: it cannot be written.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        for kind in KINDS:
            with writing(folder, "choose another folder"):
                os.makedirs(os.path.join(folder, kind), exist_ok=True)

    def write(self, name: str, probability: np.ndarray, labels: np.ndarray) -> None:
        """Write the maps of image ``name``: ``probability`` of road (H, W) in 0..1, and class indices (H, W)."""
        parts = (labels, np.rint(probability * 255), np.rint(entropy(probability) * 255))
        for kind, values in zip(KINDS, parts, strict=True):
            path = self._path(kind, name)
            with writing(path):
                Image.fromarray(values.astype(np.uint8)).save(path)

    def read(self, kind: str, name: str) -> np.ndarray:
        """Return the map (H, W) uint8 of ``kind`` (of `KINDS`) of image ``name``."""
        with Image.open(self._path(kind, name)) as image:
            return np.array(image)

    def _path(self, kind: str, name: str) -> str:
        return os.path.join(self.folder, kind, f"{name}.png")
