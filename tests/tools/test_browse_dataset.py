import numpy as np
import pytest
from mmseg.datasets import build_dataset
from PIL import Image

from mmseg_ext.engine import load_config
from mmseg_ext.engine.config import step_arguments
from mmseg_ext.errors import ConfigError


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("browse_dataset")


@pytest.fixture()
def cfg(tiny_config):
    return load_config(str(tiny_config))


def test_each_draw_stands_beside_its_original(tool, cfg, mine_data):
    dataset = build_dataset(cfg.data.train)
    (section,) = tool.sample_sections(dataset, 20, seed=1)  # more than the 16 images
    assert len(section.cells) == 40
    without = 0
    for original, seen in zip(section.cells[::2], section.cells[1::2], strict=True):
        stem = original.caption.removesuffix(".png")
        assert np.array_equal(original.image, np.array(Image.open(mine_data / "JPEGImages" / f"{stem}.png")))
        assert np.array_equal(original.labels, np.array(Image.open(mine_data / "SegmentationClass" / f"{stem}.png")))
        assert original.note == f"64x64 px, road {100 * (original.labels == 1).mean():.1f} %"
        assert seen.image.shape == (64, 64, 3) and seen.labels.shape == (64, 64)
        assert seen.note.startswith("64x64 px, scale ")
        without += not (seen.labels == 1).any()
    assert section.text.endswith(f"Without any road: {without} of 20.")
    assert len({cell.caption for cell in section.cells[::2]}) == 16
    again = tool.sample_sections(dataset, 20, seed=1)[0]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(section.cells, again.cells, strict=True))


@pytest.mark.parametrize("to_rgb", [True, False])
def test_evaluation_shows_the_image_itself(tool, cfg, to_rgb):
    """At its own size and without augmentation, normalising and its reversal must give the picture back."""
    step_arguments(cfg.data.val, "Normalize")["to_rgb"] = to_rgb
    (section,) = tool.sample_sections(build_dataset(cfg.data.val, dict(test_mode=True)), 99)
    assert len(section.cells) == 2 * 4
    for original, seen in zip(section.cells[::2], section.cells[1::2], strict=True):
        assert np.array_equal(original.image, seen.image)
        assert np.array_equal(original.labels, seen.labels)


def test_data_without_masks(tool, cfg, tmp_path):
    cfg.data.test.ann_dir = None
    tool.write_sheet(cfg, str(tmp_path / "sheet.png"), "test", 1, 0)
    assert Image.open(tmp_path / "sheet.png").width == 2 * 320 + 30  # one picture a cell, not two
    cfg.data.test.pipeline[0].type = "LoadRoadImge"
    with pytest.raises(ConfigError, match="tiny.py: a setting does not fit: .*LoadRoadImge"):
        tool.write_sheet(cfg, str(tmp_path / "sheet.png"), "test", 1, 0)
    with pytest.raises(ConfigError, match="--count 0: give the number of images"):
        tool.write_sheet(cfg, "sheet.png", "train", 0, 0)


def test_a_named_config_names_the_sheet(tool, monkeypatch):
    asked = []
    monkeypatch.setattr(tool, "write_sheet", lambda cfg, path, *_: asked.append(path))
    monkeypatch.setattr("sys.argv", ["browse_dataset.py", "dsegnext.tiny.1024x1024.OPM.20k"])
    tool.main()
    assert asked == ["work_dirs/Dsegnext.tiny.1024x1024.OPM.20k/browse_train.html"]


def test_the_tool_writes_a_sheet(run_tool, tiny_config, tmp_path):
    done = run_tool("browse_dataset.py", tiny_config, "--count", 3, "--out", tmp_path / "sheet.html")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'sheet.html'}\n")
    assert (tmp_path / "sheet.html").read_text().count("<img") == 3 * 4
