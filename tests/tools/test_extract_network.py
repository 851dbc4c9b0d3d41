import runpy
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from bright_network import BrightNetwork

from mmseg_ext.errors import UserError
from mmseg_ext.geo import write_geotiff
from mmseg_ext.mapping import MapSettings, map_raster, threshold_of

ROOT = Path(__file__).resolve().parents[2]
PLACE = "EPSG:32612", (0.5, 0, 500_000, 0, -0.5, 4_000_000)


@pytest.fixture
def road(tmp_path):
    """The path of a mask with a straight road of 79.5 m, 4.5 m wide."""
    mask = np.zeros((100, 160), np.uint8)
    mask[46:55] = 1
    write_geotiff(str(tmp_path / "road.tif"), mask, *PLACE)
    return tmp_path / "road.tif"


def test_a_mask_becomes_graded_lines(road, tmp_path, run_tool):
    climb = np.tile(np.arange(160, dtype=np.float32) * 0.06, (100, 1))  # 12 percent
    write_geotiff(str(tmp_path / "dem.tif"), climb, *PLACE)
    out = tmp_path / "roads.gpkg"
    done = run_tool("extract_network.py", road, "--dem", tmp_path / "dem.tif", "--out", out)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[-2:] == [
        f"{out}: 1 edges, 0.08 km of road, 2 nodes",
        "1 edges steeper than 10 % over 20 m, 0 with more than 4 % cross-fall",
    ]
    (edge,) = gpd.read_file(out, layer="edges").itertuples()
    assert (edge.length_m, edge.width_median_m) == (79.5, 4.5)
    assert edge.grade_max_percent == pytest.approx(12, abs=0.01) and edge.grade_exceeded
    assert gpd.read_file(out, layer="nodes")["kind"].tolist() == ["border", "border"]
    assert gpd.read_file(out, layer="surface")["area_m2"].tolist() == [9 * 160 / 4]
    assert gpd.read_file(out, layer="grades")["grade_percent"].to_numpy() == pytest.approx([12] * 4, abs=0.01)


def test_a_probability_has_the_threshold_of_its_map(tmp_path, run_tool):
    chance = np.zeros((60, 160), np.uint8)
    chance[20:29], chance[40:49] = 100, 200  # 0.4 and 0.8
    write_geotiff(str(tmp_path / "pit.tif"), np.repeat(chance[:, :, None], 3, 2), *PLACE)
    network = BrightNetwork()
    map_raster(str(tmp_path / "pit.tif"), network, str(tmp_path / "maps"), MapSettings(64, 16, threshold=0.3))
    probability = tmp_path / "maps" / "pit_probability.tif"
    for name, options, roads in (("own", [], 2), ("given", ["--threshold", 0.5], 1)):
        done = run_tool("extract_network.py", probability, "--out", tmp_path / f"{name}.gpkg", *options)
        assert done.returncode == 0, done.stderr
        assert len(gpd.read_file(tmp_path / f"{name}.gpkg", layer="edges")) == roads
        assert ("threshold 0.3, as in its map" in done.stderr) == (not options)
    (tmp_path / "maps" / "pit.json").write_text("[]")
    assert threshold_of(str(probability)) is None
    assert threshold_of(str(tmp_path / "other.tif")) is None


@pytest.fixture
def refused(monkeypatch):
    """Return a function that runs the tool on wrong input and returns its message."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["extract_network.py", *map(str, arguments)])
        with pytest.raises(UserError) as error:
            runpy.run_path(str(ROOT / "tools" / "extract_network.py"))["main"]()
        return str(error.value)

    return run


def test_what_cannot_become_a_file_is_refused_before_the_work(road, refused, tmp_path):
    out = tmp_path / "roads.gpkg"
    assert refused(road, "--out", out, "--max-grade", 8) == "--max-grade needs heights: give --dem FILE"
    assert refused(road, "--out", out, "--min-length", -3) == "min length of -3: give 0 or more"
    assert refused(road, "--out", out, "--road-values", "one").startswith("--road-values one: give whole numbers")
    assert "the suffix says the format; give one of .gpkg, .geojson" in refused(road, "--out", tmp_path / "roads.shp")
    grid = 'LOCAL_CS["pit grid",UNIT["foot",0.3048]]'
    for name, place in (("nowhere.tif", ()), ("bare.tif", (None, PLACE[1])), ("local.tif", (grid, PLACE[1]))):
        write_geotiff(str(tmp_path / name), np.ones((9, 9), np.uint8), *place)
        message = refused(tmp_path / name, "--out", tmp_path / "roads.geojson")
        assert message.startswith("GeoJSON is in WGS 84, but the map has no coordinate reference system or is a local")
        assert message.endswith("write .gpkg instead")
    assert refused(tmp_path / "none.tif", "--out", out) == f"{tmp_path / 'none.tif'}: no such file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare.tif", "local.tif", "nowhere.tif", "road.tif"]
    out.touch()
    assert refused(road, "--out", out) == f"{out}: is there already; give --overwrite, or another --out"
