"""What maps and scores needs neither PyTorch nor MMSegmentation, nor a POSIX system; help needs next to nothing."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mmseg_ext
from mmseg_ext import cli
from mmseg_ext.geo import Georeference, write_geotiff
from mmseg_ext.networks import ComparisonSettings, HeightSettings, NetworkSettings, extract_network, write_layers

WORKSHOP = ("torch", "torchvision", "mmcv", "mmseg", "timm", "safetensors", "tensorboard")
POSIX = ("fcntl", "resource", "termios", "pty")
LIGHT = ("geo", "imagery", "mapping", "metrics", "networks", "report", "roads", "scoring")
BLOCK = f"""
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
hidden = {WORKSHOP + POSIX}
PathFinder.find_spec = lambda name, *more: None if name.partition(".")[0] in hidden else find(name, *more)
sys.modules.update(dict.fromkeys({POSIX}))
"""
COMMAND = BLOCK + "from mmseg_ext.cli import main; sys.argv[0] = 'dsegnext'; main()"
IMPORT_ALL = f"""
import importlib, pkgutil, mmseg_ext
for room in {LIGHT}:
    package = importlib.import_module(f"mmseg_ext.{{room}}")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"mmseg_ext.{{room}}.{{module.name}}")
"""
ALL_HELP = """
import contextlib, io, json, sys
from mmseg_ext import cli
found = {}
for name in cli.COMMANDS:
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            cli.run_command(name, ["--help"])
    except SystemExit as done:
        found[name] = [done.code, text.getvalue()]
slow = {"torch", "mmcv", "mmseg", "rasterio", "geopandas", "scipy", "cv2"}
heavy = {name.partition(".")[0] for name in sys.modules} & slow
sys.stdout.write(json.dumps([found, sorted(heavy)]))
"""
FIRST = """
import mmseg_ext, sys
assert "torch" not in sys.modules and "mmseg" not in sys.modules
import {module}
from mmcv.runner import HOOKS, RUNNERS
from mmseg.datasets.builder import DATASETS, PIPELINES
from mmseg.models.builder import BACKBONES, HEADS, LOSSES
for registry, name in ((BACKBONES, "MSCAN"), (HEADS, "LightHamHead"), (LOSSES, "SoftClDiceLoss"),
                       (DATASETS, "RoadDataset"), (PIPELINES, "LoadRoadMask"), (HOOKS, "WeightAverageHook")):
    assert registry.get(name).__module__.startswith("mmseg_ext."), name
