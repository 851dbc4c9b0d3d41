"""The label doctor: finds everything that spoils a data set, and the part of it that every run does first."""

from __future__ import annotations

import html
import logging
import os
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

import numpy as np
from torch.utils.data import Dataset
from tqdm import tqdm

from ..datasets.road_dataset import RoadDataset
from ..datasets.several import parts_of
from ..errors import DataError
from ..imagery.raw_mask import is_black_and_white, read_grey, repaired_labels
from ..imagery.reading import read_pixels, rgb_of
from ..imagery.voc import ROAD_PALETTE, Pair
from ..report.contact_sheet import Section, SheetCell, write_contact_sheet
from .findings import Finding, Problem, gather, shown
from .leakage import leaks, shared_names
from .pairs import PairFacts, Split, as_seen, measure_pair
from .splits import SplitStatistics, apply_split_rules, count_unlisted, numbered, split_of_dataset

_SHOWN_FILES = 3
_THREADS = 8
_UNREADABLE_PX = 64
_COLOURS = ((0, 0, 0), (255, 0, 60), (0, 160, 255), (255, 200, 0), (0, 200, 90), (200, 0, 255))

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Diagnosis:
    """Findings and figures.

    Attributes:
        source: config or folder that was examined.
        findings: errors first.
        statistics: figures of every split.
        unlisted: images beside the listed ones that no split lists.
        quick: whether the images' pixels were left unread.
        examined: every split with its pairs' facts.
    """

    source: str
    findings: tuple[Finding, ...]
    statistics: tuple[SplitStatistics, ...]
    unlisted: int = 0
    quick: bool = False
    examined: Sequence[tuple[Split, Sequence[PairFacts]]] = field(default=(), repr=False)

    @property
    def exit_code(self) -> int:
        """0 without findings, 1 with warnings only, 2 with errors."""
        severities = {finding.severity for finding in self.findings}
        return 2 if "error" in severities else int(bool(severities))

    @property
    def root(self) -> str | None:
        """The folder that holds all splits; None for raw folders and for splits in several places."""
        roots = {os.path.dirname(os.path.abspath(split.images_dir)) for split, _ in self.examined}
        return roots.pop() if len(roots) == 1 and not any(split.raw for split, _ in self.examined) else None

    def as_dict(self) -> dict:
        """Return plain values for JSON."""
        return dict(
            source=shown(self.source),
            exit_code=self.exit_code,
            quick=self.quick,
            findings=[finding.as_dict() for finding in self.findings],
            splits=[asdict(statistics) for statistics in self.statistics],
            unlisted_images=self.unlisted,
        )

    def text(self) -> str:
        """Return the report for a terminal, ending with a line break."""
        lines = [shown(self.source), "", *_table(self.statistics)]
        for statistics in self.statistics:
            lines += statistics.advice()
        if self.unlisted:
            lines.append(f"images that no split lists: {self.unlisted}")
        for finding in self.findings:
            lines += ["", f"{finding.severity}: {finding.kind.message} [{finding.code}]"]
            files = list(finding.files.items())
            for path, words in files[:_SHOWN_FILES]:
                lines.append(f"    {shown(path)}" + (f": {shown(words)}" if words else ""))
            if len(files) > _SHOWN_FILES:
                lines.append(f"    ... and {len(files) - _SHOWN_FILES} more")
            remedy = "--fix DEST writes a repaired copy" if finding.kind.fixable else finding.kind.remedy
            lines.append(f"  -> {remedy}")
        return "\n".join([*lines, "", self._verdict(), ""])

    def _verdict(self) -> str:
        if not self.findings:
            return "nothing wrong was found" + (" (images were not looked into: --quick)" if self.quick else "")
        counts = [(sum(f.severity == kind for f in self.findings), kind) for kind in ("error", "warning")]
        return ", ".join(f"{count} {kind}{'s' * (count > 1)}" for count, kind in counts if count)


