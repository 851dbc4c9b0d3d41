from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mmseg.datasets.pipelines import Compose, Normalize, PhotoMetricDistortion, RandomCrop, RandomFlip

from mmseg_ext.datasets import RoadDataset, generate_mine
from mmseg_ext.datasets.augmentation import (
    BandDistortion,
    BandNormalize,
    FastRandomCrop,
    FastRandomFlip,
    RandomAffineCrop,
    RandomLook,
    RandomRotate90,
)
from mmseg_ext.datasets.loading import ScaleToGSD
from mmseg_ext.engine import build_network, load_config
from mmseg_ext.engine.config import step_arguments
from mmseg_ext.engine.distributed import Process, wrap
from mmseg_ext.engine.evaluation import evaluation_loader
from mmseg_ext.errors import ConfigError

SEEDS = st.integers(0, 2**32 - 1)


def results_of(image, labels):
    facts = dict(seg_fields=["gt_semantic_seg"], ignore_index=255, road_labels=[1], filename="a.png")
    return dict(img=image, gt_semantic_seg=labels, **facts)


def random_results(rng, height, width, bands=3, classes=2, ignored=0.1):
    labels = rng.integers(0, classes, (height, width), dtype=np.uint8)
    labels[rng.random(labels.shape) < ignored] = 255
    return results_of(rng.integers(0, 256, (height, width, bands), dtype=np.uint8), labels)


def run(step, results, seed):
    """Return what ``step`` makes of a copy of ``results``, and the state it leaves NumPy's generator in."""
    np.random.seed(seed)  # noqa: NPY002  # noqa: NPY002  the generator that MMSegmentation draws from
    copied = {key: value.copy() if isinstance(value, np.ndarray) else value for key, value in results.items()}
    out = step(copied)
    return out, np.random.random_sample()  # noqa: NPY002


def assert_same(one, other):
    (one, state), (other, other_state) = one, other
    assert state == other_state
    assert one.keys() == other.keys()
    for key in ("img", "gt_semantic_seg"):
        assert one[key].dtype == other[key].dtype
        assert np.array_equal(one[key], other[key])
    assert one.get("img_shape") == other.get("img_shape")


@given(SEEDS, st.sampled_from([1, 2, 3, 15, 16, 20, 200]), st.sampled_from([0.3, 0.6, 0.9, 1.0]), st.data())
@settings(max_examples=80, deadline=None)
def test_fast_random_crop_is_random_crop(seed, classes, share, data):
    rng = np.random.default_rng(seed)
    height, width = data.draw(st.integers(1, 24)), data.draw(st.integers(1, 24))
    crop = (data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30)))
    ignore = data.draw(st.sampled_from([255, 0, 1]))
    results = random_results(rng, height, width, classes=classes, ignored=data.draw(st.sampled_from([0.0, 0.3, 1.0])))
    args = dict(crop_size=crop, cat_max_ratio=share, ignore_index=ignore)
    assert_same(run(RandomCrop(**args), results, seed), run(FastRandomCrop(**args), results, seed))


@given(SEEDS, st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from(["horizontal", "vertical"]))
@settings(max_examples=30, deadline=None)
def test_fast_random_flip_is_random_flip(seed, prob, direction):
    results = random_results(np.random.default_rng(seed), 7, 5)
    ours, theirs = (kind(prob=prob, direction=direction) for kind in (FastRandomFlip, RandomFlip))
    assert_same(run(ours, results, seed), run(theirs, results, seed))
    results.update(flip=True, flip_direction="horizontal")  # as MultiScaleFlipAug sets them
    assert_same(run(ours, results, seed), run(theirs, results, seed))


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_band_distortion_is_photometric_distortion(seed):
    results = random_results(np.random.default_rng(seed), 9, 11)
    assert_same(run(PhotoMetricDistortion(), results, seed), run(BandDistortion(), results, seed))


@pytest.mark.parametrize("bands", [1, 2, 4, 7])
def test_band_distortion_treats_all_bands_alike(bands):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    changed = set()
    for seed in range(20):
        out = run(BandDistortion(), results_of(np.repeat(values[:, :, None], bands, 2), values), seed)[0]["img"]
        assert out.shape == (16, 16, bands)
        assert (out == out[:, :, :1]).all()
        assert (np.diff(out[:, :, 0].ravel().astype(int)) >= 0).all()  # brighter stays brighter
        changed.add(out.tobytes())
    assert len(changed) > 5


