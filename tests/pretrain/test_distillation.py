"""A tiny student learns from a tiny teacher: targets, crops, resuming, and the file that comes out."""

import dataclasses
import json
import os
import shutil
import signal

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open

from mmseg_ext.datasets import generate_mine
from mmseg_ext.engine.checkpoint import read_checkpoint
from mmseg_ext.engine.distributed import seeded
from mmseg_ext.engine.hooks import StopOnSignal
from mmseg_ext.engine.weights import load_pretrained
from mmseg_ext.errors import CheckpointError, ConfigError, DataError, Stopped
from mmseg_ext.models import MSCAN, TimmEncoder
from mmseg_ext.pretrain import distillation
from mmseg_ext.pretrain.crops import Crops, list_images, split_held_out
from mmseg_ext.pretrain.distillation import distil
from mmseg_ext.pretrain.distiller import STRIDES, Distiller
from mmseg_ext.pretrain.settings import DistilSettings

TEACHER = "test_efficientnet"
SIZES = dict(embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), mlp_ratios=(2, 2, 2, 2), drop_path_rate=0.1)
TINY = {f"model.backbone.{key}": value for key, value in SIZES.items()}
QUICK = DistilSettings(
    steps=6,
    warmup_steps=2,
    batch_size=2,
    crop_size=64,
    workers=0,
    log_interval=1,
    eval_interval=3,
    save_interval=3,
)
PLAIN = [0.0] * 3, [255.0] * 3


@pytest.fixture(scope="module")
def learn(teacher_file, images):
    def run(work_dir, settings=QUICK, **more):
        given = dict(teacher=TEACHER, teacher_weights=teacher_file, options=TINY)
        return distil("dsegnext_tiny", [str(images)], settings=settings, work_dir=str(work_dir), **{**given, **more})

    return run


@pytest.fixture(scope="module")
def straight(learn, tmp_path_factory):
    return learn(tmp_path_factory.mktemp("straight"))


def logged(work_dir):
    lines = [
        json.loads(line)
        for path in sorted(os.listdir(work_dir))
        if path.endswith(".log.json")
        for line in open(os.path.join(work_dir, path))
    ]
    return [line for line in lines if "loss" in line]


def tiny_student(**more):
    torch.manual_seed(1)
    student = MSCAN(**SIZES, gating_unit=dict(type="HDMSCA"), **more)
    student.init_weights()
    return student


def tiny_teacher(path):
    teacher = TimmEncoder(TEACHER, frozen=True)
    load_pretrained(teacher, path)
    return teacher


