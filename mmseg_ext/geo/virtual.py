"""Rasters opened as others: a colour table as red, green, blue and alpha, and alpha as a band of data."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from ..errors import LazyModule
from .sources import opened_as

_PURPOSE = "reading rasters"
rasterio = LazyModule("rasterio", None, _PURPOSE)
vrt = LazyModule("rasterio.vrt", None, _PURPOSE)
_BAND = '<VRTRasterBand dataType="{}" band="{}"><ColorInterp>{}</ColorInterp>{}</VRTRasterBand>'
_SOURCE = (
    '<ComplexSource><SourceFilename relativeToVRT="0">{}</SourceFilename><OpenOptions><OOI key="OVERVIEW_LEVEL">NONE'
    "</OOI></OpenOptions><SourceBand>{}</SourceBand>{}</ComplexSource>"
)


def has_colour_table(raster: Any) -> bool:
    """Return whether the values of an open raster are places in a table of colours."""
    roles = rasterio.enums.ColorInterp
    return raster.colorinterp[0] == roles.palette and raster.colorinterp[1:] in ((), (roles.alpha,))


def expanded(raster: Any, path: str, files: ExitStack) -> Any:
    """Return the open ``raster`` with a colour table at ``path`` as red, green and blue, and alpha where it needs one.

    It is in pixels, without a georeference, and closed with ``files``. Entries of the table without alpha, nodata and
    what an alpha band or mask hides have alpha 0.
    """
    file, table = escape(opened_as(path)), np.array(list(raster.colormap(1).values()))

    def through(entries: np.ndarray, number: int, role: str, hidden: str = "") -> str:
        ends = np.flatnonzero(
            np.diff(entries, prepend=-1) | np.diff(entries, append=-1)
        )  # between them nothing changes
        lookup = ",".join(f"{index}:{entries[index]}" for index in ends)
        return _BAND.format("Byte", number, role, _SOURCE.format(file, 1, f"<LUT>{lookup}</LUT>") + hidden)

    bands = [through(table[:, number], number + 1, role) for number, role in enumerate(("Red", "Green", "Blue"))]
    alpha = np.where((table[:, 3] > 0) & (np.arange(len(table)) != raster.nodata), 255, 0)
    masked = rasterio.enums.MaskFlags.per_dataset in raster.mask_flag_enums[0]
    mask = "2" if raster.count == 2 else "mask,1" if masked else None
    if mask is not None or not alpha.all():
        # a second source on top of the first, of which only what it hides is taken
        hidden = "" if mask is None else _SOURCE.format(file, mask, "<NODATA>255</NODATA>")
        bands.append(through(alpha, 4, "Alpha", hidden))
    return _opened(raster, bands, files)


def with_alpha_as_data(raster: Any, path: str, files: ExitStack) -> Any:
    """Return the open ``raster`` at ``path`` with no band marked as alpha, else as `expanded`."""
    file, kind = escape(opened_as(path)), rasterio.dtypes._gdal_typename(raster.dtypes[0])
    nodata = "" if raster.nodata is None else f"<NoDataValue>{raster.nodata!r}</NoDataValue>"
    bands = [_BAND.format(kind, n, "Undefined", _SOURCE.format(file, n, "") + nodata) for n in raster.indexes]
    return _opened(raster, bands, files)


def _opened(raster: Any, bands: Sequence[str], files: ExitStack) -> Any:
    size = f'rasterXSize="{raster.width}" rasterYSize="{raster.height}"'
    return files.enter_context(rasterio.open(f"<VRTDataset {size}>{''.join(bands)}</VRTDataset>"))


def in_pixels(raster: Any, files: ExitStack) -> Any:
    """Return a raster that `expanded` made so that it resamples colours; by itself it would resample the places."""
    place = dict.fromkeys(("src_transform", "transform"), rasterio.Affine(1, 0, 0, 0, -1, 0))
    nowhere = dict.fromkeys(("src_crs", "crs"), "EPSG:3857")
    size = dict(width=raster.width, height=raster.height)
    # without alpha GDAL warps straight to the wanted size, by the nearest pixel, when all bands are read
    add_alpha = rasterio.enums.ColorInterp.alpha not in raster.colorinterp
    return files.enter_context(vrt.WarpedVRT(raster, add_alpha=add_alpha, **place, **nowhere, **size))