@given(SEEDS, st.booleans())
@settings(max_examples=20, deadline=None)
def test_band_normalize_is_normalize(seed, to_rgb):
    rng = np.random.default_rng(seed)
    args = dict(mean=rng.uniform(0, 255, 3).tolist(), std=rng.uniform(1, 90, 3).tolist(), to_rgb=to_rgb)
    results = random_results(rng, 31, 17)
    ours, theirs = run(BandNormalize(**args), results, 0), run(Normalize(**args), results, 0)
    assert_same(ours, theirs)
    for key in ("mean", "std", "to_rgb"):
        assert np.array_equal(ours[0]["img_norm_cfg"][key], theirs[0]["img_norm_cfg"][key])


def test_band_normalize_takes_any_number_of_bands():
    rng = np.random.default_rng(0)
    for bands in (1, 2, 4, 6):
        mean, std = rng.uniform(0, 255, bands), rng.uniform(1, 90, bands)
        results = random_results(rng, 5, 4, bands)
        expected = (results["img"] - mean) / std
        out = BandNormalize(mean.tolist(), std.tolist(), to_rgb=False)(results)["img"]
        assert out.dtype == np.float32
        assert out == pytest.approx(expected, rel=1e-5, abs=1e-5)
    with pytest.raises(ConfigError, match="a.png: 4 bands, but Normalize has 3 means"):
        BandNormalize([0.0] * 3, [1.0] * 3)(random_results(rng, 5, 4, 4))
    with pytest.raises(ConfigError, match="3 means but 2 standard deviations"):
        BandNormalize([0.0] * 3, [1.0] * 2)


def test_training_loads_what_mmsegmentation_loads(tiny_config):
    """The config's pipeline, whatever runs in it, against MMSegmentation's own classes from file to tensor."""
    cfg = load_config(str(tiny_config))
    dataset = RoadDataset(**{key: value for key, value in cfg.data.train.items() if key != "type"})
    norm = step_arguments(cfg.data.train, "Normalize")
    theirs = Compose(
        [
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations"),
            dict(type="Resize", img_scale=(64, 64), ratio_range=(0.5, 2.0)),
            dict(type="RandomCrop", crop_size=(64, 64), cat_max_ratio=0.75),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PhotoMetricDistortion"),
            norm,
            dict(type="Pad", size=(64, 64), pad_val=0, seg_pad_val=255),
            dict(type="DefaultFormatBundle"),
            dict(type="Collect", keys=["img", "gt_semantic_seg"]),
        ]
    )
    flips = 0
    for index in range(len(dataset)):
        plain = dict(img_info=dataset.img_infos[index], ann_info=dataset.get_ann_info(index))
        super(RoadDataset, dataset).pre_pipeline(plain)
        np.random.seed(index)  # noqa: NPY002
        expected = theirs(plain)
        np.random.seed(index)  # noqa: NPY002
        item = dataset[index]
        assert torch.equal(item["img"].data, expected["img"].data)
        assert torch.equal(item["gt_semantic_seg"].data, expected["gt_semantic_seg"].data)
        flips += item["img_metas"].data["flip"]
    assert 0 < flips < len(dataset)


def test_random_rotate90():
    rng = np.random.default_rng(0)
    seen = set()
    for seed in range(20):
        results = random_results(rng, 3, 5, 4)
        out = run(RandomRotate90(), results, seed)[0]
        turns = [k for k in range(4) if np.array_equal(np.rot90(results["img"], k), out["img"])]
        assert len(turns) == 1
        assert np.array_equal(np.rot90(results["gt_semantic_seg"], turns[0]), out["gt_semantic_seg"])
        assert out["img_shape"] == out["img"].shape
        seen.update(turns)
    assert seen == {0, 1, 2, 3}


def test_affine_crop_turns_and_mirrors_without_interpolation():
    rng = np.random.default_rng(0)
    seen = set()
    for seed in range(40):
        results = random_results(rng, 9, 9, 2)
        out = run(RandomAffineCrop((9, 9), ratio_range=(1, 1)), results, seed)[0]
        fits = []
        for turns in range(4):
            for mirrored in (False, True):
                expected = {key: np.rot90(results[key], turns) for key in ("img", "gt_semantic_seg")}
                if mirrored:
                    expected = {key: value[:, ::-1] for key, value in expected.items()}
                if all(np.array_equal(expected[key], out[key]) for key in expected):
                    fits.append((turns, mirrored))
        assert len(fits) == 1
        seen.update(fits)
    assert len(seen) == 8