def test_targets_have_mean_0_and_variance_1_by_channel(teacher_file):
    teacher = tiny_teacher(teacher_file)
    norm = [10.0, 20.0, 30.0], [40.0, 50.0, 60.0]
    distiller = Distiller(tiny_student(), teacher, PLAIN, norm, 64)
    batches = list(torch.randint(256, (3, 2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))
    distiller.measure(batches)
    x = (np.concatenate([batch.numpy() for batch in batches]).astype(np.float32) - np.reshape(norm[0], (3, 1, 1))) / (
        np.reshape(norm[1], (3, 1, 1))
    )
    with torch.no_grad():
        raw = [feature.numpy() for feature in teacher.network(torch.from_numpy(x.astype(np.float32)))][1:]
    targets = [distiller.targets(batch) for batch in batches]
    for stride, feature in zip(STRIDES, raw, strict=True):
        assert feature.shape[2] == 64 // stride
        mean, std = feature.mean((0, 2, 3), keepdims=True), feature.std((0, 2, 3), keepdims=True)
        assert np.ptp(mean) > 0.1 and std.max() > 1.5 * std.min()  # there is something to normalise
        found = np.concatenate([target[stride].numpy() for target in targets])
        np.testing.assert_allclose(found, (feature - mean) / std, atol=2e-3)


def test_the_loss_and_what_is_explained(teacher_file):
    distiller = Distiller(tiny_student(), tiny_teacher(teacher_file), PLAIN, PLAIN, 64).eval()
    image = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    distiller.measure([image])
    with torch.no_grad():
        losses, targets, answers = distiller(image), distiller.targets(image), distiller.answers(image)
    for stride in STRIDES:
        gap = np.abs(targets[stride].numpy() - answers[stride].numpy())
        loss = np.where(gap < 1, gap**2 / 2, gap - 0.5).mean()
        assert losses[f"loss_{stride}"].item() == pytest.approx(loss, rel=1e-4)
        explained = 1 - (gap**2).sum() / (targets[stride].numpy() ** 2).sum()  # mean 0 over these very crops
        assert distiller.explained_variance([image])[stride] == pytest.approx(explained, abs=1e-3)
    with torch.no_grad():
        for projection in distiller.projections.values():
            projection.weight.zero_(), projection.bias.zero_()
    assert distiller.explained_variance([image]) == pytest.approx(dict.fromkeys(STRIDES, 0.0), abs=1e-5)
    assert not [key for key in distiller.state_dict() if "teacher" in key]


def test_it_learns(learn, tmp_path):
    settings = dataclasses.replace(QUICK, steps=60, lr=1e-2, batch_size=4, eval_interval=20, channels_last=True)
    learn(tmp_path, settings)
    lines = logged(tmp_path)
    assert [line["iter"] for line in lines] == list(range(1, 61))
    first, last = (np.mean([line["loss"] for line in part]) for part in (lines[:10], lines[-10:]))
    assert last < 0.7 * first
    measured = [line for line in lines if "explained_4" in line]
    assert [line["iter"] for line in measured] == [20, 40, 60]
    assert measured[-1]["explained_4"] > measured[0]["explained_4"] + 0.05
    assert lines[0]["lr"] < lines[1]["lr"] == pytest.approx(5e-3, rel=0.02)
    assert lines[-1]["lr"] < 1e-4


def test_a_stopped_run_resumes_to_the_same_bits(learn, straight, tmp_path, monkeypatch):
    stop = StopOnSignal.after_train_iter

    def interrupt(hook, runner):
        hook.received = signal.SIGTERM if runner.iter == 3 else 0
        stop(hook, runner)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(StopOnSignal, "after_train_iter", interrupt)
        learn(tmp_path)
    assert not (tmp_path / "encoder.safetensors").exists()
    with pytest.raises(ConfigError, match="already contains a run, up to iter_4.pth; give --auto-resume"):
        learn(tmp_path)
    learn(tmp_path, dataclasses.replace(QUICK, workers=1), auto_resume=True)
    one, other = (read_checkpoint(os.path.join(folder, "iter_6.pth")) for folder in (straight, tmp_path))
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for key, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][key]), key
    for number, moments in one["optimizer"]["state"].items():
        assert all(torch.equal(value, other["optimizer"]["state"][number][name]) for name, value in moments.items())
    names = ("iter", "loss", "lr", "grad_norm", "explained_32")
    assert [[line.get(name) for name in names] for line in logged(straight)] == [
        [line.get(name) for name in names] for line in logged(tmp_path)
    ]
    encoders = [open(os.path.join(folder, "encoder.safetensors"), "rb").read() for folder in (straight, tmp_path)]
    assert safetensors_part(encoders[0]) == safetensors_part(encoders[1])
    # of another teacher
    with pytest.raises(CheckpointError, match=f"learned from {TEACHER}, not tf_efficientnet_lite0; give --teacher"):
        learn(tmp_path, auto_resume=True, teacher="tf_efficientnet_lite0", teacher_weights=None)


def safetensors_part(content):
    """Return the tensors' bytes of a safetensors file, without its header."""
    return content[8 + int.from_bytes(content[:8], "little") :]


def test_the_file_is_the_encoder_in_half_the_bytes(straight, images):
    path = os.path.join(straight, "encoder.safetensors")
    trained = read_checkpoint(os.path.join(straight, "iter_6.pth"))["state_dict"]
    trained = {key.removeprefix("student."): v for key, v in trained.items() if key.startswith("student.")}
    with safe_open(path, "pt") as file:
        assert {key: file.get_tensor(key).dtype for key in file.keys()} == {
            key: torch.float16 if value.is_floating_point() else value.dtype for key, value in trained.items()
        }
        facts = json.loads(file.metadata()["mmseg_ext"])["distillation"]
    assert (facts["teacher"], facts["images"], facts["steps"], facts["seed"]) == (TEACHER, 4, 6, 0)
    assert len(facts["config_sha256"]) == 64 and facts["config"] == "dsegnext_t.py"
    assert facts["explained_variance"].keys() == {"4", "8", "16", "32"}
    whole, loaded = (MSCAN(**SIZES, gating_unit=dict(type="HDMSCA"), norm_cfg=dict(type="SyncBN")) for _ in range(2))
    whole.load_state_dict(trained)
    load_pretrained(loaded, path)
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    with torch.no_grad():
        x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        for a, b in zip(whole.eval()(x), loaded.eval()(x), strict=True):
            assert (a - b).abs().max() < 2e-2 * a.abs().max()
            assert not torch.equal(a, b)


