"""Everything that is measured on one image: masks, probabilities and road networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import networkx as nx
import numpy as np

from ..errors import ConfigError
from ..metrics.apls import SAT2GRAPH, SPACENET, apls
from ..metrics.centrelines import centreline_lengths, connectivity
from ..metrics.pixels import (
    ProbabilityCounts,
    boundary_counts,
    cldice_counts,
    confusion,
    probability_counts,
    relaxed_counts,
)
from ..metrics.topo import topo
from ..roads import road_graph, skeleton


@dataclass(frozen=True)
class ScoringSettings:
    """Distances and thresholds of an evaluation.

    Attributes:
        tolerance_px: largest distance, in pixels, at which relaxed scores still match.
        tolerance_m: the same in metres; needs ``gsd_m`` and then takes the place of ``tolerance_px``.
        buffer_px: the same in pixels for centreline scores and connectivity; None: half the median width of the true
            roads of each image, and at least the tolerance, so that a centreline inside the road is a match.
        gsd_m: ground sampling distance in metres per pixel; None where it is not known: APLS and TOPO, whose
            parameters are in metres, then count a pixel as a metre.
        threshold: probability from which a pixel is road; None: the network's own, and 0.5 without a network.
    """

    tolerance_px: float = 3.0
    tolerance_m: float | None = None
    buffer_px: float | None = None
    gsd_m: float | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        for name in ("tolerance_px", "tolerance_m", "buffer_px", "gsd_m"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value:g}; it must be above 0")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ConfigError(f"the threshold is {self.threshold:g}; it must lie between 0 and 1")

    @property
    def road_from(self) -> float:
        """Probability from which a pixel is road."""
        return 0.5 if self.threshold is None else self.threshold

    @property
    def tolerance(self) -> float:
        """Tolerance in pixels.

        Raises:
            ConfigError: it is given in metres, and the ground sampling distance is not known.
        """
        if self.tolerance_m is None:
            return self.tolerance_px
        if self.gsd_m is None:
            raise ConfigError(
                f"a tolerance of {self.tolerance_m:g} m needs the ground sampling distance; give --gsd, or gsd_m in "
                "dataset.json"
            )
        return self.tolerance_m / self.gsd_m

    def at(self, gsd_m: float | None) -> ScoringSettings:
        """Return the settings for an image of ``gsd_m`` metres per pixel, which count where the settings give none."""
        return self if self.gsd_m is not None else replace(self, gsd_m=gsd_m)


@dataclass(frozen=True)
class RoadMasks:
    """The predicted and the true road of one image.

    Attributes:
        prediction: predicted road (H, W) bool.
        truth: true road (H, W) bool.
        valid: (H, W) bool, False where pixels are ignored; None where all count.
        probability: predicted probability of road (H, W), None where there is only the mask.
        gsd_m: metres per pixel, None where they are not known.
        image: what pictures show them on, RGB uint8 (H, W, 3); None for plain grey.
    """

    prediction: np.ndarray
    truth: np.ndarray
    valid: np.ndarray | None = None
    probability: np.ndarray | None = None
    gsd_m: float | None = None
    image: np.ndarray | None = None


@dataclass(frozen=True)
class ImageScores:
    """What one image contributes to an evaluation.

    Attributes:
        name: of the image.
        counts: numbers that add up over images (`measures.MEASURES` makes scores of them).
        scores: scores that do not add up: one number for the image, nan where it is not defined.
        probability: counts by probability, None where only a mask was predicted.
        confusion: pixels by true and predicted class (C, C); None for lines.
    """

    name: str
    counts: Mapping[str, float]
    scores: Mapping[str, float]
    probability: ProbabilityCounts | None = None
    confusion: np.ndarray | None = None


def half_road_width(graph: nx.MultiGraph) -> float:
    """Return half the median width in pixels of a network's roads, by length; 0 without roads."""
    edges = sorted((edge["width_median"], edge["length"]) for _, _, edge in graph.edges(data=True))
    if not edges:
        return 0.0
    reached = np.cumsum([length for _, length in edges])
    return edges[int(np.searchsorted(reached, reached[-1] / 2))][0] / 2


def graphs_of(
    prediction: np.ndarray, truth: np.ndarray, settings: ScoringSettings, valid: np.ndarray | None = None
) -> tuple[nx.MultiGraph, nx.MultiGraph, float]:
    """Return the networks of predicted and of true road (H, W), in pixels, and the buffer within which they match.

    Where ``valid`` (H, W) is False there is road in neither.
    """
    inside = np.ones(truth.shape, bool) if valid is None else valid
    predicted, true = road_graph(prediction & inside), road_graph(truth & inside)
    return predicted, true, settings.buffer_px or max(settings.tolerance, half_road_width(true))


def score_graphs(
    prediction: nx.MultiGraph, truth: nx.MultiGraph, buffer: float, metres: float | None
) -> tuple[dict[str, float], dict[str, float]]:
    """Return counts and scores, as in `ImageScores`, of two networks in the same frame.

    Centrelines match within the ``buffer``, in the unit of the coordinates. That unit is ``metres`` long; None means
    unknown, and one metre is assumed.
    """
    lengths, found = centreline_lengths(prediction, truth, buffer), connectivity(prediction, truth, buffer)
    counts = {f"centreline_{key}": float(value) for key, value in asdict(lengths).items()}
    counts |= {
        "components_prediction": float(found.prediction_components),
        "components_truth": float(found.truth_components),
        "gaps": float(found.gaps),
        "pairs_kept": found.kept,
        "pairs": found.pairs,
    }
    if metres is not None:
        counts["truth_km"] = lengths.truth * metres / 1000
    traced = topo(prediction, truth, metres or 1.0)
    scores = {
        "APLS_spacenet": apls(prediction, truth, SPACENET, metres or 1.0).apls,
        "APLS_sat2graph": apls(prediction, truth, SAT2GRAPH, metres or 1.0).apls,
        "TOPO_F1": traced.f1,
        "TOPO_precision": traced.precision,
        "TOPO_recall": traced.recall,
    }
    return counts, scores


def score_image(
    name: str,
    prediction: np.ndarray,
    truth: np.ndarray,
    settings: ScoringSettings,
    valid: np.ndarray | None = None,
    probability: np.ndarray | None = None,
) -> ImageScores:
    """Measure one predicted road mask; the arrays are those of `RoadMasks`."""
    inside = np.ones(truth.shape, bool) if valid is None else valid
    predicted, true = prediction & inside, truth & inside
    pixels = confusion(predicted.astype(np.uint8), np.where(inside, true, 255).astype(np.uint8), 2)
    counts: dict[str, float] = {
        "true_positive": int(pixels[1, 1]),
        "false_positive": int(pixels[0, 1]),
        "false_negative": int(pixels[1, 0]),
        "pixels": int(pixels.sum()),
    }
    for kind, found in (
        ("boundary", boundary_counts(predicted, true, valid=valid)),
        ("relaxed", relaxed_counts(predicted, true, settings.tolerance, valid)),
        ("cldice", cldice_counts(predicted, true, skeleton(predicted), skeleton(true), valid)),
    ):
        counts |= {f"{kind}_{key}": value for key, value in asdict(found).items()}
    of_graphs, scores = score_graphs(*graphs_of(predicted, true, settings), settings.gsd_m)
    by_probability = None if probability is None else probability_counts(probability, truth, valid)
    return ImageScores(name, {**counts, **of_graphs}, scores, by_probability, pixels)
