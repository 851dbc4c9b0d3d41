"""Road scores of a network's predictions, image by image and process by process; needs the extra 'roads'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from mmseg.datasets.custom import CustomDataset

from ..datasets.road_dataset import road_labels
from ..metrics.region import confusion
from ..scoring import (
    UNKNOWN_METRES,
    ImageScores,
    MapWriter,
    ScoringSettings,
    Shown,
    metres_are_known,
    score_image,
    summarise,
    totals_table,
    write_report,
    write_scores,
)
from .distributed import gather_by_index
from .evaluation import Prediction, image_name


class RoadScorer:
    """Scores every prediction of an evaluation.

    Args:
        settings: tolerance, threshold, metres per pixel (None: those of the data set).
        folder: where results go, or None: probability and entropy maps at once, the rest with `write`.

    Raises:
        ConfigError: the folder cannot be made.
    """

    def __init__(self, settings: ScoringSettings | None = None, folder: str | None = None) -> None:
        self.settings, self.folder = settings or ScoringSettings(), folder
        self._maps = None if folder is None else MapWriter(folder)
        self._scores: dict[int, ImageScores] = {}

    def __call__(self, dataset: CustomDataset, found: Prediction) -> None:
        """Score the prediction of one image."""
        chances = found.probabilities
        if len(chances) > 1:
            chances = chances[road_labels(dataset.CLASSES)]
        probability = chances.float().sum(dim=0).clamp_(0, 1).cpu().numpy()
        name = image_name(dataset, found.index)
        settings = self._settings(dataset)
        prediction, truth, valid = self._masks(dataset, found.index, found.labels, probability)
        scores = score_image(name, prediction, truth, settings, valid, probability)
        labels = dataset.get_gt_seg_map_by_idx(found.index)
        pixels = confusion(found.labels, labels, len(dataset.CLASSES), dataset.ignore_index)
        self._scores[found.index] = replace(scores, confusion=pixels)
        if self._maps is not None:
            self._maps.write(name, probability, found.labels)

    def gather(self) -> list[ImageScores]:
        """Return the scores of the images of all processes, in the order of the data set; every process gets them."""
        return gather_by_index(self._scores)

    @staticmethod
    def total(images: Sequence[ImageScores]) -> tuple[dict[str, float], str]:
        """Return the scores of all ``images`` by name (``road.IoU``, ...), 0 to 1, and as a table for people."""
        totals = summarise(images)
        note = "" if metres_are_known(images) else f"\n{UNKNOWN_METRES}"
        return {f"road.{total.measure.key}": total.value for total in totals}, totals_table(totals) + note

    def write(self, dataset: CustomDataset, images: Sequence[ImageScores], facts: Mapping[str, object]) -> None:
        """Write scores and report into the folder.

        Args:
            dataset: what was evaluated.
            images: what `gather` returned.
            facts: written into the scores file, and below the report's heading.

        Raises:
            ConfigError: a file cannot be written.
            MissingExtraError: matplotlib is not installed.
        """
        assert self.folder is not None and self._maps is not None
        maps = self._maps

        def show(index: int) -> Shown:
            name = image_name(dataset, index)
            probability = maps.read("probability", name) / np.float32(255)
            prediction, truth, valid = self._masks(dataset, index, maps.read("labels", name), probability)
            return Shown(dataset.picture(index), prediction, truth, self._settings(dataset), valid, probability)

        write_scores(self.folder, images, self.settings, dataset.CLASSES, **facts)
        subtitle = [f"{name}: {value}" for name, value in facts.items() if value]
        write_report(self.folder, "Road evaluation", images, self.settings, show, subtitle)

    def _settings(self, dataset: CustomDataset) -> ScoringSettings:
        if self.settings.gsd_m is not None:
            return self.settings
        return replace(self.settings, gsd_m=dataset.image_reading().gsd_m)

    def _masks(
        self, dataset: CustomDataset, index: int, labels: np.ndarray, probability: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return predicted road, true road and the valid pixels of an image, bool (H, W); None where all are valid."""
        roads = road_labels(dataset.CLASSES)
        truth = dataset.get_gt_seg_map_by_idx(index)
        by_label = len(dataset.CLASSES) > 2 or self.settings.threshold == 0.5
        prediction = np.isin(labels, roads) if by_label else probability >= self.settings.threshold
        valid = truth != dataset.ignore_index
        return prediction, np.isin(truth, roads), None if valid.all() else valid