def test_a_second_stage_starts_from_the_first(learn, straight, tmp_path, monkeypatch):
    path = os.path.join(straight, "encoder.safetensors")
    weights = {}
    measure = Distiller.measure

    def see(distiller, batches):
        weights.update({key: value.clone() for key, value in distiller.student.state_dict().items()})
        measure(distiller, batches)

    monkeypatch.setattr(Distiller, "measure", see)
    learn(tmp_path, dataclasses.replace(QUICK, steps=1, warmup_steps=0), start=path)
    for key, value in read_checkpoint(path)["state_dict"].items():
        assert torch.equal(weights[key], value.to(weights[key].dtype)), key


def test_the_student_of_a_config_and_another_family(learn, images, teacher_file, tmp_path):
    """SegFormer's encoder, with the normalisation of its config, and a timm encoder, from an image list."""
    settings = dataclasses.replace(QUICK, steps=2, warmup_steps=0, batch_size=1)
    files = [str(images / "0.png"), str(images / "1.png")]
    given = dict(settings=settings, teacher_weights=teacher_file)
    distil("segformer.b0.256x256.EPFL.1.5k", files, TEACHER, work_dir=str(tmp_path / "b0"), **given)
    assert [line["iter"] for line in logged(tmp_path / "b0")] == [1, 2]
    options = {"model.backbone.name": TEACHER, "model.decode_head.in_channels": [16, 24, 32, 48, 64]}
    work_dir = str(tmp_path / "timm")
    distil("unet_lite0.256x256.DUBAI.2.5k", files, TEACHER, work_dir=work_dir, options=options, **given)
    load_pretrained(TimmEncoder(TEACHER), os.path.join(work_dir, "encoder.safetensors"), min_share=1)


def test_the_norm_that_timm_knows():
    imagenet = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    np.testing.assert_allclose(distillation._teacher_norm("tf_efficientnet_lite0", False), imagenet, rtol=1e-6)
    np.testing.assert_allclose(distillation._teacher_norm("tf_efficientnet_lite0", True), np.full((2, 3), 127.5))
    np.testing.assert_allclose(distillation._teacher_norm("resnet18", True), imagenet, rtol=1e-6)


def test_images_are_found_once_and_every_20th_is_held_out(images, tmp_path):
    (images / "._0.png").touch()
    (images / "notes.txt").touch()
    found = list_images([str(images), str(images / "0.png"), str(images / "below")])
    assert [os.path.relpath(path, images) for path in found] == ["0.png", "1.png", "3.png", "4.png", "below/2.jpg"]
    names = [str(i) for i in range(45)]
    assert split_held_out(names)[1] == ["19", "39"]
    assert split_held_out(names)[0] == [name for name in names if name not in ("19", "39")]
    assert split_held_out(["a", "b", "c"]) == (["a", "b"], ["c"])
    with pytest.raises(DataError, match="a: is the only image; give two at least"):
        split_held_out(["a"])
    with pytest.raises(DataError, match="nowhere: no such folder or image"):
        list_images([str(images), "nowhere"])
    with pytest.raises(DataError, match=r"no images in it \(.png, .jpg"):
        list_images([str(tmp_path)])


def test_crops_show_more_than_nodata(tmp_path):
    """A picture in the right third of a black or transparent image; one that has only nodata gives way."""
    mine = generate_mine(0, 300).image
    mine[:, :200] = 0
    paths = [str(tmp_path / name) for name in ("black.png", "alpha.png", "empty.png")]
    cv2.imwrite(paths[0], mine)
    seen = np.full((300, 300), 255, np.uint8)
    seen[:, :200] = 0
    white = np.where(seen[..., None] == 0, 250, mine).astype(np.uint8)
    cv2.imwrite(paths[1], np.dstack([white, seen]))
    cv2.imwrite(paths[2], np.zeros((300, 300, 3), np.uint8))
    settings = dataclasses.replace(QUICK, min_scale=1.0, max_scale=1.0)
    crops = Crops(paths, settings)
    crops._look = lambda results: results
    shares = {}
    for draw in range(30):
        with seeded(0, draw):
            item = crops[draw % 3]
        crop = item["img"].data.numpy()
        assert crop.shape == (3, 64, 64) and crop.dtype == np.uint8
        name = os.path.basename(item["img_metas"].data["filename"])
        # holes of the transparent image take its mean
        nothing = crop.max(0) <= 4 if name == "black.png" else np.ptp(crop.reshape(3, -1), axis=1).max() == 0
        shares.setdefault(name, []).append(np.mean(nothing))
    assert shares.keys() == {"black.png", "alpha.png"}
    assert max(shares["black.png"]) <= 0.5 < 2 / 3
    assert max(shares["alpha.png"]) == 0
    with pytest.raises(DataError, match="empty.png: is nodata or black by more than half"):
        Crops(paths[2:], settings)[0]


