"""The VOC layout of a data set: the only module that knows its folders and the rules of its split files.

::

    <root>/JPEGImages/<stem>.{png,jpg,jpeg,tif,tiff}
    <root>/SegmentationClass/<stem>.{png,tif,tiff}        a class index in each pixel, 255 ignored
    <root>/ImageSets/Segmentation/{train,val,test}.txt    one stem per line
    <root>/dataset.json                                   how the images are read, statistics, origin

Split files are UTF-8. Blank lines and a byte-order mark do no harm; an image that is listed twice counts twice.
"""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError
from ..files import visible, write_text

IMAGES, MASKS, LISTS = "JPEGImages", "SegmentationClass", os.path.join("ImageSets", "Segmentation")
METADATA_FILE = "dataset.json"
SPLITS = ("train", "val", "test")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
MASK_SUFFIXES = (".png", ".tif", ".tiff")
RAW_MASK_SUFFIXES = (*MASK_SUFFIXES, ".jpg", ".jpeg", ".gif", ".bmp")  # before conversion
ROAD_CLASSES = ("background", "road")
ROAD_PALETTE = ((0, 0, 0), (128, 0, 0))
IGNORE = 255

_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_LIST_NAMES = "list one image name (without suffix) per line"
_RENAME = "rename the file and its line in the split file, best to letters, digits, '_' and '-'"
REMEDIES = {
    "no-folder": "set data_root, or convert your data with tools/convert_dataset.py",
    "no-split-file": _LIST_NAMES,
    "split-unreadable": "make it a file that you may read",
    "split-encoding": "save it as UTF-8 without byte-order mark",
    "empty-split": _LIST_NAMES,
    "line-twice": "remove the repeated line",
    "no-image": "add it, or remove its line from the split file",
    "no-mask": "add the mask, or take the image out of the split",
    "two-files": "keep one of them",
    "name-encoding": _RENAME,
    "name-spaces": _RENAME,
}


class Pair(NamedTuple):
    """Paths of an image and of its mask; None without a mask."""

    stem: str
    image: str
    mask: str | None


class Flaw(NamedTuple):
    """What is wrong with a folder, a split file or a name; ``code`` is a key of `REMEDIES`."""

    code: str
    path: str
    words: str
    is_harmless: bool = False


def refuse(flaws: Iterable[Flaw]) -> None:
    """Raise a DataError for the first flaw that does harm, if there is one."""
    for flaw in flaws:
        if not flaw.is_harmless:
            raise DataError(f"{flaw.path}: {flaw.words}; {REMEDIES[flaw.code]}")


def road_labels(classes: Sequence[str]) -> list[int]:
    """Return the labels that are road: that of the class called road, else all but the first."""
    return [list(classes).index("road")] if "road" in classes else list(range(1, len(classes)))


def split_file(root: str, split: str) -> str:
    """Return the path of the file that lists ``split``, one of `SPLITS`."""
    return os.path.join(root, LISTS, f"{split}.txt")


