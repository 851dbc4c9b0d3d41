import threading
import time
from itertools import pairwise
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_ext.deploy.facts import normalized
from mmseg_ext.deploy.trained import TrainedNetwork
from mmseg_ext.engine import build_network, load_config
from mmseg_ext.engine.checkpoint import write_checkpoint
from mmseg_ext.engine.distributed import seed_everything
from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.geo import RasterInfo
from mmseg_ext.imagery import ImageReading
from mmseg_ext.mapping import TilePlan, map_strips


@st.composite
def plans(draw):
    tile = draw(st.integers(1, 80))
    scale = draw(st.sampled_from([1.0, 1.0, 0.5, 2.0, 1.25, 0.37, 3.0]))
    stride = draw(st.sampled_from([1, 2, 8, 16]))
    shape = draw(st.integers(1, 400)), draw(st.integers(1, 400))
    return TilePlan(*shape, tile, draw(st.integers(0, tile // 2)), scale, stride)


@given(plans())
@settings(deadline=None)
def test_tiles_lie_inside_but_for_a_square_and_cover(plan):
    aligned = plan.scale == 1 and plan.tile_px % plan.stride == 0 and plan.tile_px > plan.stride
    for starts, size, length in (
        (plan.row_starts, plan.tile_shape[0], plan.height),
        (plan.column_starts, plan.tile_shape[1], plan.width),
    ):
        seen = np.zeros(length, int)
        for start in starts:
            assert 0 <= start <= start + size < length + (plan.stride if aligned and len(starts) > 1 else 1)
            assert not aligned or start % plan.stride == 0
            seen[start : start + size] += 1
        assert seen.min() >= 1
        assert all(b - a <= size - min(plan.overlap_px, size // 2) for a, b in pairwise(starts)) or plan.scale != 1
    assert max(plan.network_shape) <= plan.tile_px


@given(plans())
@settings(deadline=None)
def test_strips_part_the_rows_and_know_their_tile_rows(plan):
    done = 0
    tile_height = plan.tile_shape[0]
    for index in plan.rows:
        start, end = plan.strip(index)
        assert start == done < end
        done = end
        touching = [i for i, row in enumerate(plan.row_starts) if row < end and row + tile_height > start]
        assert list(plan.tile_rows_of(index)) == touching  # brute force: no later tile row, and all earlier ones
    assert done == plan.height


@given(plans())
@settings(deadline=None)
def test_weights_sum_up_to_one(plan):
    total = np.zeros((plan.height, plan.width))
    height, width = plan.tile_shape
    for row, row_weights in zip(plan.row_starts, plan.row_weights, strict=True):
        for column, column_weights in zip(plan.column_starts, plan.column_weights, strict=True):
            inside = total[row : row + height, column : column + width]
            inside += np.outer(row_weights, column_weights)[: inside.shape[0], : inside.shape[1]]
    assert np.abs(total - 1).max() < 1e-6
    assert plan.row_weights.min() >= 0 and plan.column_weights.min() >= 0


def test_by_hand():
    # 6 px tiles that share 2 px: starts 0, 4, 8 make up 14 rows; 5 columns are less than a tile
    plan = TilePlan(14, 5, 6, 2)
    assert plan.row_starts == (0, 4, 8) and plan.column_starts == (0,)
    assert plan.tile_shape == plan.network_shape == (6, 5)
    assert [plan.strip(i) for i in plan.rows] == [(0, 4), (4, 8), (8, 14)]
    assert [list(plan.tile_rows_of(i)) for i in plan.rows] == [[0], [0, 1], [1, 2]]
    # sin^2 at 1/4 and 3/4 of a quarter turn
    low, high = np.sin(np.pi / 8) ** 2, np.sin(3 * np.pi / 8) ** 2
    assert np.allclose(plan.row_weights[1], [low, high, 1, 1, high, low], atol=1e-6)
    assert np.allclose(plan.row_weights[0], [1, 1, 1, 1, high, low], atol=1e-6)  # flat at the raster's border
    assert np.allclose(plan.column_weights, 1)


def test_the_stride_by_hand():
    # 128 px tiles begin at multiples of 32, and the last reaches out to 320 where 300 rows are
    plan = TilePlan(300, 128, 128, 40, stride=32)
    assert plan.row_starts == (0, 64, 128, 192) and plan.column_starts == (0,)
    assert plan.strip(3) == (192, 300)
    # neither tiles of 100 px nor another scale can be aligned
    assert TilePlan(300, 128, 100, 40, stride=32).row_starts == (0, 50, 100, 150, 200)
    assert TilePlan(300, 128, 128, 40, 0.5, stride=32).row_starts == (0, 44)


def test_sizes_at_other_scales():
    # 512 network pixels at 1.25 for one of the raster are 409.6, so 410; at 3 they are 171, which still show 512
    assert TilePlan(2000, 3000, 512, 100, 1.25).tile_shape == (410, 410)
    assert TilePlan(2000, 3000, 512, 100, 3).tile_shape == (171, 171)
    assert TilePlan(2000, 3000, 512, 100, 3).network_shape == (512, 512)
    # 100 rows are less than a tile of 1024, of which the network sees half
    half = TilePlan(100, 3000, 512, 100, 0.5)
    assert half.tile_shape == (100, 1024) and half.network_shape == (50, 512)


@pytest.mark.parametrize(
    ("tile", "overlap", "scale", "words"),
    [(64, 33, 1, "half a tile, which is 32"), (64, -1, 1, "overlap"), (0, 0, 1, "1 px or more"), (64, 8, 0, "scale")],
)
def test_refused(tile, overlap, scale, words):
    with pytest.raises(ConfigError, match=words):
        TilePlan(100, 100, tile, overlap, scale)


class Memory:
    """A raster in memory: values (H, W, B) and valid (H, W) or None."""

    def __init__(self, values, valid=None):
        self.values, self.valid = values, valid
        height, width, bands = values.shape
        self.info = RasterInfo("memory", height, width, bands, values.dtype.name)
        self.reads, self.threads = [], set()

    def read(self, row, column, height, width, bands=None, out_shape=None):
        self.reads.append((row, column))
        self.threads.add(threading.current_thread())
        part = slice(row, row + height), slice(column, column + width)
        values = self.values[part] if bands is None else self.values[part][:, :, [b - 1 for b in bands]]
        valid = None if self.valid is None or self.valid[part].all() else self.valid[part]
        if out_shape is not None:
            size = out_shape[::-1]
            values = cv2.resize(values, size, interpolation=cv2.INTER_LINEAR).reshape(*out_shape, -1)
            if valid is not None:
                valid = cv2.resize(valid.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        return values, valid


class Pixelwise:
    """A network that sees single pixels: two classes, of which the second is the red value."""

    def __init__(self, reading=None):
        self.facts = SimpleNamespace(classes=("background", "road"), reading=reading or ImageReading())
        self.batches = []

    def predict(self, images):
        self.batches.append(len(images))
        red = np.stack(images)[..., 0].astype(np.float32) / 255
        return np.stack([1 - red, red], axis=1)


class Opinionated(Pixelwise):
    """A network that answers for each whole tile with the red value of its first pixel."""

    def predict(self, images):
        road = np.stack([np.full(image.shape[:2], image[0, 0, 0] / 255, np.float32) for image in images])
        return np.stack([1 - road, road], axis=1)


class Blurring(Pixelwise):
    """A network whose answer depends on what lies around a pixel and on where the tile ends."""

    def predict(self, images):
        blurred = np.stack([cv2.GaussianBlur(image, (7, 7), 2) for image in images])
        return super().predict(list(blurred))


def noise(height, width, bands=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, bands), np.uint8)


def assembled(strips, plan):
    """All strips in one, probability (C, H, W) and valid (H, W), checked to make up the raster."""
    strips = list(strips)
    assert [(s.index, s.row, s.row + s.probability.shape[1]) for s in strips] == [
        (i, *plan.strip(i)) for i in plan.rows
    ]
    valid = [np.ones(s.probability.shape[1:], bool) if s.valid is None else s.valid for s in strips]
    return np.concatenate([s.probability for s in strips], axis=1), np.concatenate(valid)


@st.composite
def rasters_and_plans(draw):
    height, width = draw(st.integers(1, 120)), draw(st.integers(1, 90))
    tile = draw(st.integers(4, 60))
    stride = draw(st.sampled_from([1, 4]))
    return noise(height, width), TilePlan(height, width, tile, draw(st.integers(0, tile // 2)), stride=stride)


@given(rasters_and_plans(), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_tiled_equals_whole_for_a_network_of_single_pixels(case, batch):
    image, plan = case
    found, valid = assembled(map_strips(Memory(image), Pixelwise(), plan, batch=batch), plan)
    assert found.dtype == np.float32 and valid.all()
    assert np.abs(found - Pixelwise().predict([image])[0]).max() < 1e-6
    assert found.min() >= 0 and found.max() <= 1


@given(rasters_and_plans(), st.integers(1, 4), st.booleans(), st.data())
@settings(max_examples=40, deadline=None)
def test_any_choice_of_strips_gives_the_same_bits(case, batch, holes, data):
    image, plan = case
    source = Memory(image, np.random.default_rng(1).random(image.shape[:2]) > 0.9 if holes else None)
    everything = list(map_strips(source, Blurring(), plan, batch=batch))
    chosen = data.draw(st.lists(st.sampled_from(plan.rows), unique=True))
    found = list(map_strips(source, Blurring(), plan, batch=batch, strips=chosen))
    assert [s.index for s in found] == sorted(chosen)
    for strip in found:
        expected = everything[strip.index]
        assert strip.row == expected.row and np.array_equal(strip.probability, expected.probability)
        assert (strip.valid is None) == (expected.valid is None)
        assert strip.valid is None or np.array_equal(strip.valid, expected.valid)


def test_only_the_tile_rows_that_are_needed_are_read():
    plan = TilePlan(100, 30, 20, 10)  # rows 0, 10, ..., 80; each strip but the first needs the tile row before
    source = Memory(noise(100, 30))
    list(map_strips(source, Pixelwise(), plan, strips=[6, 1]))
    assert [row for row, column in source.reads if column == 0] == [0, 10, 50, 60]


def test_no_seams():
    # every tile says something else; over n pixels a raised cosine changes by less than pi / 2 / n a pixel, so no
    # step can be higher. Starts 0, 40, 80, 120, 160: all overlaps are 24, of which the middle 12 blend
    plan = TilePlan(224, 224, 64, 24)
    assert set(np.diff(plan.row_starts)) == {40}
    image = np.zeros((224, 224, 3), np.uint8)
    image[::40, ::40, 0] = np.random.default_rng(0).choice([0, 255], (6, 6))
    (_, road), _ = assembled(map_strips(Memory(image), Opinionated(), plan), plan)
    steps = max(np.abs(np.diff(road, axis=axis)).max() for axis in (0, 1))
    assert np.pi / 2 / 12 * 0.9 < steps < np.pi / 2 / 12 * 1.001
    # without overlap there would be a step from 0 to 1
    hard = TilePlan(224, 224, 56, 0)
    image[::56, ::56, 0] = np.random.default_rng(0).choice([0, 255], (4, 4))
    (_, road), _ = assembled(map_strips(Memory(image), Opinionated(), hard), hard)
    assert np.abs(np.diff(road)).max() == 1


def test_batches_stay_within_a_tile_row_and_reading_ahead_keeps_the_order():
    plan = TilePlan(60, 130, 20, 0)  # 3 rows of 7 tiles
    source, network = Memory(noise(60, 130)), Pixelwise()
    list(map_strips(source, network, plan, batch=3))
    assert network.batches == [3, 3, 1] * 3
    assert source.reads == [(row, column) for row in plan.row_starts for column in plan.column_starts]
    assert len(source.threads) == 1 and threading.current_thread() not in source.threads


def test_reads_while_the_network_computes_but_not_too_far():
    plan = TilePlan(20, 2000, 20, 0)  # one row of 100 tiles
    source = Memory(noise(20, 2000))
    ahead = []

    class Patient(Pixelwise):
        def predict(self, images):
            done = sum(self.batches) + len(images)
            for _ in range(10_000):
                if len(source.reads) > done or done == 100:
                    break
                time.sleep(0.001)
            else:
                raise AssertionError("nobody reads while the network computes")
            ahead.append(len(source.reads) - done)
            return super().predict(images)

    list(map_strips(source, Patient(), plan, batch=2))
    assert len(ahead) == 50 and min(ahead[:-1]) >= 1
    assert max(ahead) <= 2 * 2 + 1  # two batches, and the tile that is asked for


def test_memory_does_not_depend_on_the_height():
    plan = TilePlan(4000, 90, 32, 8)
    for strip in map_strips(Memory(noise(4000, 90)), Pixelwise(), plan):
        assert strip.probability.base is None and strip.probability.shape[1] <= 32
        assert strip.probability.shape[2] == 90


def test_holes():
    image, valid = noise(90, 70), np.ones((90, 70), bool)
    valid[:, 40:] = False  # the last tile column (50 to 70) holds nothing at all
    valid[5, 5] = False
    plan = TilePlan(90, 70, 20, 5)
    network = Blurring()
    found, mapped = assembled(map_strips(Memory(image, valid), network, plan, batch=9), plan)
    assert np.array_equal(mapped, valid)
    assert (found[:, ~valid] == 0).all() and np.allclose(found[:, valid].sum(axis=0), 1, atol=1e-6)
    whole = [c for c in plan.column_starts if c < 40]
    assert network.batches == [len(whole)] * len(plan.rows) and len(whole) < len(plan.column_starts)
    # strips without a hole say so
    strips = list(map_strips(Memory(image[:, :40], valid[:, :40]), network, TilePlan(90, 40, 20, 5)))
    assert strips[0].valid is not None and all(strip.valid is None for strip in strips[1:])
    # nothing at all: nothing is computed
    network = Blurring()
    found, mapped = assembled(map_strips(Memory(image, np.zeros((90, 70), bool)), network, plan), plan)
    assert not found.any() and not mapped.any() and network.batches == []


def test_holes_take_the_mean_of_their_tile():
    image, valid = np.full((20, 20, 3), 100, np.uint8), np.ones((20, 20), bool)
    image[0, 0], valid[0, 0] = 255, False
    seen = []

    class Watching(Pixelwise):
        def predict(self, images):
            seen.extend(images)
            return super().predict(images)

    list(map_strips(Memory(image, valid), Watching(), TilePlan(20, 20, 20, 0)))
    assert (seen[0] == 100).all()


@pytest.mark.parametrize("scale", [0.5, 2.0, 1.25])
def test_scale(scale):
    # a wave of 80 px survives the way to another resolution and back
    rows, columns = np.mgrid[:200, :170]
    wave = 0.5 + 0.4 * np.sin(rows * 2 * np.pi / 80) * np.cos(columns * 2 * np.pi / 80)
    image = np.repeat(np.rint(255 * wave)[:, :, None], 3, axis=2).astype(np.uint8)
    valid = np.ones((200, 170), bool)
    valid[50:60, 20:30] = False
    plan = TilePlan(200, 170, 64, 16, scale)
    sizes = set()

    class Measuring(Pixelwise):
        def predict(self, images):
            sizes.update(image.shape for image in images)
            return super().predict(images)

    (_, road), mapped = assembled(map_strips(Memory(image, valid), Measuring(), plan), plan)
    assert sizes == {(64, 64, 3)}
    around = cv2.dilate((~valid).astype(np.uint8), np.ones((9, 9))) > 0
    assert np.abs(road - wave)[~around].max() < 0.02
    rim = cv2.dilate((~valid).astype(np.uint8), np.ones((5, 5))) - cv2.erode((~valid).astype(np.uint8), np.ones((5, 5)))
    assert np.array_equal(mapped[rim == 0], valid[rim == 0])
    if scale == 2:
        assert np.array_equal(mapped, valid)


def test_bands_and_scaling_are_the_networks_unless_told():
    deep = noise(40, 30, 5).astype(np.uint16) * 16
    plan = TilePlan(40, 30, 20, 4)
    network = Pixelwise(ImageReading(bands=(4, 2, 1), low=(0.0,), high=(4080.0,)))
    (_, road), _ = assembled(map_strips(Memory(deep), network, plan), plan)
    assert np.abs(road - deep[:, :, 3] / 4080).max() < 1e-6
    other = network.facts.reading.with_settings(bands=(2, 1, 5))
    (_, road), _ = assembled(map_strips(Memory(deep), network, plan, reading=other), plan)
    assert np.abs(road - deep[:, :, 1] / 4080).max() < 1e-6
    with pytest.raises(DataError, match="has 5 bands, but bands 6"):
        list(map_strips(Memory(deep), network, plan, reading=ImageReading(bands=(6,))))
    with pytest.raises(DataError, match="uint16 pixels, and no scaling"):
        list(map_strips(Memory(deep), network, plan, reading=ImageReading(bands=(1, 2, 3))))


def reader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("reader")]


def test_errors_of_the_reader_arrive_and_no_thread_stays():
    class Torn(Memory):
        def read(self, row, *args, **kwargs):
            if row >= 40:
                raise DataError("torn")
            return super().read(row, *args, **kwargs)

    plan = TilePlan(100, 30, 20, 0)
    strips = map_strips(Torn(noise(100, 30)), Pixelwise(), plan)
    assert [next(strips).index, next(strips).index] == [0, 1]  # what was read before is mapped
    with pytest.raises(DataError, match="torn"):
        next(strips)
    assert not reader_threads()


def test_closing_and_failing_end_the_thread():
    plan = TilePlan(100, 30, 20, 0)
    source = Memory(noise(100, 30))
    strips = map_strips(source, Pixelwise(), plan, batch=1)
    next(strips)
    assert reader_threads()
    strips.close()
    assert not reader_threads()
    assert len(source.reads) < len(plan.row_starts) * len(plan.column_starts)

    class Failing(Pixelwise):
        def predict(self, images):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        next(map_strips(source, Failing(), plan))
    assert not reader_threads()


def test_plans_of_other_rasters_and_unknown_strips_are_refused():
    source = Memory(noise(100, 30))
    with pytest.raises(ValueError, match="100 x 31"):
        next(map_strips(source, Pixelwise(), TilePlan(100, 31, 20, 0)))
    with pytest.raises(ValueError, match="strips"):
        next(map_strips(source, Pixelwise(), TilePlan(100, 30, 20, 0), strips=[5]))


@pytest.fixture(scope="module")
def tiny_network(tmp_path_factory, one_config):
    seed_everything(0)
    cfg = load_config(str(one_config))
    path = str(tmp_path_factory.mktemp("tiny") / "network.pth")
    write_checkpoint(dict(state_dict=build_network(cfg).state_dict(), meta=dict(config=cfg.pretty_text)), path)
    return TrainedNetwork.load(path)


def test_dsegnext_gives_the_same_bits_for_any_choice_of_strips(tiny_network):
    plan = TilePlan(150, 131, 64, 16)
    source = Memory(noise(150, 131))
    everything = list(map_strips(source, tiny_network, plan, batch=2))
    (again,) = map_strips(source, tiny_network, plan, batch=2, strips=[2])
    assert np.array_equal(again.probability, everything[2].probability)
    found, _ = assembled(everything, plan)
    assert found.shape == (2, 150, 131) and np.allclose(found.sum(axis=0), 1, atol=1e-5)


def test_a_convolutional_network_says_the_same_in_tiles_and_as_a_whole(tmp_path, root):
    seed_everything(0)
    cfg = load_config(
        str(root / "myconfigs/linknets/linknet34.256x256.EPFL.1.5k.py"), {"model.backbone.init_cfg": None}
    )
    model = build_network(cfg)
    image = cv2.normalize(cv2.GaussianBlur(noise(704, 608), (0, 0), 8), None, 0, 255, cv2.NORM_MINMAX)
    for norm in model.modules():  # statistics of this image, without which random weights saturate
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = 1.0
    path = str(tmp_path / "linknet.pth")
    write_checkpoint(dict(state_dict=model.state_dict(), meta=dict(config=cfg.pretty_text)), path)
    with torch.no_grad():
        taken = normalized(TrainedNetwork.load(path).facts, image, "a.tif")  # 704 and 608 are multiples of 32
        model.train().encode_decode(torch.from_numpy(taken).permute(2, 0, 1)[None], [{}])
    write_checkpoint(dict(state_dict=model.state_dict(), meta=dict(config=cfg.pretty_text)), path)
    network = TrainedNetwork.load(path)
    (whole,) = network.predict([image])

    plan = TilePlan(704, 608, 576, 288, stride=network.facts.stride)
    assert (plan.row_starts, plan.column_starts) == ((0, 128), (0, 32))
    tiled, _ = assembled(map_strips(Memory(image), network, plan, batch=1), plan)
    expected, found = (np.log(probability[1] / probability[0]) for probability in (whole, tiled))
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.995
    # two classes of equal size; random weights leave a quarter of the pixels at the very border between them
    middle = np.median(expected)
    same = (found > middle) == (expected > middle)
    clear = np.abs(expected - middle) > 0.25 * expected.std()
    assert clear.mean() > 0.7 and same[clear].mean() > 0.995
    moved = (found[:, 32:] > middle) == (expected[:, :-32] > middle)
    assert moved.mean() < 0.6  # one tile further is hardly better than chance: the agreement means something