@given(SEEDS, st.integers(1, 20), st.integers(1, 20), st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_affine_crop_at_scale_1_copies_a_window(seed, height, width, rows, cols):
    assume(rows <= height and cols <= width)
    step = RandomAffineCrop((rows, cols), ratio_range=(1, 1), quarter_turns=False, flip_probability=0)
    results = random_results(np.random.default_rng(seed), height, width, 6)
    out = run(step, results, seed)[0]
    windows = np.lib.stride_tricks.sliding_window_view(results["img"], (rows, cols, 6))[:, :, 0]
    assert (windows == out["img"]).all(axis=(2, 3, 4)).any()


GEOMETRY = dict(
    rows=st.integers(1, 40),
    cols=st.integers(1, 40),
    least=st.floats(0.1, 3),
    more=st.floats(1, 3),
    max_angle_deg=st.sampled_from([0.0, 10.0, 180.0]),
)


@given(SEEDS, st.integers(1, 60), st.integers(1, 60), st.integers(1, 3), *GEOMETRY.values())
@settings(max_examples=150, deadline=None)
def test_a_crop_that_must_show_road_does(seed, height, width, pixels, rows, cols, least, more, max_angle_deg):
    rng = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.uint8)
    labels[rng.integers(0, height, pixels), rng.integers(0, width, pixels)] = 1
    results = results_of(np.repeat(labels[:, :, None] * 200, 3, 2), labels)
    step = RandomAffineCrop((rows, cols), (least, least * more), max_angle_deg=max_angle_deg, road_probability=1)
    out = run(step, results, seed)[0]
    assert (out["gt_semantic_seg"] == 1).any()
    assert out["img"].shape == out["img_shape"] == out["pad_shape"] == (rows, cols, 3)


@pytest.mark.parametrize("seed", range(8))
def test_which_labels_are_road_the_data_set_says(seed):
    labels = np.ones((80, 80), np.uint8)  # 1 is a class in front of the roads
    labels[3, 5], labels[70, 60] = 2, 3
    results = results_of(np.zeros((80, 80, 3), np.uint8), labels) | dict(road_labels=[2, 3])
    step = RandomAffineCrop((8, 8), (1, 1), road_probability=1)
    assert (run(step, results, seed)[0]["gt_semantic_seg"] >= 2).any()


@given(SEEDS, *GEOMETRY.values(), st.sampled_from([0.0, 1.0]))
@settings(max_examples=60, deadline=None)
def test_affine_crop_moves_image_and_labels_alike(seed, rows, cols, least, more, max_angle_deg, road_probability):
    """An image whose bands are the coordinates tells where every pixel of the crop comes from."""
    y, x = np.indices((50, 60), dtype=np.float32)
    labels = np.random.default_rng(seed).integers(0, 3, (50, 60), dtype=np.uint8)
    step = RandomAffineCrop(
        (rows, cols),
        (least, least * more),
        max_angle_deg=max_angle_deg,
        road_probability=road_probability,
    )
    with mock.patch.object(cv2, "mean", return_value=(-1e6, -1e6)):  # so that what is filled is told apart
        out = run(step, results_of(np.stack([x, y], 2), labels), seed)[0]
    at_x, at_y = out["img"].transpose(2, 0, 1).astype(float)
    scale = float(out["scale_factor"][0])
    assert least * 0.999 <= scale <= least * more * 1.001
    margin = max(2, 2 / scale)  # further in, no fill is mixed in and every block is whole
    inner = (at_x > margin) & (at_x < 59 - margin) & (at_y > margin) & (at_y < 49 - margin)
    for axis in (0, 1):
        both = inner & np.roll(inner, -1, axis)
        both[(-1, slice(None)) if axis == 0 else (slice(None), -1)] = False
        moved = np.hypot(np.roll(at_x, -1, axis) - at_x, np.roll(at_y, -1, axis) - at_y)[both]
        assert moved == pytest.approx(1 / scale, abs=0.1 + 0.05 / scale)
    unsure = 0.05 + 0.04 / scale  # OpenCV places samples to a 32nd of a pixel, here of a block
    clear = inner & (np.abs(at_x % 1 - 0.5) > unsure) & (np.abs(at_y % 1 - 0.5) > unsure)
    expected = labels[at_y[clear].round().astype(int), at_x[clear].round().astype(int)]
    assert np.array_equal(out["gt_semantic_seg"][clear], expected)


def test_affine_crop_stays_inside_a_large_image():
    rng = np.random.default_rng(1)
    step = RandomAffineCrop((20, 30), (0.6, 2), max_angle_deg=180)
    for seed in range(100):
        out = run(step, random_results(rng, 90, 90, ignored=0), seed)[0]
        assert (out["gt_semantic_seg"] != 255).all()