def is_utf8(name: str) -> bool:
    """Return whether a file name is UTF-8, so that a split file can list it."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def list_files(folder: str, suffixes: Sequence[str]) -> list[str]:
    """Return the sorted names of the files in ``folder`` with one of ``suffixes``; none if there is no such folder.

    Hidden files are left out.
    """
    names = visible(folder) if os.path.isdir(folder) else []
    return [name for name in names if os.path.splitext(name)[1].lower() in suffixes]


def _by_stem(folder: str, suffixes: Sequence[str]) -> tuple[dict[str, str], list[Flaw]]:
    """Return the first file name of every stem, and where a further one has the same."""
    found: dict[str, str] = {}
    flaws = []
    for name in list_files(folder, suffixes):
        first = found.setdefault(os.path.splitext(name)[0], name)
        if first != name:
            flaws.append(Flaw("two-files", os.path.join(folder, name), f"{first} and {name} share one name"))
    return found, flaws


def files_by_stem(folder: str, suffixes: Sequence[str]) -> dict[str, str]:
    """Return the names of the files in ``folder`` with one of ``suffixes`` by their stem.

    A missing folder, or two files with one stem, is a DataError.
    """
    if not os.path.isdir(folder):
        refuse([Flaw("no-folder", folder, "no such folder")])
    found, flaws = _by_stem(folder, suffixes)
    refuse(flaws)
    return found


def _read_lines(path: str) -> tuple[list[str], list[Flaw]]:
    """Return the lines of a split file that are not blank; bytes that are not UTF-8 are escaped as in file names."""
    if not os.path.isfile(path):
        beside = os.path.dirname(path)
        near = get_close_matches(os.path.basename(path), os.listdir(beside) if os.path.isdir(beside) else [])
        hint = f"; did you mean {os.path.join(beside, near[0])}?" if near else ""
        return [], [Flaw("no-split-file", path, f"no such split file{hint}")]
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        return [], [Flaw("split-unreadable", path, f"the split file cannot be read ({error.strerror})")]
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), None)
    flaws = []
    if encoding is not None:
        words = f"begins with a byte-order mark ({encoding})"
        flaws.append(Flaw("split-encoding", path, words, is_harmless=encoding == "utf-8-sig"))
    text = content.decode(encoding or "utf-8", "replace" if encoding else "surrogateescape")
    lines = [line for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line.strip()]
    if not lines:
        flaws.append(Flaw("empty-split", path, "the split is empty"))
    return lines, flaws


def read_names(path: str) -> list[str]:
    """Return the names that a split file, or another list of images, holds.

    A file that is missing, empty or not UTF-8 is a DataError.
    """
    lines, flaws = _read_lines(path)
    refuse(flaws)
    names = [line.strip() for line in lines]
    refuse(_no_utf8(path, name) for name in names if not is_utf8(name))
    return names


def _no_utf8(path: str, name: str) -> Flaw:
    return Flaw("split-encoding", path, f"the name {name!r} is not UTF-8")


def listed_pairs(path: str, images_dir: str, masks_dir: str | None) -> tuple[list[Pair], list[Flaw]]:
    """Return the pairs that a split file lists, in its order, and everything that is wrong with them.

    An image listed twice is returned twice. A mask with a suffix that only raw data has is a flaw, and still returned.
    Without masks, ``masks_dir`` is None.
    """
    lines, flaws = _read_lines(path)
    folders = [folder for folder in (images_dir, masks_dir) if folder is not None and not os.path.isdir(folder)]
    if folders:
        return [], [*flaws, *(Flaw("no-folder", folder, "no such folder") for folder in folders)]
    images, twins = _by_stem(images_dir, IMAGE_SUFFIXES)
    flaws += twins
    masks: dict[str, str] = {}
    raw_masks: dict[str, str] = {}
    if masks_dir is not None:
        masks, twins = _by_stem(masks_dir, MASK_SUFFIXES)
        raw_masks = _by_stem(masks_dir, RAW_MASK_SUFFIXES)[0]
        flaws += twins
    pairs: list[Pair] = []
    seen: set[str] = set()
    for line in lines:
        stem = line if line in images else line.strip()
        if stem in seen:
            flaws.append(Flaw("line-twice", path, f"lists {stem} twice", is_harmless=True))
        elif stem not in images and not is_utf8(stem):
            flaws.append(_no_utf8(path, stem))
        elif stem not in images:
            hint = " with its suffix" if os.path.splitext(stem)[0] in images else ""
            flaws.append(
                Flaw("no-image", os.path.join(images_dir, f"{stem}.*"), f"no such image, but {path} lists it{hint}")
            )
        elif not is_utf8(stem):  # no decoder opens such files
            flaws.append(Flaw("name-encoding", os.path.join(images_dir, images[stem]), "the name is not UTF-8"))
        elif stem != stem.strip():
            words = "the name begins or ends with a space"
            flaws.append(Flaw("name-spaces", os.path.join(images_dir, images[stem]), words))
        seen.add(stem)
        if stem not in images or not is_utf8(stem):
            continue
        image, mask = os.path.join(images_dir, images[stem]), None
        if masks_dir is not None:
            name = masks.get(stem) or raw_masks.get(stem)
            mask = name and os.path.join(masks_dir, name)
            if stem not in masks:
                near = f"; {name} is no {' or '.join(s[1:] for s in MASK_SUFFIXES[:2])}" if name else ""
                flaws.append(Flaw("no-mask", image, f"no mask {os.path.join(masks_dir, stem)}{MASK_SUFFIXES[0]}{near}"))
            if mask is None:
                continue
        pairs.append(Pair(stem, image, mask))
    return pairs, flaws


def unlisted_images(images_dir: str, split_files: Iterable[str]) -> list[str]:
    """Return the names of the images in a folder that no split file lists."""
    listed = {line.strip() for path in split_files for line in _read_lines(path)[0]}
    return [name for name in list_files(images_dir, IMAGE_SUFFIXES) if os.path.splitext(name)[0] not in listed]


def unlistable_files(folder: str) -> list[Flaw]:
    """Return the images and masks in ``folder`` that no split file can list, because their names are not UTF-8."""
    return [
        Flaw("name-encoding", os.path.join(folder, name), "the name is not UTF-8")
        for name in list_files(folder, RAW_MASK_SUFFIXES)
        if not is_utf8(name)
    ]


def make_folders(root: str) -> None:
    """Make the folders of a new data set; that of the split files comes with them."""
    for folder in (IMAGES, MASKS):
        os.makedirs(os.path.join(root, folder), exist_ok=True)


def write_split(root: str, split: str, stems: Iterable[str]) -> None:
    """Write the split file of ``split``."""
    write_text(split_file(root, split), "".join(f"{stem}\n" for stem in stems))


def write_metadata(root: str, metadata: dict) -> None:
    """Write ``dataset.json``."""
    write_text(os.path.join(root, METADATA_FILE), json.dumps(metadata, indent=1))


def read_metadata(root: str) -> dict:
    """Return what ``dataset.json`` in ``root`` says, empty where there is none; a DataError if no JSON object."""
    path = os.path.join(root, METADATA_FILE)
    if not os.path.isfile(path):
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            metadata = json.load(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); fix it or convert the data set again") from None
    if not isinstance(metadata, dict):
        raise DataError(f"{path}: not a JSON object; fix it or convert the data set again")
    return metadata
