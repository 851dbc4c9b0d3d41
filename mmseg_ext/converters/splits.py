"""Which scene trains, validates and tests."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Sequence

from ..errors import ConfigError, DataError
from .settings import Settings

SPLITS = ("train", "val", "test")


def read_names(path: str) -> list[str]:
    """Return the names in a list file, one a line, without suffix.

    Raises:
        DataError: missing, empty or no UTF-8 text.
    """
    try:
        with open(path, encoding="utf-8") as lines:
            names = [line.strip() for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of names ({error}); give one name a line") from None
    if not names:
        raise DataError(f"{path}: the list is empty; give one name a line")
    return names


def _groups(names: Sequence[str], pattern: str | None) -> dict[str, list[str]]:
    """Return the names of each scene; without a pattern every name is a scene of its own."""
    if pattern is None:
        return {name: [name] for name in names}
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--scene {pattern!r} is no regular expression ({error})") from None
    groups: dict[str, list[str]] = {}
    for name in names:
        match = compiled.search(name)
        if match is None or not compiled.groups:
            raise ConfigError(f"--scene {pattern!r} finds no group in the name {name}; give one like '(.+)_[0-9]+$'")
        groups.setdefault(match.group(1), []).append(name)
    return groups


def _by_list(names: Sequence[str], val_list: str, test_list: str | None) -> dict[str, str]:
    split_of = dict.fromkeys(names, "train")
    for split, path in (("val", val_list), ("test", test_list)):
        for line in read_names(path) if path else []:
            name = line if line in split_of else os.path.splitext(line)[0]
            if name not in split_of:
                raise DataError(f"{path}: {line} is no image of this data set; mend the list")
            if split_of[name] != "train":
                raise DataError(f"{path}: {line} is listed twice, or for validation and test; keep one")
            split_of[name] = split
    if "train" not in split_of.values():
        raise DataError(f"{val_list}: lists every image, so none is left for training; shorten it")
    return split_of


def assign_splits(names: Sequence[str], settings: Settings) -> dict[str, str]:
    """Return the split of every name, by lists, at random or in the order of names; scenes stay together.

    Raises:
        DataError: the shares leave nothing, or a list does not fit.
        ConfigError: the pattern of scenes does not fit the names.
    """
    if settings.val_list:
        return _by_list(names, settings.val_list, settings.test_list)
    if settings.test_list:
        raise ConfigError("--test-list needs --val-list")
    groups = _groups(names, settings.scene)
    order = sorted(groups)
    wanted = settings.val, settings.test
    sizes = [round(part * len(order)) if part < 1 else int(part) for part in wanted]
    if sizes[0] < 1 or (settings.test and not sizes[1]) or sum(sizes) >= len(order):
        what = "image(s)" if settings.scene is None else f"scene(s) ({len(names)} images)"
        raise DataError(
            f"{len(order)} {what} cannot give {settings.val:g} for validation and {settings.test:g} for test and leave "
            "some for training; change --val or --test (1 is one of them), or split each image by its area: --by-area"
        )
    if not settings.by_name:
        random.Random(settings.seed).shuffle(order)
    splits = ["train"] * (len(order) - sum(sizes)) + ["val"] * sizes[0] + ["test"] * sizes[1]
    return {name: split for group, split in zip(order, splits, strict=True) for name in groups[group]}


def area_parts(height: int, width: int, settings: Settings) -> dict[str, tuple[int, int, int, int]]:
    """Return (row, column, height, width) of the part of an image for each split, along its longer side.

    Raises:
        ConfigError: the shares are no shares, or leave nothing for training.
    """
    if not 0 < settings.val < 1 or not 0 <= settings.test < 1 or settings.val + settings.test >= 1:
        raise ConfigError("--by-area needs --val and --test as shares of an image, below 1 together")
    length = max(height, width)
    edges = [0, round((1 - settings.val - settings.test) * length), round((1 - settings.test) * length), length]
    parts = {}
    for split, start, end in zip(SPLITS, edges[:-1], edges[1:], strict=True):
        if end > start:
            along = (start, 0, end - start, width) if height >= width else (0, start, height, end - start)
            parts[split] = along
    return parts