"""


def run(code, *arguments):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def helps(root):
    done = run(ALL_HELP)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_command_answers_help_without_what_is_slow_to_import(helps):
    found, heavy = helps
    assert heavy == []
    assert sorted(found) == sorted(cli.COMMANDS)
    for name, (code, text) in found.items():
        assert code == 0 and text.startswith(f"usage: dsegnext {name.replace('_', '-')} "), name


def test_help_states_the_defaults_of_the_code(helps):
    from mmseg_ext.converters import CATALOGUE, ConversionSettings
    from mmseg_ext.engine.test_time_augmentation import AUGMENTATIONS

    def shown(command):
        return " ".join(helps[0][command][1].split())

    heights, converts, compares = HeightSettings(), ConversionSettings(), ComparisonSettings()
    extract = shown("extract_network")
    assert f"grade is measured (default: {heights.grade_over_m:g})" in extract
    assert f"flag steeper roads (default: {heights.max_grade_percent:g})" in extract
    assert f"fall more to a side (default: {heights.max_cross_fall_percent:g})" in extract
    network = NetworkSettings()
    assert f"(default: {network.tile_px})" in extract and f"(default: {network.halo_px})" in extract
    percentiles = "(default: {:g} {:g})".format(*converts.percentiles)
    assert percentiles in shown("convert_dataset") and percentiles in shown("make_dataset")
    assert f"larger images (default: {converts.tile})" in shown("convert_dataset")
    assert f"training tiles in pixels (default: {converts.overlap})" in shown("convert_dataset")
    *kinds, last = CATALOGUE
    assert f"NAME is one of {', '.join(kinds)} or {last}." in shown("convert_dataset")
    assert f"registration errors (default: {compares.tolerance:g})" in shown("compare_networks")
    assert f"--tta {{{','.join(AUGMENTATIONS)}}}" in shown("test")


def test_light_rooms_import_without_the_workshop_and_without_posix():
    done = run(BLOCK + IMPORT_ALL)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "a.pth", "site.tif", "--out", "maps"),
        ("export", "unet-lite0.pit", "a.onnx"),
        ("pretrain", "--teacher", "x", "dsegnext_tiny", "."),
        ("publish", "unet-lite0.pit", "folder", "--licence", "MIT"),
        ("get-flops", "x.py"),
        ("train", "x.py"),
    ],
)
def test_what_needs_the_workshop_says_so_in_a_line(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site.tif").write_bytes(b"")
    done = run(COMMAND, *arguments)
    missing = "(torch|mmcv|timm), which is not installed; it is of the extra 'train'"
    line = rf"error: this needs {missing}: 'make install' in a clone of this project brings all\n"
    assert done.returncode == 2 and re.fullmatch(line, done.stderr), done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "site.tif"]


@pytest.mark.parametrize(
    "module",
    [
        "mmseg_ext.datasets.loading",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "mmseg",
                "mmseg_ext.checks.doctor",
                "mmseg_ext.models.mscan",
                "mmseg_ext.engine.config",
                "mmseg_ext.deploy.exportable",
                "mmseg_ext.pretrain.crops",
                "mmseg_ext.converters",
            )
        ),
    ],
)
def test_whatever_is_imported_first_registers_all(module):
    done = run(FIRST.format(module=module))
    assert done.returncode == 0, done.stderr


def test_the_default_weights_map_a_real_site_without_the_workshop(tmp_path):
    site = Path(mmseg_ext.__file__).parent / "samples" / "caliterra.tif"
    done = run(COMMAND, "predict", site, "--out", tmp_path, "--network")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "caliterra.json").read_text())["settings"]["backend"] == "onnxruntime"
    done = run(
        COMMAND, "evaluate", tmp_path / "caliterra_roads.tif", site.with_name("caliterra_roads.fgb"), "--tolerance", 3
    )
    assert done.returncode == 0, done.stderr
    (quality,) = re.findall(r"\| Quality[^|]*\| *([\d.]+)", done.stdout)
    assert float(quality) > 50


def test_networks_changes_and_scores_without_the_workshop(tmp_path):
    place = Georeference("EPSG:32719", (1.0, 0, 500000.0, 0, -1.0, 7400000.0))
    old = np.zeros((300, 300), np.uint8)
    old[140:152] = 1
    new = old.copy()
    new[:150, 60:70] = 1
    for name, mask in (("old", old), ("new", new)):
        write_geotiff(str(tmp_path / f"{name}.tif"), mask[:, :, None], place.crs, place.transform)
    write_layers(str(tmp_path / "expected.gpkg"), extract_network(str(tmp_path / "new.tif")).named())
    for name in ("old", "new"):
        done = run(COMMAND, "extract-network", tmp_path / f"{name}.tif", "--out", tmp_path / f"{name}.gpkg")
        assert done.returncode == 0, done.stderr
    import geopandas

    for layer in ("edges", "nodes", "surface"):
        found, expected = (geopandas.read_file(tmp_path / f"{n}.gpkg", layer=layer) for n in ("new", "expected"))
        assert found.equals(expected) and len(found), layer
    changes = tmp_path / "changes.gpkg"
    done = run(COMMAND, "compare-networks", tmp_path / "old.gpkg", tmp_path / "new.gpkg", "--out", changes)
    assert done.returncode == 0, done.stderr
    assert list(geopandas.read_file(changes)["kind"]) == ["new"]
    done = run(COMMAND, "evaluate", tmp_path / "new.tif", tmp_path / "old.tif")
    assert done.returncode == 0, done.stderr
    share = (old & new).sum() / (old | new).sum()
    assert f"{100 * share:.1f}" in done.stdout
