"""What road scores depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import networkx as nx
import numpy as np

from ..errors import ConfigError
from ..metrics.apls import SAT2GRAPH, SPACENET, apls
from ..metrics.connectivity import Connectivity, connectivity
from ..metrics.probability import ProbabilityCounts, probability_counts
from ..metrics.region import confusion
from ..metrics.relaxed import boundary_counts, centreline_lengths, cldice_counts, relaxed_counts
from ..metrics.topo import CITY_SCALE, topo
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
        threshold: probability from which a pixel is road.
    """

    tolerance_px: float = 3.0
    tolerance_m: float | None = None
    buffer_px: float | None = None
    gsd_m: float | None = None
    threshold: float = 0.5

    def __post_init__(self) -> None:
        for name in ("tolerance_px", "tolerance_m", "buffer_px", "gsd_m"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value:g}; it must be above 0")
        if not 0 < self.threshold < 1:
            raise ConfigError(f"the threshold is {self.threshold:g}; it must lie between 0 and 1")

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


# -- scoring.image_scores
# Everything that is measured on one image.


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


@dataclass(frozen=True)
class RoadGraphs:
    """The road networks of one image.

    Attributes:
        prediction: of the predicted roads.
        truth: of the true roads.
        buffer: distance within which their centrelines match, in the unit of their coordinates.
        connectivity: how they hang together.
    """

    prediction: nx.MultiGraph
    truth: nx.MultiGraph
    buffer: float
    connectivity: Connectivity = field(repr=False)


def compare_graphs(prediction: nx.MultiGraph, truth: nx.MultiGraph, buffer: float) -> RoadGraphs:
    """Return both networks with what `connectivity` says of them."""
    return RoadGraphs(prediction, truth, buffer, connectivity(prediction, truth, buffer))


def half_road_width(graph: nx.MultiGraph) -> float:
    """Return half the median width in pixels of a network's roads, by length; 0 without roads."""
    edges = sorted((edge["width_median"], edge["length"]) for _, _, edge in graph.edges(data=True))
    if not edges:
        return 0.0
    reached = np.cumsum([length for _, length in edges])
    return edges[int(np.searchsorted(reached, reached[-1] / 2))][0] / 2


def graphs_of(
    prediction: np.ndarray, truth: np.ndarray, settings: ScoringSettings, valid: np.ndarray | None = None
) -> RoadGraphs:
    """Return the road networks of two masks (H, W), in pixels; ignored pixels are road in neither."""
    inside = np.ones(truth.shape, bool) if valid is None else valid
    graphs = [road_graph(mask & inside) for mask in (prediction, truth)]
    buffer = settings.buffer_px or max(settings.tolerance, half_road_width(graphs[1]))
    return compare_graphs(graphs[0], graphs[1], buffer)


def score_graphs(graphs: RoadGraphs, metres: float | None) -> tuple[dict[str, float], dict[str, float]]:
    """Return counts and scores, as in `ImageScores`, of two networks.

    Args:
        graphs: what `compare_graphs` returned.
        metres: metres of the unit of their coordinates; None where it is not known, and then a unit counts as one.
    """
    lengths = centreline_lengths(graphs.prediction, graphs.truth, graphs.buffer)
    found = graphs.connectivity
    counts = {f"centreline_{key}": float(value) for key, value in lengths._asdict().items()}
    counts |= {
        "components_prediction": float(found.prediction_components),
        "components_truth": float(found.truth_components),
        "gaps": float(found.gaps),
        "pairs_kept": found.kept,
        "pairs": found.pairs,
    }
    if metres is not None:
        counts["truth_km"] = lengths.truth * metres / 1000
    scores = {}
    for variant, name in ((SPACENET, "spacenet"), (SAT2GRAPH, "sat2graph")):
        scores[f"APLS_{name}"] = apls(graphs.prediction, graphs.truth, variant, metres or 1.0).apls
    traced = topo(graphs.prediction, graphs.truth, CITY_SCALE, metres or 1.0)
    scores |= {"TOPO_F1": traced.f1, "TOPO_precision": traced.precision, "TOPO_recall": traced.recall}
    return counts, scores


def score_image(
    name: str,
    prediction: np.ndarray,
    truth: np.ndarray,
    settings: ScoringSettings,
    valid: np.ndarray | None = None,
    probability: np.ndarray | None = None,
) -> ImageScores:
    """Measure one predicted road mask.

    Args:
        name: of the image.
        prediction: predicted road, (H, W) bool.
        truth: true road, (H, W) bool.
        settings: tolerance and ground sampling distance.
        valid: (H, W) bool, False where pixels count nowhere; None where all count.
        probability: predicted probability of road, (H, W) in 0..1; None where there is only the mask.
    """
    inside = np.ones(truth.shape, bool) if valid is None else valid
    predicted, true = prediction & inside, truth & inside
    tolerance = settings.tolerance
    pixels = confusion(predicted.astype(np.uint8), np.where(inside, true, 255).astype(np.uint8), 2)
    counts: dict[str, float] = {
        "true_positive": int(pixels[1, 1]),
        "false_positive": int(pixels[0, 1]),
        "false_negative": int(pixels[1, 0]),
        "pixels": int(pixels.sum()),
    }
    for kind, found in (
        ("boundary", boundary_counts(predicted, true, valid=valid)),
        ("relaxed", relaxed_counts(predicted, true, tolerance, valid)),
        ("cldice", cldice_counts(predicted, true, skeleton(predicted), skeleton(true), valid)),
    ):
        counts |= {f"{kind}_{key}": value for key, value in asdict(found).items()}
    graphs = graphs_of(predicted, true, settings)
    of_graphs, scores = score_graphs(graphs, settings.gsd_m)
    by_probability = None if probability is None else probability_counts(probability, truth, valid)
    return ImageScores(name, {**counts, **of_graphs}, scores, by_probability, pixels)
