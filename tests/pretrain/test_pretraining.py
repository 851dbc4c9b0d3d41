"""Pre-training a tiny encoder: it learns, stops and resumes, and its weights move into a segmentor."""

import contextlib
import dataclasses
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from timm.data.auto_augment import AugmentOp
from torch import nn

from mmseg_ext.engine.checkpoint import read_checkpoint
from mmseg_ext.engine.distributed import Process
from mmseg_ext.engine.weights import load_pretrained
from mmseg_ext.errors import CheckpointError, ConfigError, DataError
from mmseg_ext.models.mscan import MSCAN
from mmseg_ext.pretrain import training
from mmseg_ext.pretrain.settings import PretrainSettings
from mmseg_ext.pretrain.training import evaluate_classifier, measure_accuracy, pretrain

TINY = dict(embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), mlp_ratios=(2, 2, 2, 2))
QUICK = PretrainSettings(epochs=2, warmup_epochs=1, batch_size=16, lr=4e-3, image_size=32, workers=0, log_interval=3)
# stripes keep their meaning under weak augmentation only
LEARN = dataclasses.replace(
    QUICK, epochs=10, crop_scale=0.6, erasing=0.0, auto_augment="", drop_path=0.0, ema_decay=0.9, mixup=0.2, cutmix=0.0
)


def logged(work_dir):
    return [json.loads(line) for line in (work_dir / "log.json").read_text().splitlines()]


