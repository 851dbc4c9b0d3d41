"""What to map: files, folders and patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence

from ..datasets.image_file import IMAGE_SUFFIXES
from ..errors import ConfigError, DataError

RASTER_SUFFIXES = (*IMAGE_SUFFIXES, ".vrt", ".jp2", ".img")


def find_rasters(inputs: Sequence[str]) -> list[str]:
    """Return the rasters that ``inputs`` name, in order, none twice.

    Args:
        inputs: files, folders (all rasters in it), or patterns such as ``flights/*.tif``.

    Raises:
        DataError: nothing is there.
        ConfigError: two rasters have one name, so their results would too.
    """
    found: list[str] = []
    for name in inputs:
        if os.path.isdir(name):
            here = [os.path.join(name, f) for f in sorted(os.listdir(name)) if f.lower().endswith(RASTER_SUFFIXES)]
            if not here:
                raise DataError(f"{name}: holds no raster ({', '.join(RASTER_SUFFIXES)})")
        elif os.path.isfile(name):
            here = [name]
        else:
            here = sorted(path for path in glob.glob(name) if os.path.isfile(path))
            if not here:
                raise DataError(f"{name}: no such file, folder or pattern")
        found += here
    rasters = list(dict.fromkeys(map(os.path.normpath, found)))
    names: dict[str, str] = {}
    for path in rasters:
        stem = os.path.splitext(os.path.basename(path))[0]
        if stem in names:
            raise ConfigError(f"{names[stem]} and {path}: both are called {stem}; map them into two folders")
        names[stem] = path
    return rasters
