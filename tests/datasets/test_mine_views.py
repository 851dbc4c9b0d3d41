"""Generated views of mines: their masks by a second drawing, how much they differ, and the data set of them."""

import math
import os

import numpy as np
import pytest
from PIL import Image

from mmseg_ext.converters import mines, write_mine_views
from mmseg_ext.datasets import generate_view
from mmseg_ext.datasets.mine_plans import EMPTY_SHARE, fractal, plan_view
from mmseg_ext.datasets.mine_textures import streaks
from mmseg_ext.errors import ConfigError
from mmseg_ext.imagery import read_metadata
from mmseg_ext.imagery.voc import read_names, split_file

SMALL = 128


@pytest.fixture(scope="module")
def views():
    return [generate_view(seed, SMALL) for seed in range(30)]


def on_road(roads, xy):
    """A second drawing: whether points (N, 2) lie in one of the discs or trapezes that make up the roads."""
    hit = np.zeros(len(xy), bool)
    for road in roads:
        for a, b, wa, wb in zip(road.xy_m[:-1], road.xy_m[1:], road.width_m[:-1], road.width_m[1:], strict=True):
            for part in np.linspace(0, 1, 16):
                centre, half = a + part * (b - a), (wa + part * (wb - wa)) / 2
                hit |= ((xy - centre) ** 2).sum(1) <= half**2
    return hit


@pytest.mark.parametrize("seed", [3, 5, 7, 24])
def test_mask_is_the_planned_roads(views, seed):
    view = views[seed]
    row, col = np.indices(view.mask.shape)
    xy = (np.stack([col, row], -1).reshape(-1, 2) + 0.5) * view.gsd_m
    some = np.random.default_rng(0).choice(len(xy), 4000, replace=False)
    mask = view.mask.ravel()[some]
    drawn = on_road([road for road in view.roads if road.kind != "tail"], xy[some])
    said = mask != 255
    assert 0.03 < drawn[said].mean() < 0.9
    assert (drawn == (mask == 1))[said].mean() > 0.998  # discs leave slivers between them
    assert said.mean() > 0.8


def test_roads_peter_out_in_what_nobody_could_say(views):
    tails = [(view, road) for view in views for road in view.roads if road.kind == "tail"]
    assert len(tails) > 5
    for view, road in tails:
        col, row = (road.xy_m / view.gsd_m).astype(int).T
        seen = (col >= 0) & (row >= 0) & (col < SMALL) & (row < SMALL)
        assert (view.mask[row[seen], col[seen]] != 0).all()


def test_same_seed_same_bytes_and_other_seed_other_view(views):
    again, other = generate_view(3, SMALL), views[4]
    assert again.image.tobytes() == views[3].image.tobytes()
    assert again.mask.tobytes() == views[3].mask.tobytes()
    assert again.gsd_m == views[3].gsd_m
    assert (other.image != again.image).mean() > 0.9


def test_form_and_share_of_road(views):
    for view in views:
        assert view.image.shape == (SMALL, SMALL, 3)
        assert view.mask.shape == (SMALL, SMALL)
        assert view.image.dtype == view.mask.dtype == np.uint8
        assert set(np.unique(view.mask)) <= {0, 1, 255}
        assert 0.05 < view.gsd_m <= 2
    shares = np.array([(view.mask == 1).mean() for view in views])
    assert 0.08 < shares.mean() < 0.35
    assert shares.max() < 0.75


def test_share_of_views_without_road():
    plans = [plan_view(np.random.default_rng(seed), 640) for seed in range(120)]
    empty = np.mean([not plan.roads for plan in plans])
    assert abs(empty - EMPTY_SHARE) < 3 * math.sqrt(EMPTY_SHARE * (1 - EMPTY_SHARE) / 120)
    widths = [np.median(road.width_m) for plan in plans for road in plan.roads]
    assert 5 < min(widths) < 10 < 60 < max(widths) < 110
    assert {road.kind for plan in plans for road in plan.roads} == {"haul", "minor", "paved", "tail"}


def test_views_differ_in_light_colour_contrast_and_grain(views):
    pixels = np.array([view.image.reshape(-1, 3).astype(float) for view in views])
    grey = pixels.mean(2)
    warmth = pixels[..., 0].mean(1) / pixels[..., 2].mean(1)
    grain = [np.abs(np.diff(view.image.astype(float).mean(2), axis=1)).mean() for view in views]
    assert grey.mean(1).std() > 25
    assert grey.std(1).max() > 3 * grey.std(1).min()
    assert warmth.max() > 1.4 * warmth.min()
    assert max(grain) > 4 * min(grain)


