"""Predictions of the same few validation images at every evaluation, in TensorBoard."""

from __future__ import annotations

import os

import cv2
import numpy as np
from mmcv.runner import HOOKS, Hook, IterBasedRunner, TensorboardLoggerHook

from ..report import panel
from .evaluation import EvalHook, Prediction


@HOOKS.register_module()
class PredictionSamplesHook(Hook):
    """Shows image, truth and prediction of a few validation images; does nothing without TensorBoard.

    The images are spread evenly over those that the first process evaluates, so no network runs twice.

    Args:
        count: number of images; 0 for none.
        max_size_px: longest side of each picture; larger images are scaled down.
    """

    def __init__(self, count: int = 4, max_size_px: int = 512) -> None:
        self.count, self.max_size_px = count, max_size_px

    def before_run(self, runner: IterBasedRunner) -> None:
        """Listen to the evaluation."""
        boards = [hook for hook in runner.hooks if isinstance(hook, TensorboardLoggerHook)]
        evaluations = [hook for hook in runner.hooks if isinstance(hook, EvalHook)]
        if runner.rank or not self.count or not boards or not evaluations:
            return
        (self._board, *_), (evaluation, *_) = boards, evaluations
        self._dataset = evaluation.dataloader.dataset
        indices = np.asarray(evaluation.dataloader.sampler)
        spread = np.linspace(0, len(indices) - 1, min(self.count, len(indices)))
        self._shown = set(indices[spread.round().astype(int)].tolist())
        evaluation.on_prediction = self._show

    def before_train_iter(self, runner: IterBasedRunner) -> None:
        """Remember the iteration; a reference to the runner would keep it, and its loader's workers, alive."""
        self._iteration = runner.iter + 1

    def _show(self, found: Prediction) -> None:
        index = found.index
        if index not in self._shown:
            return
        image, truth = self._dataset.picture(index), None
        if self._dataset.ann_dir:
            truth = self._smaller(self._dataset.get_gt_seg_map_by_idx(index), cv2.INTER_NEAREST)
        labels = self._smaller(found.labels, cv2.INTER_NEAREST)
        sheet = panel(self._smaller(image, cv2.INTER_AREA), labels, truth, self._dataset.PALETTE)
        stem = os.path.splitext(self._dataset.img_infos[index]["filename"])[0]
        self._board.writer.add_image(f"predictions/{stem}", sheet, self._iteration, dataformats="HWC")

    def _smaller(self, picture: np.ndarray, interpolation: int) -> np.ndarray:
        """Return ``picture`` (H, W, ...) with at most ``max_size_px`` on a side, uint8."""
        scale = min(1, self.max_size_px / max(picture.shape[:2]))
        return cv2.resize(np.asarray(picture, np.uint8), None, fx=scale, fy=scale, interpolation=interpolation)
