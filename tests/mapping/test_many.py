"""Many rasters: one that breaks fails alone, and shares of the work come to the map that one process makes."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from bright_network import BrightNetwork

from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.geo import write_geotiff
from mmseg_ext.mapping import (
    MapSettings,
    check_rasters,
    finish_raster,
    inventory,
    map_each,
    map_raster,
    map_share,
    road_map,
    shard_of,
)

NETWORK = BrightNetwork()
SETTINGS = MapSettings(tile_px=64, overlap_px=16, scale=1.0)


def rasters(folder, *heights):
    random = np.random.default_rng(0)
    paths = []
    for number, height in enumerate(heights):
        values = random.integers(0, 255, (height // 8 + 1, 12, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        paths.append(str(folder / f"pit{number}.tif"))
        write_geotiff(paths[-1], values[:height], "EPSG:32719", (0.5, 0, 4e5, 0, -0.5, 7e6))
    return paths


def damage(path):
    """Overwrite the pixels at the end of a raster, whose header stays good."""
    content = bytearray(Path(path).read_bytes())
    content[len(content) // 2 :] = b"\xff" * (len(content) - len(content) // 2)
    Path(path).write_bytes(content)


def test_shares_come_to_the_map_of_one_process(tmp_path, monkeypatch):
    paths = rasters(tmp_path, 300, 40, 130, 64)
    out, straight = str(tmp_path / "shares"), tmp_path / "straight"
    outcomes = check_rasters(paths, NETWORK, SETTINGS)

    def strips():
        return sorted(Path(out).glob("*.parts/*.npz"))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        whole = road_map.map_strips

        def one(*args, **kwargs):
            yield next(whole(*args, **kwargs))
            raise KeyboardInterrupt

        patch.setattr(road_map, "map_strips", one)
        map_share(outcomes, NETWORK, out, SETTINGS, (1, 3))
    assert len(strips()) == 1
    counts = []
    for index in (2, 0):
        map_share(outcomes, NETWORK, out, SETTINGS, (index, 3))
        counts.append(len(strips()))
    with pytest.raises(DataError, match=r"pit0.tif: \d of \d+ strips are missing, number \d first; run"):
        finish_raster(paths[0], NETWORK, out, SETTINGS)
    before = {strip: strip.stat().st_mtime_ns for strip in strips()}
    map_share(outcomes, NETWORK, out, SETTINGS, (1, 3))
    assert before.items() <= {strip: strip.stat().st_mtime_ns for strip in strips()}.items()
    total = len(strips())
    shares = counts[0] - 1, counts[1] - counts[0], total - counts[1] + 1
    assert max(shares) - min(shares) <= 1
    for path in paths:
        finish_raster(path, NETWORK, out, SETTINGS)
        map_raster(path, NETWORK, str(straight), SETTINGS)
    assert sorted(os.listdir(out)) == sorted(os.listdir(straight))
    for name in os.listdir(straight):
        if not name.endswith(".json"):  # which says how long it took
            assert (Path(out) / name).read_bytes() == (straight / name).read_bytes(), name


def test_shares_of_other_settings_are_never_mixed(tmp_path):
    (path,) = rasters(tmp_path, 300)
    other, out = MapSettings(tile_px=64, overlap_px=16, scale=1.0, threshold=0.9), str(tmp_path / "out")
    for settings, shard in ((SETTINGS, (0, 2)), (other, (1, 2))):
        map_share(check_rasters([path], NETWORK, settings), NETWORK, out, settings, shard)
    for settings in (SETTINGS, other):
        with pytest.raises(DataError, match=r"strips are missing, .*\(there are some of other options, weights or"):
            finish_raster(path, NETWORK, out, settings)


def test_a_raster_that_breaks_fails_alone(tmp_path, caplog):
    paths = rasters(tmp_path, 100, 100, 100)
    (tmp_path / "text.tif").write_text("no raster")
    caplog.set_level("INFO")
    outcomes, together = (check_rasters([*paths, str(tmp_path / "text.tif")], NETWORK, SETTINGS) for _ in range(2))
    assert outcomes.failed == [str(tmp_path / "text.tif")]
    damage(paths[1])  # the check has seen nothing of it

    def work(path):
        return map_raster(path, NETWORK, str(tmp_path / "out"), SETTINGS)

    map_each(outcomes, work)
    assert outcomes.failed == [paths[1], str(tmp_path / "text.tif")]
    assert (tmp_path / "out" / "pit2_roads.tif").exists() and not (tmp_path / "out" / "pit1_roads.tif").exists()
    with pytest.raises(DataError, match="pit1.tif: cannot be read in rows"):
        map_each(together, work, together=True)
    caplog.clear()
    outcomes.log_table(NETWORK.facts.road_labels)
    _, _, *rows = caplog.messages[0].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[0] for row in cells] == [*paths, str(tmp_path / "text.tif")]
    record = outcomes.of[paths[0]].record
    assert cells[0][1:] == [f"{record['seconds']['total']:.0f}", f"{100 * record['class_share']['road']:.1f}", "", ""]
    assert "cannot be read" in cells[1][4] and paths[1] not in cells[1][4]
    with pytest.raises(DataError, match="2 of 4 rasters failed, for the reasons above; the others are fine"):
        outcomes.refuse_failures()


def test_the_inventory_says_what_is_there_and_left_and_writes_nothing(tmp_path):
    paths = rasters(tmp_path, 100, 300)
    out = tmp_path / "out"
    (tmp_path / "text.tif").write_text("no raster")

    def cells():
        outcomes = check_rasters([*paths, str(tmp_path / "text.tif")], NETWORK, SETTINGS)
        table, total = inventory(outcomes, NETWORK, str(out), SETTINGS).split("\n\n")
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]], total

    found, total = cells()
    # rows of tiles of 64 px every 48 px at the most, two tiles in each
    assert [row[:6] for row in found[:2]] == [
        [paths[0], "96 x 100", "3", "0.5", "EPSG:32719", "4"],
        [paths[1], "96 x 300", "3", "0.5", "EPSG:32719", "12"],
    ]
    assert found[2][0].endswith("text.tif") and "cannot be read as a raster" in found[2][7]
    assert re.match(r"3 raster\(s\) in one process: about \d+ s, \d.* of memory, at most \d+ MiB of disk$", total)
    assert not out.exists()
    map_raster(paths[0], NETWORK, str(out), SETTINGS)
    assert [row[5] for row in cells()[0]] == ["0", "12", ""]
    map_raster(paths[1], NETWORK, str(out), MapSettings(tile_px=64, overlap_px=16, scale=1.0, threshold=0.9))
    assert "is there already, of another raster, checkpoint or setting" in cells()[0][1][7]


def test_warnings_are_counted_by_raster(tmp_path, caplog):
    good, black, grey = rasters(tmp_path, 100, 100, 100)
    write_geotiff(grey, np.arange(9600, dtype=np.uint8).reshape(100, 96, 1), "EPSG:32719", (0.5, 0, 4e5, 0, -0.5, 7e6))
    write_geotiff(black, np.zeros((100, 96, 3), np.uint8), "EPSG:32719", (0.5, 0, 4e5, 0, -0.5, 7e6))
    outcomes = check_rasters([good, black, grey], NETWORK, SETTINGS)
    assert [outcome.warnings for outcome in outcomes.of.values()] == [0, 1, 1]
    assert f"{grey}: has one band, which is shown to the network as grey; leave it out if" in caplog.text


@pytest.mark.parametrize(
    ("text", "environ", "share"),
    [
        ("3/20", {}, (2, 20)),
        ("auto", dict(SLURM_ARRAY_TASK_ID="7", SLURM_ARRAY_TASK_MIN="5", SLURM_ARRAY_TASK_MAX="9",
                      SLURM_ARRAY_TASK_COUNT="5"), (2, 5)),
        ("auto", dict(SLURM_ARRAY_TASK_ID="8", SLURM_ARRAY_TASK_MIN="0", SLURM_ARRAY_TASK_MAX="8",
                      SLURM_ARRAY_TASK_COUNT="3", SLURM_ARRAY_TASK_STEP="4"), (2, 3)),
        ("auto", dict(AWS_BATCH_JOB_ARRAY_INDEX="0", AWS_BATCH_JOB_ARRAY_SIZE="4"), (0, 4)),
        ("auto", dict(JOB_COMPLETION_INDEX="3", JOB_COMPLETIONS="4"), (3, 4)),
    ],
)  # fmt: skip
def test_a_share_is_named_or_that_of_a_job_array(text, environ, share):
    assert shard_of(text, environ) == share


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("0/4", {}), ("5/4", {}), ("4", {}), ("a/b", {}), ("auto", {}), ("auto", dict(JOB_COMPLETION_INDEX="3")),
        ("auto", dict(SLURM_ARRAY_TASK_ID="3", SLURM_ARRAY_TASK_MIN="1", SLURM_ARRAY_TASK_MAX="7",
                      SLURM_ARRAY_TASK_COUNT="3")),  # --array=1,3,7
    ],
)  # fmt: skip
def test_a_share_that_is_none_is_refused(text, environ):
    with pytest.raises(ConfigError, match=f"--shard {text}: give a share such as 3/20, from 1/20 to 20/20; auto takes"):
        shard_of(text, environ)
