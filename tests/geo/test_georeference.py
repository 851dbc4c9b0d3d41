import pytest

from mmseg_ext.geo import RasterInfo, ground_sampling_distance


@pytest.mark.parametrize(
    ("crs", "transform", "metres"),
    [
        ("EPSG:32632", (0.4, 0, 500_000, 0, -0.9, 5_000_000), 0.6),  # the mean of both sides: sqrt(0.4 * 0.9)
        ("EPSG:32632", (0.3, 0.4, 0, 0.4, -0.3, 0), 0.5),  # turned: a pixel of 0.5 m
        ("EPSG:2227", (1, 0, 0, 0, -1, 0), 1200 / 3937),  # US survey feet
        ("EPSG:4326", (1e-5, 0, 10, 0, -2e-5, 60), 1.1132),  # at 60 N a degree of longitude is half as long
    ],
)
def test_metres_per_pixel(crs, transform, metres):
    info = RasterInfo("x.tif", 10, 10, 1, "uint8", crs=crs, transform=transform)
    assert ground_sampling_distance(info) == pytest.approx(metres, rel=1e-4)


def test_no_metres_without_a_georeference():
    assert ground_sampling_distance(RasterInfo("x.png", 10, 10, 1, "uint8")) is None
