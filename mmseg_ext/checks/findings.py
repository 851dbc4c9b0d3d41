"""What the label doctor can find: the kinds of defects, a defect of one file, and one kind with all its files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ..datasets.loading import CONVERT_HINT
from ..imagery.voc import REMEDIES

_FIX = "write a repaired copy with: python tools/check_dataset.py DATASET --fix DEST"
_ONE_SPLIT = "leave it in one of the splits"


class Kind(NamedTuple):
    """What is always true of one kind of finding; fixable: ``tools/check_dataset.py --fix`` has one safe answer."""

    severity: str
    message: str
    remedy: str
    fixable: bool = False


def _layout(code: str, message: str, severity: str = "error") -> dict[str, Kind]:
    return {code: Kind(severity, message, REMEDIES[code])}


KINDS = {
    **_layout("no-folder", "a folder of the data set is missing"),
    **_layout("no-split-file", "a split file is missing"),
    **_layout("split-unreadable", "a split file cannot be read"),
    **_layout("split-encoding", "a split file is not plain UTF-8 text"),
    **_layout("empty-split", "a split file names no image"),
    **_layout("line-twice", "a split file names an image twice", "warning"),
    **_layout("no-image", "there is no such image"),
    **_layout("no-mask", "an image has no mask"),
    **_layout("two-files", "two files share one name"),
    **_layout("name-encoding", "a file name is not UTF-8, so no split file can list it"),
    **_layout("name-spaces", "a name begins or ends with a space, which split files cannot say"),
    "image-unreadable": Kind("error", "an image is truncated or damaged", "replace it or take it out of the split"),
    "image-unfit": Kind("error", "an image cannot be read as the data set says", "convert the data set again"),
    "mask-unreadable": Kind("error", "a mask is truncated or damaged", "replace it or take it out of the split"),
    "size": Kind("error", "mask and image differ in size", "export both at the same size"),
    "orientation": Kind(
        "warning",
        "an image has an EXIF orientation, which is not applied: a mask drawn as viewers show it does not fit",
        "turn its pixels before its mask is drawn, such as with: mogrify -auto-orient",
    ),
    "georeference": Kind(
        "error", "mask and image lie on different ground", "export the mask on the image's grid, or fix its header"
    ),
    "folders-exchanged": Kind(
        "error", "the folder of masks holds photographs and that of images holds labels", "exchange the two folders"
    ),
    "mask-photograph": Kind("error", "a photograph stands in place of a mask", "put the mask there"),
    "mask-0-255": Kind("error", "road is written as 255, which is to be ignored", _FIX, True),
    "mask-colour": Kind("error", "a mask has colours or three channels, not labels", _FIX, True),
    "mask-many-colours": Kind(
        "error", "a mask has several colours, and it is not clear which is road", "export roads white on black"
    ),
    "mask-grey": Kind("error", "a mask is grey with soft edges, not labels", _FIX, True),
    "mask-palette": Kind("error", "the palette of a mask says other labels than its values", _FIX, True),
    "mask-deep": Kind("error", "a mask has more than 8 bits a pixel", _FIX, True),
    "mask-labels": Kind("error", "a mask has values that are not labels", CONVERT_HINT),
    "no-road": Kind("error", "a split has no road pixel at all", "choose other images, or fix its masks"),
    "inverted": Kind("warning", "most of a split is labelled as road", "see whether road and background are exchanged"),
    "all-road": Kind("warning", "a whole tile is labelled as road", "look at it"),
    "mostly-empty": Kind(
        "warning", "hardly any tile of a split has road", "leave out most tiles without road, or look for lost masks"
    ),
    "class-absent": Kind("warning", "a class never occurs in a split", "take it out of the config, or label some"),
    "rare-class": Kind("warning", "a class is very rare in training", "give the loss the class weights of this report"),
    "road-on-nothing": Kind(
        "warning", "road is labelled where the image is nodata", "label it 255; training leaves it out anyway"
    ),
    "blank-image": Kind("warning", "an image has one colour only", "take it out of the split"),
    "few-grey-levels": Kind(
        "warning", "an image has 16 grey levels at most", "convert the raw image again, with its full depth"
    ),
    "normalize": Kind(
        "warning", "Normalize of the config does not fit the images", "take the mean and std of this report"
    ),
    "same-name": Kind("error", "an image is listed for training and for evaluation", _ONE_SPLIT),
    "same-picture": Kind("error", "a picture occurs in training and in evaluation", _ONE_SPLIT),
    "same-ground": Kind("error", "tiles of training and of evaluation overlap", "split by scene, not by tile"),
    "same-scene": Kind(
        "warning", "a scene has tiles in training and in evaluation", "split by scene; neighbours are alike"
    ),
    "duplicate": Kind("warning", "a picture occurs twice in a split", "keep one of the two"),
}


class Problem(NamedTuple):
    """One defect of one file; ``severity`` where it is not its kind's, ``other``: a file to compare it with."""

    code: str
    path: str
    words: str = ""
    severity: str = ""
    other: str = ""


def shown(path: str) -> str:
    """Return ``path`` as text that can be written anywhere; bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Finding:
    """One kind of defect and every file that has it.

    Attributes:
        code: key of `KINDS`.
        severity: error: training would fail or its figures would mislead; warning: worth a look.
        files: words on each file (which may be empty) by its path.
        others: by a file's path, another to compare it with.
    """

    code: str
    severity: str
    files: Mapping[str, str]
    others: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """What is always true of such findings."""
        return KINDS[self.code]

    @property
    def line(self) -> str:
        """The first file, what is wrong with it and what to do, in one line."""
        path, words = next(iter(self.files.items()))
        return f"{shown(path)}: {shown(words or self.kind.message)}; {self.kind.remedy}"

    def as_dict(self) -> dict:
        """Return plain values for JSON."""
        return dict(
            severity=self.severity,
            code=self.code,
            message=self.kind.message,
            remedy=self.kind.remedy,
            fixable=self.kind.fixable,
            files=[dict(path=shown(path), what=shown(words)) for path, words in self.files.items()],
        )


def gather(problems: Iterable[Problem]) -> list[Finding]:
    """Return one finding of each kind, errors first, in the order of `KINDS`."""
    groups: dict[tuple[str, str], dict[str, Problem]] = {}
    for problem in problems:
        severity = problem.severity or KINDS[problem.code].severity
        groups.setdefault((severity, problem.code), {}).setdefault(problem.path, problem)
    order = list(KINDS)
    return [
        Finding(
            code,
            severity,
            files={path: problem.words for path, problem in group.items()},
            others={path: problem.other for path, problem in group.items() if problem.other},
        )
        for (severity, code), group in sorted(groups.items(), key=lambda item: (item[0][0], order.index(item[0][1])))
    ]
