"""The kinds of defects that the checks know."""

from __future__ import annotations

from typing import NamedTuple

from ..datasets.pipelines.load_road_mask import CONVERT_HINT

_FIX = "write a repaired copy with: python tools/check_dataset.py DATASET --fix DEST"
_RENAME = "rename the file and its line in the split file, best to letters, digits, '_' and '-'"
_ONE_SPLIT = "leave it in one of the splits"


class Kind(NamedTuple):
    """What is always true of one kind of finding."""

    severity: str
    message: str
    remedy: str
    fixable: bool = False


KINDS = {
    "no-folder": Kind("error", "a folder of the data set is missing", "set data_root, or convert the data"),
    "no-split-file": Kind("error", "a split file is missing", "list one image name (without suffix) a line in it"),
    "split-encoding": Kind("error", "a split file is no plain UTF-8 text", "save it as UTF-8 without byte-order mark"),
    "empty-split": Kind("error", "a split file names no image", "list one image name (without suffix) a line"),
    "line-twice": Kind("warning", "a split file names an image twice", "remove the repeated line"),
    "no-image": Kind("error", "there is no such image", "add it, or remove its line from the split file"),
    "no-mask": Kind("error", "an image has no mask", "add the mask, or take the image out of the split"),
    "two-files": Kind("error", "two files share one name", "keep one of them"),
    "name-encoding": Kind("error", "a file name is no UTF-8, so no split file can name it", _RENAME),
    "name-spaces": Kind("error", "a name begins or ends with a space, which split files cannot say", _RENAME),
    "image-unreadable": Kind("error", "an image is truncated or damaged", "replace it or take it out of the split"),
    "image-unfit": Kind("error", "an image cannot be read as the data set says", "convert the data set again"),
    "mask-unreadable": Kind("error", "a mask is truncated or damaged", "replace it or take it out of the split"),
    "size": Kind("error", "mask and image differ in size", "export both at the same size"),
    "georeference": Kind(
        "error", "mask and image lie on different ground", "export the mask on the image's grid, or mend its header"
    ),
    "folders-exchanged": Kind(
        "error", "the folder of masks holds photographs and that of images holds labels", "exchange the two folders"
    ),
    "mask-photograph": Kind("error", "a photograph stands in place of a mask", "put the mask there"),
    "mask-0-255": Kind("error", "road is written as 255, which is to be ignored", _FIX, True),
    "mask-colour": Kind("error", "a mask has colours or three channels, not labels", _FIX, True),
    "mask-many-colours": Kind(
        "error", "a mask has several colours, and which is road is not said", "export roads white on black"
    ),
    "mask-grey": Kind("error", "a mask is grey with soft edges, not labels", _FIX, True),
    "mask-palette": Kind("error", "the palette of a mask says other labels than its values", _FIX, True),
    "mask-deep": Kind("error", "a mask has more than 8 bits a pixel", _FIX, True),
    "mask-labels": Kind("error", "a mask has values that are no labels", CONVERT_HINT),
    "no-road": Kind("error", "a split has no road pixel at all", "choose its images anew, or mend its masks"),
    "inverted": Kind("warning", "most of a split is labelled as road", "see whether road and background are exchanged"),
    "all-road": Kind("warning", "a whole tile is labelled as road", "look at it"),
    "mostly-empty": Kind(
        "warning", "hardly any tile of a split has road", "leave out most tiles without road, or look for lost masks"
    ),
    "class-absent": Kind("warning", "a class never occurs in a split", "take it out of the config, or label some"),
    "rare-class": Kind("warning", "a class is very rare in training", "give the loss the class weights of this report"),
    "road-on-nothing": Kind(
        "warning", "road is labelled where the image holds nothing", "label it 255; training leaves it out anyway"
    ),
    "blank-image": Kind("warning", "an image has one colour only", "take it out of the split"),
    "few-grey-levels": Kind(
        "warning", "an image has 16 grey levels at most", "go back to the raw image and convert it with its full depth"
    ),
    "normalize": Kind(
        "warning", "Normalize of the config does not fit the images", "take the mean and std of this report"
    ),
    "same-name": Kind("error", "an image is listed for training and for measuring", _ONE_SPLIT),
    "same-picture": Kind("error", "a picture occurs in training and in measuring", _ONE_SPLIT),
    "same-ground": Kind("error", "tiles of training and of measuring overlap", "split by scene, not by tile"),
    "same-scene": Kind(
        "warning", "a scene has tiles in training and in measuring", "split by scene; neighbours are alike"
    ),
    "duplicate": Kind("warning", "a picture occurs twice in a split", "keep one of the two"),
}