def test_roads_are_lighter_in_some_views_and_darker_in_others(views):
    steps = []
    for view in views:
        grey, road = view.image.astype(float).mean(2), view.mask == 1
        if 0.02 < road.mean() < 0.6:
            steps.append(grey[road].mean() - grey[view.mask == 0].mean())
    assert np.sum(np.array(steps) > 5) >= 4
    assert np.sum(np.array(steps) < -5) >= 4
    assert np.sum(np.abs(steps) < 10) >= 4


def test_noise_has_unit_deviation_no_grid_and_its_scale():
    rng = np.random.default_rng(0)
    fine, coarse = fractal(rng, 256, 8, 1), fractal(rng, 256, 64, 1)
    for field in (fine, coarse, fractal(rng, 250, 100, 8, 0.7)):
        assert 0.6 < field.std() < 1.4
    slopes = [np.abs(np.diff(field, axis=1)).mean() for field in (fine, coarse)]
    assert slopes[0] > 4 * slopes[1]
    # slopes are as steep at every column of the coarse grid's cells
    steep = np.array([np.abs(np.diff(fractal(rng, 256, 32, 1), axis=1)).mean(0) for _ in range(60)])
    by_phase = steep.mean(0)[: 15 * 16].reshape(15, 16).mean(0)
    assert by_phase.max() < 1.25 * by_phase.min()


@pytest.mark.parametrize("angle", [0.0, 0.5, 1.5])
def test_streaks_run_along_their_angle(angle):
    field = streaks(np.random.default_rng(1), 200, angle, 60, 4)
    dy, dx = np.gradient(field)
    tensor = np.array([[(dx * dx).mean(), (dx * dy).mean()], [(dx * dy).mean(), (dy * dy).mean()]])
    along = np.linalg.eigh(tensor)[1][:, 0]  # the direction of the least change
    turn = np.arctan2(along[1], along[0]) + angle  # rows count down, OpenCV turns against them
    assert abs((turn + np.pi / 2) % np.pi - np.pi / 2) < 0.1


def files_of(root):
    return {
        os.path.relpath(os.path.join(folder, name), root): open(os.path.join(folder, name), "rb").read()
        for folder, _, names in os.walk(root)
        for name in names
    }


def test_data_set_is_what_the_generator_gives(tmp_path):
    root = str(tmp_path / "mines")
    made = write_mine_views(root, 20, seed=5, size_px=128)
    names = {split: read_names(split_file(root, split)) for split in ("train", "val", "test")}
    assert names["train"] == [f"view{seed:06d}" for seed in range(5, 24)]
    assert names["val"] == names["test"] == ["view000024"]
    for seed in (5, 24):
        view = generate_view(seed, 128)
        assert (np.asarray(Image.open(f"{root}/JPEGImages/view{seed:06d}.png")) == view.image).all()
        assert (np.asarray(Image.open(f"{root}/SegmentationClass/view{seed:06d}.png")) == view.mask).all()
    assert read_metadata(root)["images"] == dict(train=19, val=1, test=0)
    assert made.counts["train"] == 19
    assert 0 < made.road_share < 1


def test_an_interrupted_data_set_resumes(tmp_path, monkeypatch):
    drawn = []

    def stopping(seed, size_px):
        if size_px == 130:
            drawn.append(seed)
            if len(drawn) == 4:
                raise KeyboardInterrupt
        return generate_view(seed, size_px)

    monkeypatch.setattr(mines, "generate_view", stopping)
    root = str(tmp_path / "mines")
    with pytest.raises(KeyboardInterrupt):
        write_mine_views(root, 6, size_px=130)
    assert not os.path.exists(root)
    assert not write_mine_views(root, 6, size_px=130).found_done
    assert sorted(drawn) == [0, 1, 2, 3, 3, 4, 5]
    assert write_mine_views(root, 6, size_px=130).found_done
    write_mine_views(str(tmp_path / "whole"), 6, size_px=130)
    assert files_of(root) == files_of(str(tmp_path / "whole"))


@pytest.mark.slow
def test_several_processes_write_the_same(tmp_path):
    for workers in (1, 2):
        write_mine_views(str(tmp_path / str(workers)), 4, size_px=128, workers=workers)
    assert files_of(str(tmp_path / "1")) == files_of(str(tmp_path / "2"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(count=1), "--count 1: give 2 or more"),
        (dict(count=4, seed=-1), "--seed -1: give 0 or more"),
        (dict(count=4, size_px=64), "--size 64: give 128 or more"),
        (dict(count=4, workers=0), "workers 0 must be above 0"),
    ],
)
def test_bad_numbers_are_one_line(tmp_path, arguments, words):
    with pytest.raises(ConfigError) as caught:
        write_mine_views(str(tmp_path / "mines"), **arguments)
    assert str(caught.value) == words
    assert os.listdir(tmp_path) == []


def test_a_view_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="size_px must be 128 or more"):
        generate_view(0, 100)
