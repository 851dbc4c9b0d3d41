"""Raw data that says which images train: a tree with a folder for each split, or a list of images and masks."""

from __future__ import annotations

import os
import re
from collections import Counter

from ..errors import DataError
from .raw_mask import find_folders
from .voc import Pair, read_names

_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
_HEADERS = ("image", "images", "img", "filename")


def _split_of(name: str) -> str | None:
    """Return the split that a folder or a word of a list names, None for other words."""
    return next((split for split, names in _NAMES.items() if name.casefold() in names), None)


def _folders_by_split(folder: str) -> dict[str, str]:
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    found = {_split_of(name): os.path.join(folder, name) for name in names if os.path.isdir(os.path.join(folder, name))}
    return {split: found[split] for split in _NAMES if split in found}


def split_folders(source: str) -> dict[str, tuple[str, str]]:
    """Return the folder of images and the folder of masks of each split of a tree; empty where ``source`` is none.

    ``train/images`` beside ``train/masks``, and so for ``val`` and ``test``, or ``images/train`` beside
    ``masks/train``, with the names that `find_folders` knows.

    Raises:
        DataError: a split's folder leaves open where images and masks are, or has no masks.
    """
    by_split = _folders_by_split(source)
    if "train" in by_split:
        return {split: find_folders(folder) for split, folder in by_split.items()}
    try:
        images, masks = find_folders(source)
    except DataError:
        return {}
    by_split = _folders_by_split(images)
    if "train" not in by_split:
        return {}
    masks_of = _folders_by_split(masks)
    for split, folder in by_split.items():
        if split not in masks_of:
            raise DataError(f"{folder}: there is no folder {os.path.basename(folder)} in {masks}; add the masks")
    return {split: (folder, masks_of[split]) for split, folder in by_split.items()}


def listed_files(path: str, source: str) -> list[tuple[str | None, Pair]]:
    """Return the split, None where none is given, and the pair of every line ``image mask [split]`` of a list.

    Columns are separated by tabs, commas or semicolons, or where there are none by spaces; a first line with their
    names is passed over. Files are relative to ``source`` or to the list's folder.

    Raises:
        DataError: a line is not understood, a file is not there, or only some lines name a split.
    """
    found: list[tuple[str | None, Pair]] = []
    for number, line in enumerate(read_names(path)):
        parts = [part.strip() for part in re.split(r"[\t,;]", line)] if re.search(r"[\t,;]", line) else line.split()
        if number == 0 and parts[0].casefold() in _HEADERS:
            continue
        split = _split_of(parts[2]) if len(parts) == 3 else None
        if len(parts) not in (2, 3) or (len(parts) == 3 and split is None):
            raise DataError(
                f"{path}: '{line}' is not an image and its mask, and perhaps train, val or test; put commas between"
            )
        files = []
        for name in parts[:2]:
            places = [os.path.join(folder, name) for folder in (source, os.path.dirname(path))]
            there = next(filter(os.path.isfile, places), None)
            if there is None:
                raise DataError(f"{path}: lists {name}, which is neither in {source} nor beside the list; fix the line")
            files.append(os.path.normpath(there))
        found.append((split, Pair(os.path.splitext(os.path.basename(files[0]))[0], *files)))
    if len({split is None for split, _ in found}) > 1:
        raise DataError(f"{path}: some lines name a split and others none; name it on all of them, or on none")
    return found


def with_own_names(pairs: list[Pair], source: str) -> list[Pair]:
    """Return ``pairs`` in which those that share a stem are named by their path below ``source`` instead."""
    count = Counter(pair.stem for pair in pairs)

    def name(pair: Pair) -> str:
        path = os.path.splitext(os.path.relpath(pair.image, source))[0]
        return pair.stem if count[pair.stem] == 1 else re.sub(r"[/\\]|\.\.", "_", path).strip("_")

    return [pair._replace(stem=name(pair)) for pair in pairs]
