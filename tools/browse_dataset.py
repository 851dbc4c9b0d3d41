#!/usr/bin/env python
"""Look at what the network sees after augmentation: ``python tools/browse_dataset.py CONFIG --out sheet.html``."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

import mmseg_ext  # noqa: F401  isort: skip  before what is slow to import, for an early Ctrl-C

import numpy as np

from mmseg_ext.errors import ConfigError, run_tool
from mmseg_ext.options import add_config_options

if TYPE_CHECKING:
    from mmcv import Config

    from mmseg_ext.datasets import RoadDataset
    from mmseg_ext.report.contact_sheet import Section, SheetCell


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
    words = f"road {100 * np.mean(labels[counted] != 0):.1f} %" if counted.any() else "all ignored"
    ignored = 100 * np.mean(~counted)
    return f"{words}, ignored {ignored:.1f} %" if ignored >= 0.05 else words


def _network_input(dataset: RoadDataset, index: int, labels: np.ndarray | None) -> SheetCell:
    """Return image ``index`` as the pipeline of ``dataset`` hands it to the network.

    In evaluation, whose pipeline has no masks, ``labels`` (H, W) are shown: the mask on the disk, None without one.
    """
    import cv2
    from mmcv.parallel import DataContainer

    from mmseg_ext.report.contact_sheet import SheetCell

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
    """Draw ``count`` images of ``dataset``, in training repeatedly if need be, each beside what the network sees."""
    from mmseg_ext.engine.distributed import seed_everything
    from mmseg_ext.report.contact_sheet import Section, SheetCell

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
    text = "Left: the image on the disk. Right: what the network sees, after all steps of the pipeline."
    if seen:
        text += f" Without any road: {without} of {len(seen)}."
    return [Section(f"{len(order)} draws from {len(dataset)} images", cells, text)]


def write_sheet(cfg: Config, path: str, split: str, count: int, seed: int) -> None:
    """Write a contact sheet of what the network of ``cfg`` sees of a split."""
    from mmseg.datasets import build_dataset

    from mmseg_ext.datasets.several import build_training_set, parts_of
    from mmseg_ext.engine.config import config_mistakes
    from mmseg_ext.report.contact_sheet import write_contact_sheet

    if count < 1:
        raise ConfigError(f"--count {count}: give the number of images, 1 or more")
    with config_mistakes(cfg):
        settings = cfg.data[split]
        whole = build_training_set(settings) if split == "train" else build_dataset(settings, dict(test_mode=True))
    dataset, *others = parts_of(whole)
    title = f"{os.path.basename(cfg.filename)}, {split}"
    sections = [section for part in (dataset, *others) for section in sample_sections(part, count, seed)]
    labels = dict(classes=dataset.CLASSES, ignore_index=dataset.ignore_index)
    write_contact_sheet(path, title, sections, dataset.PALETTE, **labels)


def main() -> None:
    """Write the contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="a leaf below myconfigs/")
    parser.add_argument("--split", choices=["train", "val", "test"], default="train")
    parser.add_argument("--count", type=int, default=24, help="number of images (default: 24)")
    text = ".html, .png or .jpg to write (default: work_dirs/<config>/browse_<split>.html)"
    parser.add_argument("--out", metavar="FILE", help=text)
    parser.add_argument("--seed", type=int, default=0, help="of the choice and the augmentation (default: 0)")
    add_config_options(parser)
    args = parser.parse_args()

    from mmseg_ext.engine import load_config

    cfg = load_config(args.config, args.cfg_options)
    name = os.path.splitext(os.path.basename(cfg.filename))[0]
    path = args.out or os.path.join("work_dirs", name, f"browse_{args.split}.html")
    write_sheet(cfg, path, args.split, args.count, args.seed)
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    run_tool(main)