def equal(one, other):
    """Assert that two nested states are the same to the last bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            equal(a, b)
    else:
        assert one == other


@pytest.fixture(scope="module")
def learned(stripes, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("learned")
    assert pretrain(str(stripes), "dsegnext_tiny", LEARN, str(work_dir), model_options=TINY) == str(work_dir)
    return work_dir


def test_it_learns(learned, stripes):
    lines = logged(learned)
    assert [line["epoch"] for line in lines] == list(range(1, 11))
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.3
    assert lines[-1]["top1"] > 0.75  # chance is 0.25
    assert lines[-1]["top5"] == 1.0  # of four classes
    assert lines[0]["lr"] == pytest.approx(1e-6 + 5 / 6 * (4e-3 - 1e-6))  # the last of 6 steps of warm-up
    assert lines[-1]["lr"] < 5e-5
    best = read_checkpoint(str(learned / "best.pth"))
    assert "optimizer" not in best
    assert (best["meta"]["architecture"], best["meta"]["weights"]) == ("dsegnext_tiny", "averaged")
    assert best["meta"]["classes"] == ["across", "along", "both", "none"]
    top1 = max(line["top1"] for line in lines)
    assert (best["meta"]["top1"], lines[-1]["best"]) == (top1, top1)
    # evaluating the file gives what the training measured
    scores = evaluate_classifier(str(stripes), "dsegnext_tiny", str(learned / "best.pth"), LEARN, TINY)
    assert scores == {key: best["meta"][key] for key in ("top1", "top5")}


def test_the_best_weights_move_into_a_segmentation_encoder(learned):
    encoder = MSCAN(**TINY, gating_unit=dict(type="HDMSCA"), norm_cfg=dict(type="SyncBN"))
    load_pretrained(encoder, str(learned / "best.pth"))
    trained = read_checkpoint(str(learned / "best.pth"))["state_dict"]
    assert trained.keys() - encoder.state_dict().keys() == {"head.weight", "head.bias"}
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, trained[key]), key


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_stopped_within_an_epoch_resumes_to_the_same_bits(stripes, tmp_path, monkeypatch, workers):
    settings = dataclasses.replace(QUICK, epochs=3, workers=workers, clip_grad=1.0)
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    pretrain(str(stripes), "dsegnext_tiny", settings, str(straight), model_options=TINY)
    say = training._Training._say

    def interrupt(run, step, loss):
        say(run, step, loss)
        if run.epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training._Training, "_say", interrupt)
        pretrain(str(stripes), "dsegnext_tiny", settings, str(stopped), model_options=TINY)
    assert read_checkpoint(str(stopped / "last.pth"))["epoch"] == 1
    with pytest.raises(ConfigError, match="stopped: holds a run; give --auto-resume"):
        pretrain(str(stripes), "dsegnext_tiny", settings, str(stopped), model_options=TINY)
    pretrain(str(stripes), "dsegnext_tiny", settings, str(stopped), auto_resume=True, model_options=TINY)
    for name in ("last.pth", "best.pth"):
        equal(read_checkpoint(str(straight / name)), read_checkpoint(str(stopped / name)))
    assert logged(straight) == logged(stopped)
    before = (stopped / "last.pth").read_bytes()
    pretrain(str(stripes), "dsegnext_tiny", settings, str(stopped), auto_resume=True, model_options=TINY)
    assert (stopped / "last.pth").read_bytes() == before  # all epochs were done


def test_a_step_whose_gradients_overflow_does_not_move_the_average():
    weight, averages = torch.nn.Parameter(torch.ones(2)), []
    run = object.__new__(training._Training)
    run.scheduler = SimpleNamespace(step_update=lambda done: None)
    run.settings, run.mixup, run.steps_here = dataclasses.replace(QUICK, clip_grad=0.0), None, 0
    run.autocast, run.layout = contextlib.nullcontext(), torch.contiguous_format
    run.parallel, run.criterion = lambda images: images.flatten(1) * weight, lambda scores, labels: scores.sum()
    run.optimizer = torch.optim.SGD([weight], lr=0.1)
    run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    run.averaged = SimpleNamespace(update=lambda model, step: averages.append(step))
    run.model = None
    for done, image in enumerate((1.0, float("inf"), 1.0)):
        run._step(torch.full((1, 2, 1, 1), image), torch.zeros(1), done)
    assert averages == [1, 3]
    assert torch.allclose(weight.detach(), torch.full((2,), 0.8))


def test_without_averaging_mixing_and_in_bf16(stripes, tmp_path):
    settings = dataclasses.replace(
        QUICK, epochs=1, warmup_epochs=0, ema_decay=0, mixup=0, cutmix=0, precision="bf16", channels_last=True
    )
    pretrain(str(stripes), "segnext_tiny", settings, str(tmp_path), model_options=TINY)
    last, best = (read_checkpoint(str(tmp_path / name)) for name in ("last.pth", "best.pth"))
    assert best["meta"]["weights"] == "last"
    equal(last["state_dict"], best["state_dict"])
    assert 0.5 < logged(tmp_path)[0]["loss"] < 2.0


def test_weight_decay_spares_vectors_and_the_rate_is_not_scaled(stripes, tmp_path, caplog):
    settings = dataclasses.replace(QUICK, epochs=1, warmup_epochs=0)
    with caplog.at_level("INFO", "mmseg_ext"):
        pretrain(str(stripes), "segnext_tiny", settings, str(tmp_path), model_options=TINY)
    assert (
        "total batch 16, not the paper's 2048: the learning rate stays 0.004; scaled linearly it would be "
        "--lr 3.13e-05" in caplog.text
    )
    checkpoint = read_checkpoint(str(tmp_path / "last.pth"))
    groups = {group["weight_decay"]: group["params"] for group in checkpoint["optimizer"]["param_groups"]}
    moments = checkpoint["optimizer"]["state"]
    assert {moments[i]["exp_avg"].ndim for i in groups[0.0]} == {1}
    assert {moments[i]["exp_avg"].ndim for i in groups[0.05]} == {2, 4}


def test_the_strongest_posterisation_keeps_one_bit():
    image = Image.linear_gradient("L").convert("RGB")
    op = AugmentOp("PosterizeIncreasing", prob=1.0, magnitude=10)
    assert {value for _, value in op(image).getcolors()} == {(0, 0, 0), (128, 128, 128)}


def test_accuracy_counts_every_image_once():
    class Table(nn.Module):
        def forward(self, x):
            return x

    logits = torch.eye(8)[[0, 1, 2, 3, 4]] - 0.1 * torch.arange(8)
    labels = torch.tensor([0, 1, 7, 4, 2])  # right, right, eighth, then second or third by rank

    class Loader(list):
        dataset = range(5)

    loader = Loader([(logits[:3], labels[:3]), (logits[3:], labels[3:])])
    process = Process(0, 1, torch.device("cpu"))
    assert measure_accuracy(Table(), loader, process, contextlib.nullcontext()) == dict(top1=0.4, top5=0.8)


def test_folders_that_are_no_data_set(stripes, tmp_path):
    def refused(message):
        with pytest.raises(DataError, match=message):
            pretrain(str(data), "dsegnext_tiny", QUICK, str(tmp_path / "run"), model_options=TINY)
        assert not (tmp_path / "run").exists()

    data = tmp_path / "data"
    refused("data: no such folder")
    data.mkdir()
    refused("data/train: no such folder; the data is DATA/{train,val}/CLASS")
    (data / "train").mkdir()
    refused("data/train: no class folders; put the images of each class")
    shutil.copytree(stripes / "train", data / "train", dirs_exist_ok=True)
    refused("data/val: no such folder")
    shutil.copytree(stripes / "val", data / "val")
    (data / "train" / "waves").mkdir()
    refused(r"data/train: 1 of 5 class folders hold no image \(waves\)")
    shutil.copy(data / "train" / "none" / "0.png", data / "train" / "waves")
    refused(r"data/val: lacks 1 of the classes of .*data/train \(waves\)")


def test_images_that_cannot_be_used_are_named(stripes, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(stripes, data)
    broken = data / "val" / "both" / "0.png"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(DataError, match="val/both/0.png: cannot be read as an image"):
        pretrain(str(data), "dsegnext_tiny", QUICK, str(tmp_path / "run"), model_options=TINY)
    Image.new("I;16", (40, 40)).save(broken)
    with pytest.raises(DataError, match="val/both/0.png: uint16 pixels, and no scaling to 8 bits is known"):
        pretrain(str(data), "dsegnext_tiny", QUICK, str(tmp_path / "run"), model_options=TINY)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(batch_size=128), r"--batch-size 128 x 1 process\(es\) is more than the 96 training images .* give 96"),
        (dict(batch_size=15), "--batch-size 15 is odd"),
        (dict(warmup_epochs=5), "--warmup-epochs 5 leaves nothing of --epochs 2; give --warmup-epochs 0"),
        (dict(lr=-1.0), "--lr -1.0 is negative"),
        (dict(epochs=0), "--epochs 0 trains nothing"),
        (dict(drop_path=1.0), "--drop-path 1.0 is not a share"),
        (dict(image_size=16), "--image-size 16 is less"),
        (dict(crop_scale=0.0), "--crop-scale 0.0 is not a share"),
        (dict(auto_augment="wild-m9"), "--auto-augment wild-m9: is not a policy of timm"),
        (dict(precision="fp8"), "precision='fp8' is unknown"),
    ],
)
def test_settings_that_do_not_fit(stripes, tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        settings = dataclasses.replace(QUICK, **change)
        pretrain(str(stripes), "dsegnext_tiny", settings, str(tmp_path / "run"), model_options=TINY)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_lost_leaves_the_epoch_before(stripes, tmp_path, monkeypatch):
    step = training._Training._step
    with pytest.raises(ConfigError, match="the loss became nan in epoch 2; give a lower --lr"):
        monkeypatch.setattr(
            training._Training, "_step", lambda run, *batch: step(run, *batch) * (float("nan") if run.epoch else 1)
        )
        pretrain(str(stripes), "dsegnext_tiny", QUICK, str(tmp_path), model_options=TINY)
    assert read_checkpoint(str(tmp_path / "last.pth"))["epoch"] == 1


def test_an_unknown_model_is_refused_before_the_data_is_read():
    for work in (pretrain, lambda *args: evaluate_classifier(*args, "best.pth")):
        with pytest.raises(ConfigError, match="model 'dsegnet_tiny' is unknown; did you mean dsegnext_tiny"):
            work("nowhere", "dsegnet_tiny")


def test_checkpoints_that_do_not_fit(learned, stripes, tmp_path):
    data = str(stripes)
    with pytest.raises(CheckpointError, match=r"last.pth: holds dsegnext_tiny, not segnext_tiny"):
        pretrain(data, "segnext_tiny", LEARN, str(learned), auto_resume=True, model_options=TINY)
    with pytest.raises(CheckpointError, match=r"last.pth: does not fit dsegnext_tiny: .*reshaped"):
        pretrain(
            data,
            "dsegnext_tiny",
            LEARN,
            str(learned),
            auto_resume=True,
            model_options={**TINY, "mlp_ratios": (4, 2, 2, 2)},
        )
    shutil.copy(learned / "best.pth", tmp_path / "last.pth")
    with pytest.raises(CheckpointError, match=r"last.pth: holds weights but no training state"):
        pretrain(data, "dsegnext_tiny", LEARN, str(tmp_path), auto_resume=True, model_options=TINY)
    (tmp_path / "last.pth").write_bytes((learned / "last.pth").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"last.pth: is truncated or damaged"):
        pretrain(data, "dsegnext_tiny", LEARN, str(tmp_path), auto_resume=True, model_options=TINY)
    three = tmp_path / "three"
    for split in ("train", "val"):
        for name in ("across", "along", "both"):
            shutil.copytree(stripes / split / name, three / split / name)
    with pytest.raises(CheckpointError, match="best.pth: classifies 4 classes, the data has 3"):
        evaluate_classifier(str(three), "dsegnext_tiny", str(learned / "best.pth"), LEARN, TINY)
    with pytest.raises(CheckpointError, match="none.pth: no such checkpoint"):
        evaluate_classifier(data, "dsegnext_tiny", str(tmp_path / "none.pth"), LEARN, TINY)
