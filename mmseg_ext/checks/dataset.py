"""What must hold for a data set before anything is trained or measured on it."""

from __future__ import annotations

import logging

from ..datasets import RoadDataset
from ..errors import DataError
from .doctor import defects, survey
from .finding import gather
from .split_files import split_of_dataset

logger = logging.getLogger(__name__)


def check_datasets(**datasets: RoadDataset | None) -> None:
    """Read every mask and every image's header once and refuse what would spoil a run; log what looks odd.

    This is the part of the label doctor that needs no pixels of the images.

    Args:
        datasets: by what they are for: ``train``, ``val``, ``test``. Those of another kind, or without masks, are
            passed over.

    Raises:
        DataError: names the first file with an error, and how many more there are.
    """
    splits = [
        split_of_dataset(name, dataset)
        for name, dataset in datasets.items()
        if isinstance(dataset, RoadDataset) and dataset.ann_dir is not None
    ]
    findings = gather(defects(survey(splits, decode=False), quick=True))
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        more = sum(len(finding.files) for finding in errors) - 1
        rest = f"; and {more} more, see: python tools/check_dataset.py CONFIG" if more else ""
        raise DataError(errors[0].line + rest)
    for finding in findings:
        logger.warning(finding.line)
    for split in splits:
        logger.info("%s: %d pairs checked", split.place, len(split.pairs))


def check_dataset(dataset: RoadDataset) -> None:
    """Check one data set that is not trained on, as `check_datasets` does.

    Raises:
        DataError: names the first file with an error, and how many more there are.
    """
    check_datasets(test=dataset)