def test_decoded_images_are_kept_as_far_as_the_memory_goes(images, tmp_path):
    paths = list_images([str(images)])
    whole, none = Crops(paths, QUICK), Crops(paths, dataclasses.replace(QUICK, cache_mb=0))
    assert (len(whole._cache), len(none._cache)) == (5, 0)
    for index in range(5):
        drawn = []
        for crops in (whole, none):
            with seeded(3, index):
                drawn.append(crops[index]["img"].data)
        assert torch.equal(*drawn)
    pixels = cv2.imread(paths[0])[:, :, ::-1]
    assert np.array_equal(whole._cache[0][0][:, :, ::-1], pixels)


@pytest.mark.parametrize(
    "change, error, message",
    [
        (dict(teacher="test_efficientnett"), ConfigError, "'test_efficientnett' gives no features"),
        (dict(teacher="test_vit"), ConfigError, "test_vit: gives features at strides 16, not at all of 4, 8, 16, 32"),
        (dict(teacher_weights="none.pth"), CheckpointError, "none.pth: no such .*--teacher-weights"),
        (dict(start="none.safetensors"), CheckpointError, "none.safetensors: no such"),
        (dict(options={"data.samples_per_gpu": 1}), ConfigError, "data.samples_per_gpu: dsegnext_tiny has"),
        (dict(options={"model.backbone.depths": 3}), ConfigError, "dsegnext_t.py: a setting does not fit"),
        (dict(options={**TINY, "model.backbone.in_channels": 4}), ConfigError, "MSCAN: takes no crops of 64 px"),
        (
            dict(options={f"model.backbone.{key}": SIZES[key][:3] for key in ("embed_dims", "depths", "mlp_ratios")}),
            ConfigError,
            "MSCAN: gives features at strides 4, 8, 16, not at all of 4, 8, 16, 32; take a network of four stages",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(learn, tmp_path, change, error, message):
    with pytest.raises(error, match=message) as caught:
        learn(tmp_path / "run", **change)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(crop_size=100), "--crop-size 100 is no multiple of 32; give 96"),
        (dict(min_scale=3.0), "--min-scale 3.0 --max-scale 2.0: give two scales"),
        (dict(warmup_steps=6), "--warmup-steps 6 leaves nothing of --steps 6; give --warmup-steps 0"),
        (dict(steps=0), "--steps 0 trains nothing"),
        (dict(lr=-1.0), "--lr -1.0 is negative"),
    ],
)
def test_settings_that_make_no_sense(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(QUICK, **change)


def test_a_run_of_another_kind_is_not_resumed(learn, straight, tmp_path):
    content = read_checkpoint(os.path.join(straight, "iter_6.pth"))
    del content["meta"]["distillation"]
    torch.save(content, tmp_path / "iter_6.pth")
    with pytest.raises(CheckpointError, match="iter_6.pth: is of a training without a teacher"):
        learn(tmp_path, auto_resume=True)


def test_what_fp16_cannot_hold_stays_as_it_is():
    large = torch.tensor([1.0, 1e6])
    assert distillation._half(large) is large
    assert distillation._half(torch.tensor([1.0])).dtype == torch.float16
    assert distillation._half(torch.tensor(3)).dtype == torch.int64


def test_a_finished_run_writes_its_encoder_again(learn, straight, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    os.remove(tmp_path / "run" / "encoder.safetensors")
    learn(tmp_path / "run", auto_resume=True)
    one, other = (read_checkpoint(os.path.join(run, "encoder.safetensors")) for run in (straight, tmp_path / "run"))
    assert one["meta"]["weights_sha256"] == other["meta"]["weights_sha256"]
    assert one["meta"]["distillation"] == other["meta"]["distillation"]
