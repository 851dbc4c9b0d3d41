"""clDice keeps roads connected, in any number of processes; MMSegmentation's losses run with our heads."""

import subprocess
import sys
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from mmcv.cnn.utils import revert_sync_batchnorm

from mmseg_ext.engine import build_network, load_config
from mmseg_ext.errors import ConfigError
from mmseg_ext.models import SoftClDiceLoss
from mmseg_ext.models.losses import soft_skeleton


def as_maps(mask):
    return torch.from_numpy(mask.astype(np.float32))[None, None]


def as_logits(mask, sure=20.0):
    return torch.stack([torch.from_numpy((0.5 - m) * sure) for m in (mask, 1 - mask)])[None].float()


def bar(width_px, slope_deg, size=121):
    rows, columns = np.mgrid[:size, :size] - size // 2
    angle = np.deg2rad(slope_deg)
    return (np.abs(rows * np.cos(angle) - columns * np.sin(angle)) <= width_px / 2 - 0.01).astype(np.uint8)


@pytest.mark.parametrize("slope_deg", [0, 20, 45, 90])
@pytest.mark.parametrize("width_px", [3, 8, 15, 31])
def test_skeletons_of_roads_are_thin_whole_and_in_the_middle(width_px, slope_deg):
    road = bar(width_px, slope_deg)
    lines = soft_skeleton(as_maps(road), width_px)[0, 0].numpy()
    assert set(np.unique(lines)) <= {0, 1}
    # from one end of the picture to the other, in one piece; oblique lines may have gaps of two pixels
    closed = lines if slope_deg in (0, 45, 90) else cv2.dilate(lines, np.ones((3, 3)))
    assert cv2.connectedComponents(closed.astype(np.uint8), connectivity=8)[0] == 2
    ys, xs = np.nonzero(lines)
    assert max(np.ptp(ys), np.ptp(xs)) >= 118
    middle = bar(4.1, slope_deg)
    assert lines[20:-20, 20:-20].sum() == (lines * middle)[20:-20, 20:-20].sum() > 0
    assert cv2.distanceTransform(lines.astype(np.uint8), cv2.DIST_L2, 5).max() <= 1
    # wider roads than it was told of have none
    if width_px > 8:
        assert soft_skeleton(as_maps(road), width_px // 3).sum() == 0


def test_skeleton_of_binary_masks_is_the_morphological_one():
    noise = cv2.GaussianBlur(np.random.default_rng(0).random((90, 110)), (0, 0), 5)
    mask = (noise > np.median(noise)).astype(np.uint8)
    cross, square = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)), np.ones((3, 3), np.uint8)
    expected, rest = np.zeros_like(mask), mask
    while rest.any():
        smaller = cv2.erode(rest, cross)
        expected |= rest & ~cv2.dilate(smaller, square)
        rest = smaller
    assert (soft_skeleton(as_maps(mask), 60)[0, 0].numpy() == expected).all()


def test_a_broken_road_costs_more_than_as_many_pixels_at_its_edge():
    loss = SoftClDiceLoss(max_width_px=10)
    road = bar(9, 0, 65)
    true = torch.from_numpy(road).long()[None]
    broken, shaved = road.copy(), road.copy()
    broken[:, 30:37] = 0
    top = np.nonzero(road[:, 0])[0][0]
    shaved[top, :63] = 0
    assert broken.sum() == shaved.sum() == road.sum() - 63
    whole, gap, edge = (loss(as_logits(mask), true).item() for mask in (road, broken, shaved))
    assert whole == pytest.approx(0, abs=1e-4)
    assert edge == pytest.approx(0, abs=0.01)
    # the centreline found is all right, but 7 of its 65 pixels are missing in the prediction
    share = (65 - 7 + 1) / (65 + 1)
    assert gap == pytest.approx(1 - 2 * share / (1 + share), abs=0.01)
    # and it is the middle of the gap that is pulled up
    unsure = as_logits(broken, 4.0).requires_grad_()
    loss(unsure, true).backward()
    pull = -unsure.grad[0, 1]
    assert pull[32, 33] > 5 * pull[top, 33].abs()
    assert pull[32, 33] > 5 * pull[top, :20].abs().max()


def test_gradient_is_that_of_finite_differences():
    torch.manual_seed(0)
    label = torch.randint(2, (2, 7, 8))
    label[0, :2] = 255
    logits = torch.randn(2, 2, 7, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: SoftClDiceLoss(max_width_px=4)(x, label), logits)
    one = torch.randn(2, 1, 7, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: SoftClDiceLoss(max_width_px=4)(x, label), one)


def test_ignored_pixels_count_in_neither():
    torch.manual_seed(0)
    loss, label = SoftClDiceLoss(max_width_px=6), torch.from_numpy(bar(5, 0, 33)).long()[None]
    label[:, :, 20:] = 255
    logits = torch.randn(1, 2, 33, 33, requires_grad=True)
    value = loss(logits, label)
    value.backward()
    assert (logits.grad[..., 20:] == 0).all()
    assert (logits.grad[..., :20] != 0).any()
    other = logits.detach().clone()
    other[..., 20:] = torch.randn(1, 2, 33, 13)
    assert loss(other, label) == value
    # a truth that ends there too, and a prediction that knows it
    assert loss(as_logits(bar(5, 0, 33)), label).item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_images_without_roads_and_half_precision(precision):
    loss = SoftClDiceLoss()
    none, road = np.zeros((33, 33), np.uint8), bar(7, 0, 33)
    for truth in (none, road, np.full((33, 33), 255)):
        for prediction in (none, road):
            logits = as_logits(prediction).to(precision).requires_grad_()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision != torch.float32):
                value = loss(logits, torch.from_numpy(truth).long()[None])
            value.backward()
            assert value.dtype == torch.float32
            assert logits.grad.isfinite().all()
            right = truth.max() == 255 or (truth == prediction).all()
            assert value.item() == pytest.approx(0, abs=1e-2) if right else value.item() > 0.9
            again = loss(logits.detach().float(), torch.from_numpy(truth).long()[None])
            assert value.item() == pytest.approx(again.item(), rel=1e-6)