def test_affine_crop_fills_and_ignores_what_is_beyond():
    image = np.full((4, 6, 3), (10, 20, 30), np.uint8)
    image[0] = (14, 28, 42)
    out = run(RandomAffineCrop((8, 8), (1, 1), quarter_turns=False), results_of(image, np.ones((4, 6), np.uint8)), 0)[0]
    beyond = out["gt_semantic_seg"] == 255
    assert beyond.sum() == 64 - 24  # the whole image is there
    assert (out["img"][beyond] == (11, 22, 33)).all()  # its mean
    assert np.array_equal(np.unique(out["img"][~beyond], axis=0), [(10, 20, 30), (14, 28, 42)])


def test_affine_crop_averages_where_it_shrinks():
    board = (np.indices((400, 400)).sum(0) % 2 * 255).astype(np.uint8)
    for bands in (1, 3, 5):
        results = results_of(np.repeat(board[:, :, None], bands, 2), board // 255)
        out = run(RandomAffineCrop((30, 30), (0.25, 0.3), max_angle_deg=20), results, 3)[0]["img"]
        assert np.abs(out.astype(int) - 127.5).max() < 45  # 127.5 where every sample were 0 or 255


def test_affine_crop_treats_each_band_as_if_alone():
    results = random_results(np.random.default_rng(0), 40, 50, 7)
    step = RandomAffineCrop((20, 20), (0.3, 1.5), max_angle_deg=30)
    for seed in range(5):
        out = run(step, results, seed)[0]["img"]
        for band in range(7):
            alone = run(step, {**results, "img": results["img"][:, :, band : band + 1]}, seed)[0]["img"]
            assert np.array_equal(alone[:, :, 0], out[:, :, band])


def test_affine_crop_reaches_the_wanted_resolution():
    results = {**random_results(np.random.default_rng(0), 80, 80), "gsd_m": 0.3}
    out = run(RandomAffineCrop((8, 8), (1, 1), gsd_m=0.6), results, 0)[0]
    assert out["scale_factor"] == pytest.approx([0.5] * 4)
    with pytest.raises(ConfigError, match=r'a.png: RandomAffineCrop needs the ground .*"gsd_m" in .*dataset.json'):
        RandomAffineCrop((8, 8), gsd_m=0.6)(random_results(np.random.default_rng(0), 80, 80))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (dict(crop_size=(0, 5)), "give rows and columns"),
        (dict(crop_size=(5, 5), ratio_range=(2, 1)), "the smaller first"),
        (dict(crop_size=(5, 5), gsd_m=0), "metres per pixel, more than 0"),
        (dict(crop_size=(5, 5), road_probability=50), "give a probability, 0 to 1"),
    ],
)
def test_arguments_that_make_no_sense_are_named(args, words):
    with pytest.raises(ConfigError, match=words) as error:
        RandomAffineCrop(**args)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bands", [1, 3, 6])
def test_scale_to_gsd(bands):
    rng = np.random.default_rng(0)
    results = {**random_results(rng, 40, 60, bands), "gsd_m": 0.25}
    half = run(ScaleToGSD(0.5), results, 0)[0]
    blocks = results["img"].reshape(20, 2, 30, 2, bands).mean(axis=(1, 3))
    assert np.abs(half["img"] - blocks).max() <= 0.5
    assert half["gt_semantic_seg"].shape == (20, 30)
    assert np.isin(half["gt_semantic_seg"], (0, 1, 255)).all()
    assert half["scale_factor"] == pytest.approx([0.5] * 4)
    assert half["gsd_m"] == 0.5
    larger = run(ScaleToGSD(0.1), results, 0)[0]
    assert larger["img"].shape == larger["img_shape"] == (100, 150, bands)
    same = run(ScaleToGSD(0.25), results, 0)[0]
    assert np.array_equal(same["img"], results["img"])
    with pytest.raises(ConfigError, match="a.png: ScaleToGSD needs the ground sampling distance"):
        ScaleToGSD(0.5)(random_results(rng, 4, 4, bands))
    with pytest.raises(ConfigError, match="more than 0"):
        ScaleToGSD(-1)


