import itertools

import pytest
import torch
import training
from training import PARTS, build_training, training_profile, training_speeds, with_setting

from mmseg_ext.engine import load_config
from mmseg_ext.engine.hooks import StepHook
from mmseg_ext.errors import ConfigError


def ticking(monkeypatch):
    """Let every look at the clock be a millisecond after the last one."""
    ticks = itertools.count()
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(ticks) / 1000)


def test_settings_take_turns(one_config, monkeypatch):
    steps = []
    step = training.Training.step
    monkeypatch.setattr(training.Training, "step", lambda self: steps.append(self.runner) or step(self))
    ticking(monkeypatch)
    settings = ("fp32", "fp32+loop", "half+channels_last")
    speeds = training_speeds(load_config(str(one_config)), settings, crop_px=64, batch=3, rounds=2)
    assert list(speeds) == list(settings)
    assert [speed.gib for speed in speeds.values()] == [None] * 3
    assert [found[:2] for found in speeds.values()] == [pytest.approx((3000, 1))] * 3
    fused, loop, half = runners = steps[:6:2]
    assert steps == [fused, fused, loop, loop, half, half, *runners * 2]
    assert [runner.iter for runner in runners] == [4, 4, 4]
    assert half.model.autocast_dtype == torch.bfloat16
    assert fused.optimizer.defaults["fused"] and not loop.optimizer.defaults["fused"]
    assert loop.optimizer.defaults["foreach"] is False


def test_the_memory_of_a_setting_is_its_own(one_config, monkeypatch):
    allocated = [0]
    build = training.build_training

    def building(*args):
        allocated[0] += 2**30  # its weights stay
        return build(*args)

    monkeypatch.setattr(training, "build_training", building)
    monkeypatch.setattr(training.torch.cuda, "memory_allocated", lambda: allocated[0])
    monkeypatch.setattr(training, "peak_bytes", lambda: allocated[0] + 2**29)
    speeds = training_speeds(load_config(str(one_config)), ("fp32", "fp32+loop"), crop_px=64, batch=1, rounds=1)
    assert [speed.gib for speed in speeds.values()] == [1.5, 1.5]


@pytest.mark.parametrize("tuned", [True, False])
def test_convolutions_are_chosen_as_in_a_training(one_config, monkeypatch, tuned):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", not tuned)
    build_training(load_config(str(one_config), {"cudnn_benchmark": tuned}), 64, 1)
    assert torch.backends.cudnn.benchmark is tuned


def test_operations_are_those_of_the_forward_pass_three_times(one_config, monkeypatch):
    found = build_training(load_config(str(one_config)), 64, 2)
    convolution = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)

    def step(batch):
        return convolution(torch.ones(2, 8, 16, 16))

    monkeypatch.setattr(found.runner.model, "train_step", step)
    multiplications = 2 * 8 * 16 * 16 * 9
    assert training.step_operations(found) == 3 * 2 * multiplications
    assert training.cell(training.Speed(12.345, 1.5, 5.54, 812.3)) == "12.35 (1.50), 5.5 GiB, 812 GFLOP/s"
    assert training.cell(training.Speed(12.345, 1.5, None, None)) == "12.35 (1.50)"


def test_cards_that_emulate_bf16_are_measured_in_fp16(one_config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    assert training.half_precision(torch.device("cuda", 0)) == "fp16"
    monkeypatch.setattr(training, "half_precision", lambda device: "fp16")
    assert with_setting(load_config(str(one_config)), "half+compile").precision == "fp16"


def test_an_unknown_setting_is_said(one_config):
    for setting in ("fp64", "fp32+fast"):
        with pytest.raises(ConfigError, match=r"give fp32, bf16, fp16 or half, and after it any of \+channels_last"):
            training_speeds(load_config(str(one_config)), (setting,), crop_px=64, batch=2, rounds=1)


def test_the_profile_reads_the_configs_data_and_its_parts_make_the_step(one_config, monkeypatch):
    options = {
        "custom_hooks": [dict(type="WeightAverageHook")],
        "optimizer_config.grad_clip": dict(max_norm=1.0),
        "data.samples_per_gpu": 1,
    }
    cfg = load_config(str(one_config), options)
    trained = build_training(cfg)
    assert (trained.source, trained.images) == (cfg.data.train.data_root, 1)
    ticking(monkeypatch)
    found = training_profile(trained, steps=3)
    assert list(found) == [*PARTS, "step"]
    step = found.pop("step")
    assert sum(found.values()) == pytest.approx(step)


def test_the_profile_finds_where_time_was_spent(one_config, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
    clip = StepHook.clip_grads

    def slow_clip(self, parameters):
        now[0] += 0.5
        return clip(self, parameters)

    monkeypatch.setattr(StepHook, "clip_grads", slow_clip)
    cfg = load_config(str(one_config), {"optimizer_config.grad_clip": dict(max_norm=1.0)})
    cfg.data.train.data_root = "nowhere"
    trained = build_training(cfg)
    assert trained.source == "random numbers, 64 x 64 px"
    assert training_profile(trained, steps=1) == dict(clip=500, step=500)
    assert build_training(cfg, crop_px=96, batch=3).images == 3
