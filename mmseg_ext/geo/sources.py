"""The files that the content of a raster or vector file depends on: its own, those beside it, those that it names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from xml.etree import ElementTree

from ..errors import DataError

_BESIDE = {".shp": (".dbf", ".shx", ".prj", ".cpg")}  # in place of the suffix
_BEHIND = (".msk", "-wal")  # after the suffix: a mask of valid pixels, what SQLite has not yet put into its file
_HEAD = 4096
_NO_FILE = re.compile(r"/vsi|\w{2,}:|<")  # archives, networks, parts of files, sources written inside


def source_files(path: str) -> list[str]:
    """Return the existing files that what is at ``path`` depends on, itself first.

    A virtual raster (VRT) depends on its sources, which may be virtual themselves. Overviews and statistics, which
    programs write when they show a file, are left out.

    Raises:
        DataError: a source of a virtual raster is missing.
    """
    found = [path]
    for file in found:  # grows
        stem, suffix = os.path.splitext(file)
        beside = [*(stem + end for end in _BESIDE.get(suffix.lower(), ())), *(file + end for end in _BEHIND)]
        named = list(dict.fromkeys(_named_in(file)))
        if missing := [source for source in named if not os.path.exists(source)]:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise DataError(f"{file}: its source {missing[0]} is missing{more}; restore it, or build the VRT anew")
        found += [file for file in (*filter(os.path.isfile, beside), *named) if file not in found]
    return found


def _named_in(path: str) -> Iterator[str]:
    """Yield the files that a virtual raster names; nothing for other files."""
    if not os.path.isfile(path):
        return
    with open(path, "rb") as file:
        if b"<VRTDataset" not in file.read(_HEAD):
            return
        file.seek(0)
        try:
            tree = ElementTree.parse(file)
        except ElementTree.ParseError:
            return  # GDAL will say so
    for element in tree.iter():
        name = (element.text or "").strip()
        if element.tag in ("SourceFilename", "SourceDataset") and name:
            place = os.path.join(os.path.dirname(path), name) if element.get("relativeToVRT") == "1" else name
            if os.path.exists(place) or not _NO_FILE.match(name):
                yield os.path.normpath(place)