def test_a_batch_is_one_picture():
    # a false pixel in an image without roads counts as much as one beside a road
    road, none = bar(5, 0, 65), np.zeros((65, 65), np.uint8)
    false = none.copy()
    false[10, 10:14] = 1
    loss, true = SoftClDiceLoss(max_width_px=8), torch.from_numpy(np.stack([road, none])).long()
    apart = loss(torch.cat([as_logits(road), as_logits(false)]), true).item()
    together = loss(torch.cat([as_logits(road | false), as_logits(none)]), true).item()
    share = (65 + 1) / (65 + 4 + 1)
    assert apart == pytest.approx(together, abs=1e-5) == pytest.approx(1 - 2 * share / (1 + share), abs=1e-3)


def test_classes_and_mistakes():
    torch.manual_seed(0)
    logits, label = torch.randn(2, 3, 16, 16), torch.randint(3, (2, 16, 16))
    each = [SoftClDiceLoss(classes=[index])(logits, label).item() for index in range(3)]
    assert SoftClDiceLoss(classes=(1, 2))(logits, label).item() == pytest.approx((each[1] + each[2]) / 2)
    assert SoftClDiceLoss(loss_weight=3.0)(logits, label).item() == pytest.approx(3 * each[1])
    with pytest.raises(ConfigError, match="max_width_px=0"):
        SoftClDiceLoss(max_width_px=0)
    with pytest.raises(ConfigError, match="sampler.thresh"):
        SoftClDiceLoss()(logits, label, reduction_override="none")


TWO_PROCESSES = """
import sys
import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
import mmseg_ext  # first: it makes MMSegmentation work without mmcv's compiled operators
from mmseg.models import build_loss

def gradient(images, labels, kind):
    torch.manual_seed(0)
    net = torch.nn.Conv2d(3, 2, 3, padding=1)
    wrapped = DistributedDataParallel(net) if dist.is_initialized() else net
    build_loss(dict(type=kind))(wrapped(images), labels).backward()
    return net.weight.grad

torch.manual_seed(1)
images, labels = torch.randn(4, 3, 24, 24), torch.randint(2, (4, 24, 24))
labels[0], labels[3, :9] = 0, 255
alone = {kind: gradient(images, labels, kind) for kind in ("SoftClDiceLoss", "DiceLoss")}
dist.init_process_group("gloo", init_method=sys.argv[1], rank=int(sys.argv[2]), world_size=2)
mine = slice(2 * dist.get_rank(), 2 * dist.get_rank() + 2)
for kind, expected in alone.items():
    found = gradient(images[mine], labels[mine], kind)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    sys.stdout.write(f"{kind} agrees\\n")
"""


def test_two_processes_average_to_the_gradient_of_the_whole_batch(tmp_path, root):
    command = [sys.executable, "-c", TWO_PROCESSES, f"file://{tmp_path / 'meeting'}"]
    start = partial(subprocess.Popen, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for process in [start([*command, rank]) for rank in "01"]:
        said, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        assert said == "SoftClDiceLoss agrees\nDiceLoss agrees\n"


FRAGMENTS = {
    "ce_cldice": {"loss_ce", "loss_cldice"},
    "ce_dice": {"loss_ce", "loss_dice"},
    "ce_dice_cldice": {"loss_ce", "loss_dice", "loss_cldice"},
    "ce_lovasz": {"loss_ce", "loss_lovasz"},
    "focal": {"loss_focal"},
    "ohem": {"loss_ce"},
}


def test_every_fragment_is_tested(root):
    assert {path.stem for path in (root / "myconfigs/_base_/losses").glob("*.py")} == FRAGMENTS.keys()


@pytest.mark.parametrize("name", FRAGMENTS)
def test_a_training_step_with_each_fragment(name, tiny_config, tmp_path, root):
    settings = ["loss_decode"] + (["sampler"] if name == "ohem" else [])
    own = tmp_path / "own.py"
    own.write_text(
        f"_base_ = [{str(tiny_config)!r}, {str(root / f'myconfigs/_base_/losses/{name}.py')!r}]\n"
        f"model = dict(decode_head=dict({', '.join(f'{key}={{{{_base_.{key}}}}}' for key in settings)}))\n"
    )
    torch.manual_seed(0)
    network = revert_sync_batchnorm(build_network(load_config(str(own)))).train()
    assert (network.decode_head.sampler is not None) == (name == "ohem")
    images, labels = torch.randn(2, 3, 64, 64), torch.randint(2, (2, 1, 64, 64))
    labels[0, 0, :20] = 255
    loss, logged = network._parse_losses(network.forward_train(images, [{}] * 2, labels))
    loss.backward()
    assert {key.removeprefix("decode.") for key in logged} == {*FRAGMENTS[name], "acc_seg", "loss"}
    assert 0.02 < loss.item() < 5
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert sum(float(p.grad.abs().sum()) for p in network.parameters()) > 0
