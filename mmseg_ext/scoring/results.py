"""The scores of a data set from those of its images."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..errors import DataError
from ..files import complete_file
from ..metrics.probability import (
    ProbabilityCounts,
    best_threshold,
    calibration_curve,
    entropy,
    expected_calibration_error,
    precision_recall_curve,
)
from ..metrics.region import region_scores
from ..report import markdown_table
from ..roads import graph_lines
from . import report as road_report
from .image_scores import ImageScores, ScoringSettings, graphs_of
from .measures import BY_KEY, MEASURES, RoadMeasure

CLASS_SCORES = ("IoU", "F1", "precision", "recall", "accuracy")


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
    """Return the score that follows from counts, None where there is none of them (lines have no pixels)."""
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


def sum_of(images: Sequence[ImageScores]) -> dict[str, float]:
    """Return the sums of the counts that all images have."""
    common = [key for key in images[0].counts if all(key in image.counts for image in images)]
    return {key: sum(image.counts[key] for image in images) for key in common}


def probabilities_of(images: Sequence[ImageScores]) -> ProbabilityCounts | None:
    """Return the sum of the images' counts by probability, None where an image has none."""
    each = [image.probability for image in images]
    return None if any(one is None for one in each) else sum(each)  # type: ignore[arg-type, return-value]


def summarise(images: Sequence[ImageScores]) -> list[Total]:
    """Return the scores of a data set of at least one image, in the order of `MEASURES`."""
    counts, probability = sum_of(images), probabilities_of(images)
    values = [image_values(image) for image in images]
    totals = []
    for measure in MEASURES:
        if any(measure.key not in value for value in values):
            continue
        defined = [value[measure.key] for value in values if not math.isnan(value[measure.key])]
        mean = sum(defined) / len(defined) if defined else math.nan
        totals.append(Total(measure, _score(measure, counts, probability), mean, len(values) - len(defined)))
    return totals