def test_predictions_come_back_at_the_original_size(tiny_config):
    """The network sees another ground sampling distance, the scores are counted on the masks as they are."""
    cfg = load_config(str(tiny_config))
    inner = [
        dict(type="ResizeToMultiple", size_divisor=32),
        dict(type="RandomFlip"),
        dict(type="Normalize", mean=[0.0] * 3, std=[255.0] * 3),
        dict(type="ImageToTensor", keys=["img"]),
        dict(type="Collect", keys=["img"]),
    ]
    pipeline = [
        dict(type="LoadRoadImage", gsd_m=4.0),
        dict(type="ScaleToGSD", gsd_m=2.5),
        dict(type="MultiScaleFlipAug", img_scale=None, img_ratios=1.0, transforms=inner),
    ]
    dataset = RoadDataset(pipeline, "ImageSets/Segmentation/val.txt", cfg.data.val.data_root, test_mode=True)
    network = wrap(build_network(cfg), Process(0, 1, torch.device("cpu"))).eval()
    batch = next(iter(evaluation_loader(dataset, Process(0, 1, torch.device("cpu")), 0)))
    assert batch["img"][0].shape[-2:] == (128, 128)  # 64 px of 4 m are 102 px of 2.5 m
    assert network.probabilities(batch).shape == (2, 64, 64)


def test_road_is_found_in_a_mine():
    mine = generate_mine(3, 256, 1.0)
    step = RandomAffineCrop((64, 64), (0.5, 2), max_angle_deg=45, road_probability=1)
    free = RandomAffineCrop((64, 64), (0.5, 2), max_angle_deg=45)
    results = results_of(mine.image, mine.mask)
    empty = [
        [not (run(kind, results, seed)[0]["gt_semantic_seg"] == 1).any() for seed in range(60)] for kind in (step, free)
    ]
    assert sum(empty[0]) == 0
    assert sum(empty[1]) > 0


def looked(image, seed=0, **settings):
    np.random.seed(seed)  # noqa: NPY002
    labels = np.arange(image.shape[0] * image.shape[1], dtype=np.uint8).reshape(image.shape[:2])
    results = RandomLook(**settings)(
        dict(img=image.copy(), gt_semantic_seg=labels.copy(), seg_fields=["gt_semantic_seg"])
    )
    assert np.array_equal(results["gt_semantic_seg"], labels)
    return results["img"]


NEVER = dict.fromkeys(RandomLook.USUAL, 0.0)


@given(SEEDS, st.integers(1, 6), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_any_image_gets_another_look_of_the_same_form(seed, bands, height, width):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)
    always = dict.fromkeys(RandomLook.USUAL, 1.0)
    found = looked(image, seed, probabilities=always)
    assert (found.dtype, found.shape) == (np.uint8, image.shape)
    assert np.array_equal(found, looked(image, seed, probabilities=always))
    assert np.array_equal(looked(image, seed, probabilities=NEVER), image)


def test_what_each_change_of_look_does():
    image = generate_mine(1, 512).image[:256, :256]
    alone = {name: looked(image, 3, probabilities={**NEVER, name: 1.0}) for name in NEVER}
    values = image.reshape(-1, 3)
    for band in range(3):  # a rising curve for each band, each its own
        order = np.argsort(values[:, band], kind="stable")
        assert (np.diff(alone["colours"].reshape(-1, 3)[order, band].astype(int)) >= 0).all()
    gains = alone["colours"].mean(axis=(0, 1)) / image.mean(axis=(0, 1))
    assert np.ptp(gains) > 0.02
    assert np.array_equal(alone["grey"], image.mean(axis=2, keepdims=True).round().repeat(3, 2))
    assert (alone["shadow"] <= image).all() and (alone["shadow"] < image).mean() > 0.1
    assert (alone["haze"] != image).mean() > 0.1
    contrast = [np.ptp(one.astype(int), axis=(0, 1)).sum() for one in (alone["haze"], image)]
    assert contrast[0] <= contrast[1]
    edges = [np.abs(np.diff(one.astype(int), axis=0)).mean() for one in (alone["blur"], image)]
    assert edges[0] < edges[1]
    change = np.abs(alone["jpeg"].astype(int) - image)
    assert 0 < change.mean() < 12


def test_greater_settings_change_more():
    image = np.full((64, 64, 3), 100, np.uint8)
    for name, weak, strong in (
        ("colours", dict(gain=1.01, gamma=1.01), dict(gain=2.0, gamma=2.0)),
        ("shadow", dict(shade=0.95), dict(shade=0.1)),
        ("haze", dict(haze=0.02), dict(haze=0.9)),
    ):
        only = {**NEVER, name: 1.0}
        changes = [
            sum(np.abs(looked(image, seed, probabilities=only, **how).astype(int) - 100).mean() for seed in range(9))
            for how in (weak, strong)
        ]
        assert 4 * changes[0] < changes[1]


@pytest.mark.parametrize("wrong", [dict(fog=0.1), dict(haze=1.5), dict(haze=-0.1)])
def test_looks_that_there_are_not(wrong):
    with pytest.raises(ConfigError, match="RandomLook: probabilities=.* give shares, 0 to 1, of colours, grey, shadow"):
        RandomLook(probabilities=wrong)
