"""Maps and data sets follow the files that their sources name."""

import os

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from bright_network import PLAIN, BrightNetwork

from mmseg_ext.converters.conversion import stamp
from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.geo import RasterSource, raster_info, source_files, write_geotiff
from mmseg_ext.mapping import check_rasters, find_rasters, map_raster

UTM, PLACE = "EPSG:32612", (0.5, 0.0, 500_000.0, 0.0, -0.5, 4_000_000.0)


def picture(path, seed):
    write_geotiff(str(path), np.random.default_rng(seed).integers(0, 255, (70, 60, 3), np.uint8), UTM, PLACE)


@pytest.fixture()
def virtual(tmp_path):
    """A virtual raster of a virtual raster of a GeoTIFF in a folder of its own."""
    (tmp_path / "tiles").mkdir()
    picture(tmp_path / "tiles" / "a.tif", 0)
    rasterio.shutil.copy(str(tmp_path / "tiles" / "a.tif"), str(tmp_path / "tiles" / "inner.vrt"), driver="VRT")
    outer = (tmp_path / "tiles" / "inner.vrt").read_text().replace("a.tif", "tiles/inner.vrt")
    assert outer.count('relativeToVRT="1">tiles/inner.vrt') == 3
    (tmp_path / "pit.vrt").write_text(outer)
    return tmp_path / "pit.vrt"


def test_a_map_is_not_kept_when_a_source_of_its_vrt_is_replaced(virtual, tmp_path):
    files = [str(virtual), str(tmp_path / "tiles" / "inner.vrt"), str(tmp_path / "tiles" / "a.tif")]
    assert source_files(str(virtual)) == files and source_files(files[2]) == files[2:]
    out, before = str(tmp_path / "maps"), stamp(str(virtual))
    made = map_raster(str(virtual), BrightNetwork(), out, PLAIN)
    assert map_raster(str(virtual), BrightNetwork(), out, PLAIN)["key"] == made["key"]
    picture(files[2], 1)
    os.utime(files[2], (1, 1))
    assert stamp(str(virtual)) != before and stamp(str(virtual))[:3] == before[:3]
    with pytest.raises(ConfigError, match="pit.json: is there already, of another raster"):
        map_raster(str(virtual), BrightNetwork(), out, PLAIN)


def test_a_missing_source_is_named_before_the_work(virtual, tmp_path):
    os.remove(tmp_path / "tiles" / "a.tif")
    words = r"inner.vrt: its source .*tiles/a.tif is missing; restore it, or build the VRT anew"
    for look in (raster_info, RasterSource, stamp, lambda path: check_rasters([path], BrightNetwork(), PLAIN)):
        with pytest.raises(DataError, match=words):
            look(str(virtual))


def test_what_lies_beside_a_file_counts_and_what_viewers_write_does_not(tmp_path):
    picture(tmp_path / "a.tif", 0)
    (tmp_path / "roads.shp").touch()
    for name in ("a.tif.msk", "a.tif.ovr", "a.tif.aux.xml", "roads.dbf", "roads.qix"):
        (tmp_path / name).touch()
    assert source_files(str(tmp_path / "a.tif")) == [str(tmp_path / name) for name in ("a.tif", "a.tif.msk")]
    assert source_files(str(tmp_path / "roads.shp")) == [str(tmp_path / name) for name in ("roads.shp", "roads.dbf")]


def test_sources_that_are_no_files_are_left_to_gdal(tmp_path):
    names = ("/vsizip//a.zip/b.tif", "https://a.b/c.tif", "GTIFF_DIR:1:a.tif", "&lt;VRTDataset/&gt;")
    sources = "".join(f"<SourceFilename>{name}</SourceFilename>" for name in names)
    (tmp_path / "a.vrt").write_text(f"<VRTDataset>{sources}</VRTDataset>")
    assert source_files(str(tmp_path / "a.vrt")) == [str(tmp_path / "a.vrt")]


def test_maps_of_earlier_runs_and_hidden_files_are_no_input(tmp_path, caplog):
    picture(tmp_path / "a.tif", 0)
    picture(tmp_path / "b_roads.tif", 0)  # a user's own
    (tmp_path / "b.json").write_text("{}")
    for name in ("._a.tif", ".DS_Store", "Thumbs.db"):
        (tmp_path / name).touch()
    map_raster(str(tmp_path / "a.tif"), BrightNetwork(), str(tmp_path), PLAIN)
    wanted = [str(tmp_path / name) for name in ("a.tif", "b_roads.tif")]
    shell = [str(path) for path in sorted(tmp_path.glob("*.tif"))]
    with caplog.at_level("INFO"):
        for inputs in ([str(tmp_path)], [str(tmp_path / "*.tif")], shell, [*wanted, str(tmp_path / "Thumbs.db")]):
            assert find_rasters(inputs) == wanted
    assert "maps of earlier runs among the inputs are left out" in caplog.text
    (tmp_path / "a.json").unlink()
    (tmp_path / "a.parts").mkdir()
    assert find_rasters([str(tmp_path)]) == wanted
    with pytest.raises(DataError, match="a_roads.tif: only maps of an earlier run"):
        find_rasters([str(tmp_path / "a_roads.tif")])
