"""The wheel works in another environment, away from the checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

pytestmark = pytest.mark.slow

TINY = (
    "model.backbone.embed_dims=[8,16,24,32]",
    "model.backbone.depths=[1,1,1,1]",
    "model.backbone.mlp_ratios=[2,2,2,2]",
    "model.decode_head.in_channels=[16,24,32]",
    "model.decode_head.channels=32",
    "model.decode_head.ham_channels=32",
    "model.decode_head.ham_cfg.rank=4",
)


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    subprocess.run(["git", "clone", "--quiet", str(root), str(source)], check=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        source,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def dsegnext(wheel, tmp_path_factory):
    """Return a function that runs the installed command: (*args) -> CompletedProcess."""
    place = tmp_path_factory.mktemp("elsewhere")
    env = place / "env"
    venv.create(env, symlinks=True)
    site = next(env.glob("lib/python*/site-packages"))
    # the packages of this environment, without its editable install of the checkout: .pth files in it are not read
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(env / "bin" / "python"), "install", "--quiet", "--no-index"]
    subprocess.run([*pip, "--no-deps", "--ignore-installed", str(wheel)], check=True, capture_output=True)
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*arguments):
        command = [str(env / "bin" / "dsegnext"), *map(str, arguments)]
        done = subprocess.run(command, cwd=place, env=environ, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.place, run.site = place, site
    return run


def test_it_carries_configs_tools_and_types(wheel, root):
    names = zipfile.ZipFile(wheel).namelist()
    for folder in ("myconfigs", "tools"):
        carried = {
            name.removeprefix("mmseg_ext/.mim/") for name in names if name.startswith(f"mmseg_ext/.mim/{folder}/")
        }
        tracked = subprocess.run(
            ["git", "ls-files", folder], cwd=root, check=True, capture_output=True, text=True
        ).stdout
        assert carried == {name for name in tracked.split() if name.endswith((".py", ".sh"))}
    tracked = subprocess.run(
        ["git", "ls-files", "mmseg_ext/weights", "mmseg_ext/samples"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert len(tracked) >= 4 and set(tracked) <= set(names)
    assert "mmseg_ext/py.typed" in names
    assert not any(name.startswith(("tests/", "tools/", "myconfigs/")) for name in names)


def test_it_maps_with_its_own_weights(dsegnext):
    dsegnext("predict", dsegnext.site / "mmseg_ext/samples/caliterra.tif", "--out", "real", "--backend", "torch")
    assert (dsegnext.place / "real" / "caliterra_roads.tif").is_file()


def test_train_predict_extract_and_evaluate(dsegnext, mine_data):
    splits = [f"data.{split}.data_root={mine_data}" for split in ("train", "val", "test")]
    few = ["runner.max_iters=2", "lr_config.warmup_iters=1", "checkpoint_config.interval=2", "data.workers_per_gpu=0"]
    config = "dsegnext.tiny.160x160.MINE.0.75k"
    dsegnext("train", config, "--work-dir", "run", "--no-validate", "--cfg-options", *TINY, *splits, *few)
    image = next((mine_data / "JPEGImages").iterdir())
    dsegnext("predict", "run/latest.pth", image, "--out", "maps", "--tile", 64, "--overlap", 32, "--backend", "torch")
    stem = image.stem
    dsegnext("extract-network", f"maps/{stem}_probability.tif", "--out", "roads.gpkg")
    dsegnext("evaluate", f"maps/{stem}_roads.tif", mine_data / "SegmentationClass" / f"{stem}.png")
    assert {path.name for path in (dsegnext.place / "maps").iterdir()} >= {
        f"{stem}_roads.tif",
        f"{stem}_probability.tif",
    }
    assert (dsegnext.place / "roads.gpkg").stat().st_size > 0