def _table(statistics: Sequence[SplitStatistics]) -> list[str]:
    """Return aligned lines with a row for each split."""
    rows = [["split", "pairs", "size", "bands", "labels", "without road"], *(s.row() for s in statistics)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def examine(source: str, splits: Sequence[Split], problems: Sequence[Problem] = (), quick: bool = False) -> Diagnosis:
    """Return everything that is wrong with ``splits``, also the ``problems`` that were found with them.

    ``source`` names the config or folder. With ``quick`` only masks and headers are read, not the images.
    """
    groups = _same_splits(splits)
    examined = measure_splits([group[0] for group in groups], decode=not quick)
    found = [*problems, *defects(examined, quick)]
    return Diagnosis(
        source=source,
        findings=tuple(gather(found)),
        statistics=tuple(
            SplitStatistics.of([split.name for split in group], split, facts)
            for group, (split, facts) in zip(groups, examined, strict=True)
        ),
        unlisted=count_unlisted(splits),
        quick=quick,
        examined=examined,
    )


def measure_splits(splits: Sequence[Split], decode: bool) -> list[tuple[Split, list[PairFacts]]]:
    """Return every split with the facts of its pairs, read in parallel; ``decode`` reads the images' pixels too."""
    work = [(pair, split) for split in splits for pair in split.pairs]
    threads = min(_THREADS, os.cpu_count() or 1) if decode else _THREADS
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(lambda job: measure_pair(job[0], job[1], decode), work)
        title, unit = ("examining", "pair") if decode else ("checking masks", "mask")
        facts = iter(tqdm(found, desc=title, total=len(work), unit=unit, disable=None, leave=False))
        return [(split, [next(facts) for _ in split.pairs]) for split in splits]


def defects(examined: Sequence[tuple[Split, list[PairFacts]]], quick: bool) -> list[Problem]:
    """Return the defects of the pairs, of the splits and between the splits."""
    # the rules of a split may add to what its pairs said, or take it back
    of_splits = apply_split_rules(examined)
    of_pairs = [problem for _, facts in examined for fact in facts for problem in fact.problems]
    between = shared_names([split for split, _ in examined]) if quick else leaks(examined)
    return [*of_pairs, *of_splits, *between]


def _same_splits(splits: Sequence[Split]) -> list[list[Split]]:
    """Return the splits in groups of the same images: the test split may well be the validation split."""
    groups: dict[object, list[Split]] = {}
    for split in splits:
        key = split.name if split.trains or not split.pairs else frozenset(split.contents())
        groups.setdefault(key, []).append(split)
    return list(groups.values())


def write_doctor_sheet(diagnosis: Diagnosis, path: str, samples: int = 6, seed: int = 0) -> None:
    """Write a contact sheet, one page (.html) or picture (.png, .jpg): suspicious tiles, then random ones by ``seed``.

    At most ``samples`` tiles of each finding and of each split are shown.

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
            text = f"{len(finding.files)} file(s). {finding.kind.remedy[:1].upper()}{finding.kind.remedy[1:]}."
            sections.append(Section(f"{finding.severity}: {finding.kind.message} [{finding.code}]", cells, text))
    for split, facts in diagnosis.examined:
        some = random.Random(seed).sample([fact.pair for fact in facts], min(samples, len(facts)))
        cells = [_cell(pair, split, shown(pair.stem)) for pair in some]
        sections.append(Section(f"{split.name}: {len(cells)} of {len(facts)} at random", cells))
    classes = diagnosis.examined[0][0].classes if diagnosis.examined else ()
    palette = [_COLOURS[i % len(_COLOURS)] for i in range(max(len(classes), len(ROAD_PALETTE)))]
    title, summary = f"Label doctor: {shown(diagnosis.source)}", f"<pre>{html.escape(diagnosis.text())}</pre>"
    write_contact_sheet(path, title, sections, palette[: len(classes)], summary, classes=classes)


def _cell(pair: Pair, split: Split, caption: str, note: str = "") -> SheetCell:
    try:
        image, _ = as_seen(*read_pixels(pair.image, bands=split.reading.bands), pair.image, split)
    except DataError:
        image = np.full((_UNREADABLE_PX, _UNREADABLE_PX, 3), 128, np.uint8)
    picture = rgb_of(image)
    labels = _labels(pair, split)
    if labels is not None and labels.shape != picture.shape[:2]:
        note = note or "mask and image differ in size"
        labels = None
    return SheetCell(picture, labels, caption, note or os.path.basename(pair.image) * (caption != shown(pair.stem)))


def _labels(pair: Pair, split: Split) -> np.ndarray | None:
    """Return what can be shown of the mask, also of an unusable one; None where nothing can."""
    if pair.mask is None:
        return None
    try:
        if not split.raw:
            return repaired_labels(pair.mask, len(split.classes))
        grey, valid = read_grey(pair.mask)
    except DataError:
        return None
    if is_black_and_white(np.bincount(grey.ravel(), minlength=256)):
        grey = (grey >= 128).astype(np.uint8)
    return grey if valid is None else np.where(valid, grey, split.ignore_index).astype(np.uint8)


def check_datasets(**datasets: Dataset | None) -> None:
    """Read every mask and every image's header once and refuse what would spoil a run; log what looks odd.

    This is the part of the label doctor that needs no pixels of the images. ``datasets`` are named by what they are
    for: ``train``, ``val``, ``test``; each may be several. Those of another kind, or without masks, are skipped.

    Raises:
        DataError: names the first file with an error, and how many more there are.
    """
    splits = [
        split_of_dataset(name, part)
        for whole, dataset in datasets.items()
        for name, part in numbered(whole, parts_of(dataset))
        if isinstance(part, RoadDataset) and part.ann_dir is not None
    ]
    findings = gather(defects(measure_splits(splits, decode=False), quick=True))
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        more = sum(len(finding.files) for finding in errors) - 1
        rest = f"; and {more} more, see: python tools/check_dataset.py CONFIG" if more else ""
        raise DataError(errors[0].line + rest)
    for finding in findings:
        logger.warning(finding.line)
    for split in splits:
        logger.info("%s: %d pairs checked", split.place, len(split.pairs))
