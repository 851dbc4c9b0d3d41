"""RoadDataset: images and road masks in the VOC layout, for MMSegmentation's loaders and metrics."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from mmseg.core.evaluation.metrics import intersect_and_union, pre_eval_to_metrics
from mmseg.datasets.builder import DATASETS
from mmseg.datasets.custom import CustomDataset

from ..errors import ConfigError, DataError
from ..imagery.reading import ImageReading, check_same_size, reading_of, rgb_of
from ..imagery.voc import (
    IGNORE,
    IMAGES,
    MASKS,
    METADATA_FILE,
    ROAD_CLASSES,
    ROAD_PALETTE,
    listed_pairs,
    refuse,
    road_labels,
)
from .loading import LoadRoadImage, LoadRoadMask
from .pipelines import refuse_reduced_labels, with_step_args

# what computes the same, bit for bit, in less time: configs keep MMSegmentation's names
_FASTER = {
    "Normalize": "BandNormalize",
    "PhotoMetricDistortion": "BandDistortion",
    "RandomCrop": "FastRandomCrop",
    "RandomFlip": "FastRandomFlip",
}


def _with_faster_steps(pipeline: Sequence[dict]) -> list[dict]:
    """Return ``pipeline`` with this package's equals of MMSegmentation's slower steps, also inside other steps."""
    faster = [{**step, "type": _FASTER.get(step["type"], step["type"])} for step in pipeline]
    for step in faster:
        if "transforms" in step:
            # MultiScaleFlipAug flips by the step of this name, and draws nothing
            inner = _with_faster_steps(step["transforms"])
            step["transforms"] = [{**s, "type": "RandomFlip"} if s["type"] == "FastRandomFlip" else s for s in inner]
    return faster


@DATASETS.register_module()
class RoadDataset(CustomDataset):
    """Image and mask pairs listed by a split file; every mask pixel holds a class index or 255 (ignore).

    Layout and split files: `mmseg_ext.imagery.voc`. ``dataset.json`` tells the bands to read, their scaling to 8 bits
    and the ground sampling distance (`ImageReading`); without it, 8-bit images of one or three bands are read as they
    are.

    Args:
        pipeline: MMSegmentation pipeline; starts with ``LoadRoadImage`` (and ``LoadRoadMask`` in training).
        split: the split file, relative to ``data_root``.
        data_root: root folder of the data set.
        img_dir: folder of the images, relative to ``data_root``.
        ann_dir: folder of the masks, relative to ``data_root``; None where there are none.
        step_args: arguments by step type, merged into the steps of that type in the pipeline (`with_step_args`).
        classes: class names in the order of their labels.
        palette: one RGB colour (0-255) per class.
        test_mode: MMSegmentation's switch: True leaves the masks out of the pipeline.
        ignore_index: label that counts neither in the loss nor in the metrics.
        reduce_zero_label: MMSegmentation's switch, for which there is no use here; True is refused.

    Raises:
        DataError: a folder, the split file, an image or a mask is missing, or the split is empty.
        ConfigError: ``step_args`` names a step that the pipeline does not have, or zero labels are to be reduced.
    """

    def __init__(
        self,
        pipeline: Sequence[dict],
        split: str,
        data_root: str | None = None,
        img_dir: str = IMAGES,
        ann_dir: str | None = MASKS,
        step_args: dict[str, dict] | None = None,
        classes: Sequence[str] = ROAD_CLASSES,
        palette: Sequence[Sequence[int]] = ROAD_PALETTE,
        test_mode: bool = False,
        ignore_index: int = IGNORE,
        reduce_zero_label: bool = False,
    ) -> None:
        refuse_reduced_labels(dict(reduce_zero_label=reduce_zero_label, pipeline=pipeline))
        if len(palette) != len(classes):
            raise ConfigError(
                f"{len(classes)} classes but {len(palette)} colours in the palette; give one for each class"
            )
        if data_root is not None and not os.path.isdir(data_root):
            raise DataError(
                f"{data_root}: no such folder (data_root); put the data set there, link it, or set another root"
            )
        self.reading = reading_of(data_root)
        super().__init__(
            _with_faster_steps(with_step_args(pipeline, step_args or {})),
            img_dir,
            ann_dir=ann_dir,
            split=split,
            data_root=data_root,
            test_mode=test_mode,
            ignore_index=ignore_index,
            classes=tuple(classes),
            palette=[list(colour) for colour in palette],
        )
        self.gt_seg_map_loader = LoadRoadMask()
        self._check_colour_order()

    def load_annotations(
        self, img_dir: str, img_suffix: str, ann_dir: str | None, seg_map_suffix: str, split: str
    ) -> list[dict]:
        """Return one record per line of ``split``; the suffixes are found, not given."""
        pairs, flaws = listed_pairs(split, img_dir, ann_dir)
        refuse(flaws)
        infos = []
        for pair in pairs:
            info: dict = dict(filename=os.path.basename(pair.image))
            if pair.mask is not None:
                info["ann"] = dict(seg_map=os.path.basename(pair.mask))
            infos.append(info)
        return infos

    def pre_pipeline(self, results: dict) -> None:
        """Add what the loading steps need to know of the data set."""
        super().pre_pipeline(results)
        results["num_classes"] = len(self.CLASSES)
        results["road_labels"] = road_labels(self.CLASSES)
        results["ignore_index"] = self.ignore_index
        results["reading"] = self.reading

    def get_gt_seg_map_by_idx(self, index: int) -> np.ndarray:
        """Return the labels (H, W) of image ``index``; where the image is nodata they are ignored."""
        results = dict(img_info=self.img_infos[index], ann_info=self.get_ann_info(index))
        self.pre_pipeline(results)
        return self.gt_seg_map_loader(results)["gt_semantic_seg"]

    def image_reading(self) -> ImageReading:
        """Return how the pipeline reads the images: ``dataset.json``, and what its loading step says above that."""
        for step in self.pipeline.transforms:
            if isinstance(step, LoadRoadImage):
                return step.reading(dict(reading=self.reading))
        return self.reading

    def _check_colour_order(self) -> None:
        bands = self.image_reading().bands
        if bands is None or len(bands) == 3:
            return
        steps = list(self.pipeline.transforms)
        for step in steps:
            steps += getattr(getattr(step, "transforms", None), "transforms", [])
            if getattr(step, "to_rgb", False):
                raise ConfigError(
                    f"{len(bands)} bands are read ({METADATA_FILE} or LoadRoadImage), but Normalize has to_rgb=True, "
                    "which is for three; set step_args=dict(Normalize=dict(to_rgb=False, mean=..., std=...))"
                )

    def picture(self, index: int) -> np.ndarray:
        """Return image ``index`` to look at: RGB uint8 (H, W, 3), the first three of its bands."""
        image, _ = self.image_reading().read(self.image_path(index))
        return rgb_of(image)

    def image_path(self, index: int) -> str:
        """Return the path of image ``index``."""
        return os.path.join(self.img_dir, self.img_infos[index]["filename"])

    def mask_path(self, index: int) -> str:
        """Return the path of the mask of image ``index``."""
        return os.path.join(self.ann_dir, self.img_infos[index]["ann"]["seg_map"])

    def pre_eval(self, preds: list, indices: list[int]) -> list[tuple[torch.Tensor, ...]]:
        """Return areas of intersection, union, prediction and truth per class for each image, in float64.

        Raises:
            DataError: a prediction and its mask differ in size.
        """
        areas = []
        for pred, index in zip(preds, indices, strict=True):
            truth = self.get_gt_seg_map_by_idx(index)
            check_same_size(truth.shape, pred.shape, self.mask_path(index), self.image_path(index))
            per_class = intersect_and_union(pred, truth, len(self.CLASSES), self.ignore_index)
            areas.append(tuple(area.double() for area in per_class))
        return areas

    def evaluate(
        self,
        results: list[tuple[torch.Tensor, ...]],
        metric: Sequence[str] = ("mIoU",),
        logger: object = None,
        **_: object,
    ) -> dict[str, float]:
        """Print MMSegmentation's tables and return the same figures, 0 to 1, not rounded.

        Args:
            results: what `pre_eval` returned for every image, in order.
            metric: of mIoU, mDice, mFscore.
            logger: where the tables go; None prints them, ``'silent'`` drops them.
        """
        metrics = [metric] if isinstance(metric, str) else list(metric)
        super().evaluate(results, metrics, logger)
        scores = {}
        for name, values in pre_eval_to_metrics(results, metrics).items():
            values = np.asarray(values)
            if values.ndim == 0:
                scores[name] = float(values)
                continue
            scores[f"m{name}"] = float(np.nanmean(values))
            scores.update({f"{name}.{label}": float(v) for label, v in zip(self.CLASSES, values, strict=True)})
        return scores
