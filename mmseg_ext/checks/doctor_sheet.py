"""The label doctor's contact sheet: suspicious tiles first, then random ones of every split."""

from __future__ import annotations

import os
import random

import numpy as np

from ..datasets.raw_mask import is_black_and_white, read_grey, repaired_labels
from ..datasets.road_dataset import ROAD_PALETTE
from ..errors import DataError
from ..report.contact_sheet import Cell, Section, write_contact_sheet
from .diagnosis import Diagnosis
from .finding import shown
from .pair import Pair
from .pair_facts import image_as_seen
from .split import Split

_UNREADABLE_PX = 64
_COLOURS = ((0, 0, 0), (255, 0, 60), (0, 160, 255), (255, 200, 0), (0, 200, 90), (200, 0, 255))


def write_doctor_sheet(diagnosis: Diagnosis, path: str, samples: int = 6, seed: int = 0) -> None:
    """Write findings and tiles of ``diagnosis`` as one page (.html) or picture (.png, .jpg).

    Args:
        diagnosis: what `examine` returned.
        path: file to write.
        samples: most tiles shown of each finding and each split.
        seed: seed of the random tiles.

    Raises:
        ConfigError: the file cannot be written.
    """
    pairs = {
        name: (pair, split)
        for split, facts in diagnosis.examined
        for pair in (fact.pair for fact in facts)
        for name in (pair.image, pair.mask)
        if name is not None
    }
    sections = []
    for finding in diagnosis.findings:
        cells = []
        for file in [file for file in finding.files if file in pairs][:samples]:
            cells.append(_cell(*pairs[file], shown(file), shown(finding.files[file])))
            if (other := finding.others.get(file)) in pairs:
                cells.append(_cell(*pairs[other], shown(other)))
        if cells:
            text = f"{len(finding.files)} file(s). {finding.remedy[:1].upper()}{finding.remedy[1:]}."
            sections.append(Section(f"{finding.severity}: {finding.message} [{finding.code}]", cells, text))
    for split, facts in diagnosis.examined:
        some = random.Random(seed).sample([fact.pair for fact in facts], min(samples, len(facts)))
        cells = [_cell(pair, split, shown(pair.stem)) for pair in some]
        sections.append(Section(f"{split.name}: {len(cells)} of {len(facts)} at random", cells))
    classes = diagnosis.examined[0][0].classes if diagnosis.examined else ()
    palette = [_COLOURS[i % len(_COLOURS)] for i in range(max(len(classes), len(ROAD_PALETTE)))]
    title = f"Label doctor: {shown(diagnosis.source)}"
    write_contact_sheet(path, title, sections, palette[: len(classes)], diagnosis.summary_html(), classes=classes)


def _cell(pair: Pair, split: Split, caption: str, note: str = "") -> Cell:
    try:
        image, _ = image_as_seen(pair.image, split)
    except DataError:
        image = np.full((_UNREADABLE_PX, _UNREADABLE_PX, 3), 128, np.uint8)
    picture = np.ascontiguousarray(image[:, :, [0, 1, 2] if image.shape[2] >= 3 else [0, 0, 0]])
    labels = _labels(pair, split)
    if labels is not None and labels.shape != picture.shape[:2]:
        note = note or "mask and image differ in size"
        labels = None
    return Cell(picture, labels, caption, note or os.path.basename(pair.image) * (caption != shown(pair.stem)))


def _labels(pair: Pair, split: Split) -> np.ndarray | None:
    """Return what can be shown of the mask, also of one that is no good; None where nothing can."""
    if pair.mask is None:
        return None
    try:
        if not split.raw:
            return repaired_labels(pair.mask, len(split.classes))
        grey = read_grey(pair.mask)
    except DataError:
        return None
    return (grey >= 128).astype(np.uint8) if is_black_and_white(np.bincount(grey.ravel(), minlength=256)) else grey
