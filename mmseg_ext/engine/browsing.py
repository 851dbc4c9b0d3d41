"""What the network sees of a data set, after augmentation, for people to look at."""

from __future__ import annotations

import os

import cv2
import numpy as np
from mmcv import Config
from mmcv.parallel import DataContainer
from mmseg.datasets import build_dataset

from ..datasets import RoadDataset
from ..errors import ConfigError
from ..report.contact_sheet import Section, SheetCell, write_contact_sheet
from .config import config_mistakes
from .distributed import seed_everything


def _input_picture(image: np.ndarray, norm: dict) -> np.ndarray:
    """Return the network's input (B, H, W), normalised by ``norm``, as RGB uint8 (H, W, 3)."""
    picture = image.transpose(1, 2, 0) * norm["std"] + norm["mean"]
    if picture.shape[2] < 3:
        picture = picture[:, :, [0, 0, 0]]
    elif picture.shape[2] == 3 and not norm["to_rgb"]:
        picture = picture[:, :, ::-1]
    return np.ascontiguousarray(picture[:, :, :3].round().clip(0, 255).astype(np.uint8))


def _shares(labels: np.ndarray | None, ignore_index: int) -> str:
    """Return in words how much of ``labels`` (H, W) is road, and how much is ignored."""
    if labels is None:
        return "no mask"
    counted = labels != ignore_index
    words = f"road {100 * np.mean(labels[counted] != 0):.1f} %" if counted.any() else "nothing counts"
    ignored = 100 * np.mean(~counted)
    return f"{words}, ignored {ignored:.1f} %" if ignored >= 0.05 else words


def _network_input(dataset: RoadDataset, index: int, labels: np.ndarray | None) -> SheetCell:
    """Return image ``index`` as the pipeline of ``dataset`` hands it to the network.

    Args:
        dataset: of training, or of evaluation; the latter has no masks in its pipeline.
        index: number of the image.
        labels: its mask (H, W) as it lies on the disk, None where there is none.
    """
    item = dataset[index]
    image, meta = item["img"], item["img_metas"]
    if isinstance(image, list):  # MultiScaleFlipAug gives one entry per scale
        image, meta = image[0], meta[0]
    image = image.data if isinstance(image, DataContainer) else image
    meta = meta.data
    height, width = image.shape[1:]
    if "gt_semantic_seg" in item:
        labels = item["gt_semantic_seg"].data[0].numpy().astype(np.uint8)
    elif labels is not None:
        labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    scale = float(np.ravel(meta["scale_factor"])[0])
    note = f"{width}x{height} px, scale {scale:.2f}, {_shares(labels, dataset.ignore_index)}"
    return SheetCell(_input_picture(image.numpy(), meta["img_norm_cfg"]), labels, "what the network sees", note)


def sample_sections(dataset: RoadDataset, count: int, seed: int = 0) -> list[Section]:
    """Draw images of ``dataset`` and return each beside what the network sees of it.

    Args:
        dataset: of training, or of evaluation (``test_mode=True``).
        count: number of images; in training, a small data set is gone through repeatedly.
        seed: of the choice and of the augmentation.

    Raises:
        DataError: an image or a mask cannot be read.
    """
    seed_everything(seed)
    order = np.random.default_rng(seed).permutation(len(dataset))
    order = np.resize(order, count if not dataset.test_mode else min(count, len(dataset)))
    cells = []
    for index in map(int, order):
        labels = None if dataset.ann_dir is None else dataset.get_gt_seg_map_by_idx(index)
        picture = dataset.picture(index)
        name = dataset.img_infos[index]["filename"]
        note = f"{picture.shape[1]}x{picture.shape[0]} px, {_shares(labels, dataset.ignore_index)}"
        cells += [SheetCell(picture, labels, name, note), _network_input(dataset, index, labels)]
    seen = [cell.labels for cell in cells[1::2] if cell.labels is not None]
    without = sum(not np.any((labels != 0) & (labels != dataset.ignore_index)) for labels in seen)
    text = "Left: the image as it lies on the disk. Right: what the network sees, after all steps of the pipeline."
    if seen:
        text += f" Without any road: {without} of {len(seen)}."
    return [Section(f"{len(order)} draws from {len(dataset)} images", cells, text)]


def browse_dataset(cfg: Config, path: str, split: str = "train", count: int = 24, seed: int = 0) -> None:
    """Write a contact sheet of what the network of ``cfg`` sees.

    Args:
        cfg: what `load_config` returned.
        path: file to write, .html, .png or .jpg.
        split: ``train``, ``val`` or ``test``.
        count: number of images.
        seed: of the choice and of the augmentation.

    Raises:
        ConfigError: a setting does not fit, or the sheet cannot be written.
        DataError: an image or a mask cannot be read.
    """
    if count < 1:
        raise ConfigError(f"{count} images make no contact sheet; give a count of 1 or more")
    with config_mistakes(cfg):
        dataset = build_dataset(cfg.data[split], dict(test_mode=split != "train"))
    write_contact_sheet(
        path,
        f"{os.path.basename(cfg.filename)}, {split}",
        sample_sections(dataset, count, seed),
        dataset.PALETTE,
        classes=dataset.CLASSES,
        ignore_index=dataset.ignore_index,
    )
