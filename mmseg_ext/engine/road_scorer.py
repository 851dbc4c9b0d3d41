"""Road scores of a network's predictions, image by image and process by process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from mmseg.datasets.custom import CustomDataset

from ..imagery.voc import road_labels
from ..metrics.pixels import confusion
from ..scoring import (
    ImageScores,
    MapWriter,
    RoadMasks,
    ScoringSettings,
    remarks,
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
        self._own_threshold = 0.5
        self._maps = None if folder is None else MapWriter(folder)
        self._scores: dict[int, ImageScores] = {}

    def take_threshold_of(self, head: Any) -> None:
        """Take the threshold of a network's ``decode_head`` for its own, and use it where the settings have none."""
        self._own_threshold = head.threshold if head.out_channels == 1 else 0.5
        if self.settings.threshold is None:
            self.settings = replace(self.settings, threshold=self._own_threshold)

    def __call__(self, dataset: CustomDataset, found: Prediction) -> None:
        """Score the prediction of one image."""
        chances = found.probabilities
        if len(chances) > 1:
            chances = chances[road_labels(dataset.CLASSES)]
        probability = chances.float().sum(dim=0).clamp_(0, 1).cpu().numpy()
        name = image_name(dataset, found.index)
        masks = self._masks(dataset, found.index, found.labels, probability)
        settings = self.settings.at(masks.gsd_m)
        scores = score_image(name, masks.prediction, masks.truth, settings, masks.valid, probability)
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
        notes = "".join(f"\n{remark}" for remark in remarks(images))
        return {f"road.{total.measure.key}": total.value for total in totals}, totals_table(totals) + notes

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

        def show(index: int) -> RoadMasks:
            name = image_name(dataset, index)
            probability = maps.read("probability", name) / np.float32(255)
            masks = self._masks(dataset, index, maps.read("labels", name), probability)
            return replace(masks, image=dataset.picture(index))

        write_scores(self.folder, images, self.settings, dataset.CLASSES, **facts)
        subtitle = [f"{name}: {value}" for name, value in facts.items() if value]
        write_report(self.folder, "Road evaluation", images, self.settings, show, subtitle)

    def _masks(self, dataset: CustomDataset, index: int, labels: np.ndarray, probability: np.ndarray) -> RoadMasks:
        roads = road_labels(dataset.CLASSES)
        truth = dataset.get_gt_seg_map_by_idx(index)
        by_label = len(dataset.CLASSES) > 2 or self.settings.road_from == self._own_threshold
        prediction = np.isin(labels, roads) if by_label else probability >= self.settings.road_from
        valid = truth != dataset.ignore_index
        gsd_m = dataset.image_reading().gsd_m
        return RoadMasks(prediction, np.isin(truth, roads), None if valid.all() else valid, probability, gsd_m)
