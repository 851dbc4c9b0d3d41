"""Road pixels of probabilities stored as integers."""

import numpy as np
import pytest
import rasterio

from mmseg_ext.errors import DataError
from mmseg_ext.networks.extraction import RoadRaster


def stored(path, scale, offset):
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (scale,), (offset,)
    return path


def test_probabilities_are_scaled_and_shifted_as_the_file_says(raster):
    values = np.array([[50, 100, 150], [99, 101, 255]], np.uint8)
    path = stored(raster(values, nodata=255), 0.01, -0.5)
    with RoadRaster(path, threshold=0.495) as roads:
        found, valid = roads.values(0, 0, 2, 3)
        assert roads.is_probability
        assert found == pytest.approx(np.array([[0, 0.5, 1], [0.49, 0.51, 0]]), abs=1e-6)
        assert roads.road(found, valid).tolist() == [[False, True, True], [False, True, False]]


def test_an_offset_alone_makes_probabilities(raster):
    with RoadRaster(stored(raster(np.array([[1, 2]], np.uint8)), 1.0, -1.0)) as roads:
        found, valid = roads.values(0, 0, 1, 2)
        assert roads.is_probability and roads.road(found, valid).tolist() == [[False, True]]


def test_what_the_offset_takes_out_of_0_to_1_is_refused(raster):
    with RoadRaster(stored(raster(np.array([[0, 100]], np.uint8), name="low.tif"), 0.01, -0.5)) as roads:
        with pytest.raises(DataError, match="low.tif: holds -0.5 to 0.5, which are no probabilities"):
            roads.values(0, 0, 1, 2)
