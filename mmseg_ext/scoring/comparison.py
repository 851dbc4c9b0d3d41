"""Which differences between runs are significant: a paired bootstrap over the images."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap

from ..errors import ConfigError, DataError
from ..report.tables import markdown_table
from .measures import BY_KEY, RoadMeasure
from .results import shown_value

_SAME_SETTINGS = ("tolerance_px", "tolerance_m", "buffer_px", "gsd_m")


@dataclass(frozen=True)
class RunComparison:
    """One score of one run, beside that of the first run.

    Attributes:
        run: name of the run.
        measure: which score.
        value: of the run, over the images that count.
        difference: ``value`` less that of the first run; 0 for the first.
        low: lower end of the confidence interval of the difference; nan with fewer than two images.
        high: upper end.
        images: how many count: those where the score is defined in both runs, for scores that do not add up.
    """

    run: str
    measure: RoadMeasure
    value: float
    difference: float
    low: float
    high: float
    images: int

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    @property
    def verdict(self) -> str:
        """What it is beside the first run, in a word or two."""
        if not self.is_significant:
            return "not significant"
        if self.measure.higher_is_better is None:
            return "different"
        return "better" if (self.difference > 0) == self.measure.higher_is_better else "worse"


def compare_runs(
    runs: Mapping[str, Mapping],
    keys: Sequence[str] = ("IoU", "relaxed_F1", "quality", "clDice", "pairs_kept", "APLS_spacenet", "TOPO_F1"),
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> list[RunComparison]:
    """Compare runs with the first of them by a paired percentile bootstrap (Efron 1979) over the images.

    Every resample draws images with replacement, the same for both runs, and computes the score of the drawn ones:
    pooled where it adds up, the mean otherwise. The interval holds the middle ``confidence`` of the differences. It
    covers these images alone, not another training's seed, and each score has its own interval: of twenty true
    differences of 0, one is called significant at 0.95.

    Args:
        runs: what `read_scores` returned, by name; of the same images.
        keys: scores to compare; those that a run does not have are left out.
        confidence: 0 to 1.
        resamples: how many.
        seed: of the draws.

    Raises:
        ConfigError: an unknown score, or fewer than two runs.
        DataError: the runs are of different images or pixels, or were scored with another tolerance.
    """
    if len(runs) < 2:
        raise ConfigError("a comparison needs at least two runs; give more folders")
    for key in keys:
        if key not in BY_KEY:
            raise ConfigError(f"{key}: no such score; take some of {', '.join(BY_KEY)}")
    if not 0 < confidence < 1:
        raise ConfigError(f"a confidence of {confidence:g}; give a number between 0 and 1")
    by_name = {run: {image["name"]: image for image in content["images"]} for run, content in runs.items()}
    first, *_ = by_name
    for run, content in runs.items():
        for name in _SAME_SETTINGS:
            own, other = (one.get("settings", {}).get(name) for one in (content, runs[first]))
            if own != other:
                raise DataError(f"{run}: was scored with {name}={own}, {first} with {other}; score both alike")
        if different := sorted(set(by_name[run]) ^ set(by_name[first])):
            raise DataError(f"{run}: image {different[0]} is in only one of it and {first}; compare runs of one split")
        for name, image in by_name[run].items():
            if _ground(image) != _ground(by_name[first][name]):
                raise DataError(
                    f"{run}: image {name} was scored on other pixels or another truth than in {first}; score "
                    "predictions that cover the same ground against the same truth"
                )
    names = list(by_name[first])
    results = []
    for measure in (BY_KEY[key] for key in keys if all(key in content["road"] for content in runs.values())):
        scorers = {run: _scorer(measure, [images[name] for name in names]) for run, images in by_name.items()}
        reference, defined_there = scorers[first]
        for run, (score, defined) in scorers.items():
            images = np.flatnonzero(defined & defined_there)
            value = float(score(images))
            difference, low, high = value - float(reference(images)), math.nan, math.nan
            if run == first:
                low = high = 0.0
            elif len(images) > 1 and not math.isnan(difference):
                with warnings.catch_warnings():
                    # its own interval is nan as soon as one resample has nothing to score; ours leaves those out
                    warnings.simplefilter("ignore", DegenerateDataWarning)
                    found = bootstrap(
                        (images,),
                        lambda draws, axis, own=score, other=reference: own(draws) - other(draws),
                        n_resamples=resamples,
                        vectorized=True,
                        method="percentile",
                        random_state=np.random.default_rng(seed),
                    )
                ends = (1 - confidence) / 2, (1 + confidence) / 2
                low, high = map(float, np.nanquantile(found.bootstrap_distribution, ends))
            results.append(RunComparison(run, measure, value, difference, low, high, len(images)))
    return results


def _ground(image: Mapping) -> tuple[float, ...]:
    """Return the pixels of an image that were scored, and those that are road in its truth; nothing for lines."""
    counts = image["counts"]
    if "pixels" not in counts:
        return ()
    return counts["pixels"], counts["true_positive"] + counts["false_negative"]


def _scorer(measure: RoadMeasure, images: Sequence[Mapping]) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """Return how a run scores on draws (..., N) of its images, and on which images (N,) it has a score at all."""
    if measure.of is None:
        values = np.array([image["scores"][measure.key] for image in images], float)
        return lambda draws: np.asarray(values[draws].mean(axis=-1) if draws.size else math.nan), ~np.isnan(values)
    keys = list(images[0]["counts"])
    columns = [np.array([image["counts"][key] for image in images]) for key in keys]
    pooled = measure.of

    def score(draws: np.ndarray) -> np.ndarray:
        sums = np.stack([column[draws].sum(axis=-1) for column in columns], axis=-1)
        return np.apply_along_axis(lambda row: pooled(dict(zip(keys, row, strict=True))), -1, sums)

    return score, np.ones(len(images), bool)


def comparison_table(comparisons: Sequence[RunComparison], confidence: float = 0.95) -> str:
    """Return a Markdown table: a line for each score and run, with the difference's interval and a verdict."""
    rows = []
    compared: set[str] = set()
    for one in comparisons:
        measure = one.measure
        cells = ["", "", ""]
        if measure.key in compared:
            shown = [(value, shown_value(value, measure)) for value in (one.difference, one.low, one.high)]
            difference, low, high = (f"+{text}" if value > 0 else text for value, text in shown)
            cells = [difference, f"{low} to {high}", one.verdict]
        compared.add(measure.key)
        over = "mean" if measure.of is None else "pooled"
        rows.append([f"{measure.name} ({over})", one.run, shown_value(one.value, measure), *cells])
    return markdown_table(
        ["score", "run", "value", "difference to the first", f"{100 * confidence:g} % interval", "verdict"], rows
    )
