import numpy as np
import pytest

from mmseg_ext.geo import write_geotiff


@pytest.fixture
def raster(tmp_path):
    """Return a function that writes an array as a GeoTIFF and returns its path."""

    def write(values, crs="EPSG:32612", transform=(0.5, 0, 500_000, 0, -0.5, 4_000_000), name="roads.tif", **options):
        path = str(tmp_path / name)
        write_geotiff(path, values, crs, transform, **options)
        return path

    return write


@pytest.fixture
def crossing():
    """A mask of two roads, 9 and 5 px wide, that cross in a raster of 200 x 160 px; the narrow one ends inside."""
    mask = np.zeros((200, 160), np.uint8)
    mask[96:105] = 1
    mask[30:170, 60:65] = 1
    return mask