def class_scores(images: Sequence[ImageScores], classes: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the region scores of every class, pooled and as the mean of the images where they are defined.

    Args:
        images: of a data set, with pixels.
        classes: names in the order of their labels.

    Returns:
        ``pooled`` and ``mean``, of those each class, of those `CLASS_SCORES`, 0 to 1; nan where not defined.
    """
    each = [region_scores(image.confusion) for image in images if image.confusion is not None]
    whole = region_scores(sum(image.confusion for image in images if image.confusion is not None))  # type: ignore[arg-type]
    found: dict[str, dict[str, dict[str, float]]] = {"pooled": {}, "mean": {}}
    for label, name in enumerate(classes):
        found["pooled"][name] = {key: float(whole[key][label]) for key in CLASS_SCORES}  # type: ignore[literal-required]
        found["mean"][name] = {}
        for key in CLASS_SCORES:
            values = np.array([one[key][label] for one in each])  # type: ignore[literal-required]
            known = values[~np.isnan(values)]
            found["mean"][name][key] = float(known.mean()) if known.size else math.nan
    return found


def metres_are_known(images: Sequence[ImageScores]) -> bool:
    """Return whether the metres per pixel of every image are known."""
    return all("truth_km" in image.counts for image in images)


def shown_value(value: float | None, measure: RoadMeasure) -> str:
    """Return a score as people read it: in per cent with two digits, other numbers with up to three; - for none."""
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


# -- scoring.results
# Scores as files: JSON, CSV by image, Markdown, and a page to look at.

UNKNOWN_METRES = "The metres per pixel are not known here: APLS and TOPO count a pixel as a metre. --gsd tells them."
SCORES_FILE, IMAGES_FILE, TABLE_FILE, REPORT_FILE = "scores.json", "images.csv", "scores.md", "report.html"


@dataclass(frozen=True)
class Shown:
    """What there is to see of an image.

    Attributes:
        image: RGB uint8 (H, W, 3).
        prediction: predicted road (H, W) bool.
        truth: true road (H, W) bool.
        settings: with the metres per pixel of this image.
        valid: (H, W) bool, False where pixels count nowhere; None where all count.
        probability: predicted probability of road (H, W), None where there is only the mask.
    """

    image: np.ndarray
    prediction: np.ndarray
    truth: np.ndarray
    settings: ScoringSettings
    valid: np.ndarray | None = None
    probability: np.ndarray | None = None


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
    totals = summarise(images)
    road = {
        total.measure.key: dict(
            pooled=_known(total.pooled),
            mean=_known(total.mean),
            undefined=total.undefined,
            definition=total.measure.definition,
        )
        for total in totals
    }
    values = [image_values(image) for image in images]
    content = dict(
        facts,
        settings=asdict(settings),
        classes=_known_of(class_scores(images, classes)) if images[0].confusion is not None else {},
        road=road,
        images=[
            dict(name=image.name, counts=image.counts, scores={k: _known(v) for k, v in value.items()})
            for image, value in zip(images, values, strict=True)
        ],
    )
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    keys = [total.measure.key for total in totals]
    writer.writerow(["image", *keys])
    for image, value in zip(images, values, strict=True):
        writer.writerow([image.name, *("" if math.isnan(value[key]) else f"{value[key]:.6g}" for key in keys)])
    _write(os.path.join(folder, SCORES_FILE), json.dumps(content, indent=1))
    _write(os.path.join(folder, IMAGES_FILE), rows.getvalue())
    _write(os.path.join(folder, TABLE_FILE), totals_table(totals) + "\n")


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


def write_report(
    folder: str,
    title: str,
    images: Sequence[ImageScores],
    settings: ScoringSettings,
    show: Callable[[int], Shown] | None = None,
    subtitle: Sequence[str] = (),
    worst: int = 3,
) -> None:
    """Write `REPORT_FILE`, one page with tables, curves and pictures.

    Args:
        folder: where it goes.
        title: heading.
        images: scores of the data set.
        settings: they were made with.
        show: returns what there is to see of the image of an index; None where there are only lines.
        subtitle: lines below the heading.
        worst: images of the lowest scores to show; two median ones stand beside them.

    Raises:
        ConfigError: it cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    measures = [
        road_report.Measure(
            total.measure.key,
            total.measure.name,
            total.measure.definition,
            total.measure.unit,
            total.pooled,
            total.mean,
            total.undefined,
            total.measure.group,
            total.measure.higher_is_better,
        )
        for total in summarise(images)
    ]
    values = [image_values(image) for image in images]
    rows = [road_report.ImageScores(image.name, value) for image, value in zip(images, values, strict=True)]
    chosen = [] if show is None else _chosen(values, worst)
    examples = [] if show is None else [_example(why, images[i], show(i)) for i, why in chosen]
    probability = probabilities_of(images)
    curve = calibration = None
    if probability is not None:
        found = precision_recall_curve(probability)
        curve = road_report.PrecisionRecall(
            threshold=found.thresholds,
            precision=found.precision,
            recall=found.recall,
            f1=found.f1,
            best_threshold=best_threshold(probability),
        )
        bins = calibration_curve(probability)
        calibration = road_report.Calibration(
            confidence=bins.mean_probability,
            share=bins.road_share,
            pixels=bins.pixels,
            error=expected_calibration_error(probability),
        )
    report = road_report.Report(
        title, list(subtitle), measures, rows, examples, curve, calibration, _notes(settings, images)
    )
    road_report.write_road_report(os.path.join(folder, REPORT_FILE), report)


def _notes(settings: ScoringSettings, images: Sequence[ImageScores]) -> list[str]:
    unit = f"{settings.tolerance_px:g} px" if settings.tolerance_m is None else f"{settings.tolerance_m:g} m"
    buffer = (
        "half the median width of an image's true roads, at least the tolerance (lines: the tolerance)"
        if settings.buffer_px is None
        else f"{settings.buffer_px:g} px"
    )
    notes = [
        f"The tolerance is {unit}; the buffer of centrelines is {buffer}.",
        "Pooled: all images counted as one. Mean: of the images in which the score is defined.",
    ]
    if not metres_are_known(images):
        notes.append(UNKNOWN_METRES)
    return notes


def _chosen(values: Sequence[dict[str, float]], worst: int) -> list[tuple[int, str]]:
    """Return the index of each image to show and why: lowest IoU, lowest APLS, and the median of both."""
    chosen: dict[int, str] = {}
    for key in ("IoU", "APLS_spacenet"):
        scored = [i for i, value in enumerate(values) if not math.isnan(value[key])]
        order = sorted(scored, key=lambda i: values[i][key])
        name = BY_KEY[key].name
        places = [(i, f"worst {name}") for i in order[:worst]]
        if len(order) > worst:
            places.append((order[len(order) // 2], f"median {name}"))
        for i, why in places:
            chosen[i] = f"{chosen[i]}, {why}" if i in chosen else why
    return list(chosen.items())


def _example(why: str, scores: ImageScores, shown: Shown) -> road_report.Example:
    graphs = graphs_of(shown.prediction, shown.truth, shown.settings, shown.valid)
    values = image_values(scores)
    said = ", ".join(
        f"{BY_KEY[key].name} {shown_value(values[key], BY_KEY[key])}" for key in ("IoU", "relaxed_F1", "APLS_spacenet")
    )
    return road_report.Example(
        title=f"{why} ({said})",
        name=scores.name,
        image=shown.image,
        truth=shown.truth,
        prediction=shown.prediction,
        tolerance_px=shown.settings.tolerance,
        valid=shown.valid,
        truth_lines=graph_lines(graphs.truth),
        predicted_lines=graph_lines(graphs.prediction),
        gaps=[(float(x), float(y)) for x, y in graphs.connectivity.gap_points],
        entropy=None if shown.probability is None else entropy(shown.probability),
    )


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _known_of(tree: dict) -> dict:
    return {key: _known_of(value) if isinstance(value, dict) else _known(value) for key, value in tree.items()}


def _write(path: str, text: str) -> None:
    with complete_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.write(text)
