"""Draws, precision, processes and how they are launched."""

import itertools
import os
import random
import socket
import subprocess
import sys
from datetime import timedelta

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.parallel import DataContainer
from torch import distributed as dist

from mmseg_ext.engine import distributed
from mmseg_ext.engine.distributed import (
    InfiniteSampler,
    LocalSegmentor,
    Process,
    SeededDraws,
    agreed_precision,
    choose_precision,
    gather_by_index,
    seed_everything,
    start_process,
    to_device,
)
from mmseg_ext.engine.launch import launch, torchrun_arguments
from mmseg_ext.errors import ConfigError

CPU = torch.device("cpu")


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 30), seed=st.integers(0, 5), processes=st.integers(1, 5), batch=st.integers(1, 4))
def test_processes_draw_together_what_one_draws_alone(size, seed, processes, batch):
    steps = 3
    alone = list(itertools.islice(InfiniteSampler(size, seed), steps * processes * batch))
    shares = [
        list(itertools.islice(InfiniteSampler(size, seed, rank, processes), steps * batch)) for rank in range(processes)
    ]
    for step in range(steps):
        together = [index for share in shares for index in share[step * batch : (step + 1) * batch]]
        assert sorted(together) == sorted(alone[step * processes * batch : (step + 1) * processes * batch])


@given(size=st.integers(1, 20), done=st.integers(0, 25), processes=st.integers(1, 3))
def test_a_resumed_run_goes_on_in_the_order_of_its_images(size, done, processes):
    for rank in range(processes):
        whole = list(itertools.islice(InfiniteSampler(size, 1, rank, processes), done + 10))
        rest = InfiniteSampler(size, 1, rank, processes, start=done * processes)
        assert list(itertools.islice(rest, 10)) == whole[done:]


@given(size=st.integers(1, 30), seed=st.integers(0, 3))
def test_every_pass_is_a_permutation(size, seed):
    numbers, drawn = zip(*itertools.islice(InfiniteSampler(size, seed), 3 * size), strict=True)
    assert list(numbers) == list(range(3 * size))
    for start in (0, size, 2 * size):
        assert sorted(drawn[start : start + size]) == list(range(size))


def test_shares_decide_how_often_each_source_is_drawn():
    sizes, shares, count = (3, 50, 7), (2, 1, 0), 6000
    sampler = InfiniteSampler(sizes, 5, shares=shares)
    numbers, drawn = zip(*itertools.islice(sampler, count), strict=True)
    assert numbers == tuple(range(count))
    first = [index for index in drawn if index < 3]
    second = [index for index in drawn if 3 <= index < 53]
    assert len(first) + len(second) == count
    assert abs(len(first) - 4000) < 150  # four standard deviations
    for images, size in ((first, 3), (second, 50)):
        passes = [images[k : k + size] for k in range(0, len(images) - size, size)]
        assert all(len(set(one)) == size for one in passes)
    assert len({tuple(first[k : k + 3]) for k in range(0, 300, 3)}) == 6
    rest = InfiniteSampler(sizes, 5, rank=1, world_size=2, start=1000, shares=shares)
    assert list(itertools.islice(rest, 20)) == list(enumerate(drawn))[1001:1041:2]
    assert list(itertools.islice(InfiniteSampler(sizes, 5), 99)) == list(itertools.islice(InfiniteSampler(60, 5), 99))


def test_precision_on_a_cpu():
    assert [choose_precision(p, CPU) for p in ("fp32", "bf16", "fp16", "auto")] == ["fp32", "bf16", "fp16", "fp32"]
    with pytest.raises(ConfigError, match="fp8"):
        choose_precision("fp8", CPU)


@pytest.mark.parametrize(("capability", "auto"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_precision_by_gpu_generation(monkeypatch, capability, auto):
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Quadro RTX 5000")
    assert choose_precision("auto", gpu) == auto
    assert choose_precision("fp32", gpu) == "fp32"
    if auto == "fp16":
        with pytest.raises(ConfigError, match="Quadro RTX 5000 has no native bf16"):
            choose_precision("bf16", gpu)


def test_unlike_gpus_compute_in_one_precision(monkeypatch):
    capability = {0: (8, 6), 1: (7, 5)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability[device.index])
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda *_: 2)

    def gather(parts, own, *_, **__):
        parts[:] = [{rank: choose_precision("auto", torch.device("cuda", rank))} for rank in (0, 1)]
        assert own in parts

    monkeypatch.setattr(dist, "all_gather_object", gather)
    gpus = [Process(rank, 2, torch.device("cuda", rank)) for rank in (0, 1)]
    assert [agreed_precision("auto", gpu) for gpu in gpus] == ["fp16", "fp16"]
    capability[1] = (8, 6)
    assert [agreed_precision("auto", gpu) for gpu in gpus] == ["bf16", "bf16"]


@pytest.mark.parametrize(("cuda", "driver"), [("13.0", "580"), ("12.8", "525"), ("99.1", "of its release notes")])
def test_an_old_driver_is_named_with_the_one_that_torch_needs(monkeypatch, cuda, driver):
    def too_old(device):
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Please update.\nmore")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", too_old)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    with pytest.raises(ConfigError) as said:
        start_process(1)
    assert str(said.value).startswith(
        "GPU 1 cannot be used: The NVIDIA driver on your system is too old (found version 11040); "
        f"torch {torch.__version__} needs NVIDIA driver {driver} or newer"
    )


def test_batches_lose_mmcvs_containers():
    image = torch.ones(2, 3)
    batch = dict(
        img=DataContainer([image], stack=True),
        metas=DataContainer([[dict(name="a"), dict(name="b")]], cpu_only=True),
        plain=[image],
    )
    out = to_device(batch, CPU)
    assert torch.equal(out["img"], image)
    assert out["metas"] == [dict(name="a"), dict(name="b")]
    assert torch.equal(out["plain"][0], image)


def test_results_come_in_the_order_of_the_images():
    assert gather_by_index({3: "d", 0: "a", 2: "c"}) == ["a", "c", "d"]


def test_autocast_reaches_the_network():
    seen = []

    class Network(torch.nn.Linear):
        def inference(self, image, metas, rescale):
            seen.append(self(image).dtype)
            return torch.zeros(1, 2, 3, 3)

    batch = dict(img=[torch.ones(1, 2)], img_metas=[[{}]])
    LocalSegmentor(Network(2, 2), CPU, torch.bfloat16).probabilities(batch)
    LocalSegmentor(Network(2, 2), CPU, None).probabilities(batch)
    assert seen == [torch.bfloat16, torch.float32]


def test_a_draw_is_the_same_in_any_order_and_leaves_no_trace():
    class Noise(torch.utils.data.Dataset):
        def __getitem__(self, index):
            return index, random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002

        def __len__(self):
            return 5

    draws = SeededDraws(Noise(), seed=3)
    seed_everything(9)
    expected = random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002
    seed_everything(9)
    first = [draws[(draw, index)] for draw, index in ((0, 1), (1, 1), (2, 4))]
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == expected  # noqa: NPY002
    assert [draws[(draw, index)] for draw, index in ((2, 4), (1, 1), (0, 1))] == first[::-1]
    assert len({value for draw in first for value in draw[1:]}) == 9
    assert SeededDraws(Noise(), seed=4)[(0, 1)][1:] != first[0][1:]


def test_one_machine_gets_a_free_port_and_several_need_an_address():
    assert torchrun_arguments(2, {}) == ["--nproc-per-node=2", "--nnodes=1", "--standalone"]
    many = torchrun_arguments(4, dict(NNODES="2", NODE_RANK="1", MASTER_ADDR="node0", PORT="1234"))
    assert many == [
        "--nproc-per-node=4",
        "--nnodes=2",
        "--node-rank=1",
        "--master-addr=node0",
        "--master-port=1234",
    ]
    with pytest.raises(ConfigError, match="MASTER_ADDR"):
        torchrun_arguments(4, dict(NNODES="2"))


def test_more_gpus_than_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="2 GPUs were requested, but this machine has 1; request 1 or fewer"):
        launch(2, ["tools/train.py"])


def test_gpus_meet_by_nccl_on_their_own_device_and_hosts_by_gloo_for_hours(monkeypatch):
    asked = {}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: asked.update(device=device))
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: "backend" in asked)
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda backend, **options: asked.update(options, backend=backend)
    )
    monkeypatch.setattr(torch.distributed, "new_group", lambda **options: options)
    monkeypatch.setattr(distributed, "_hosts", None)
    monkeypatch.setattr(distributed.atexit, "register", lambda work: asked.update(at_exit=work))
    for name, value in dict(RANK=3, LOCAL_RANK=1, LOCAL_WORLD_SIZE=2, WORLD_SIZE=4).items():
        monkeypatch.setenv(name, str(value))
    gpu = torch.device("cuda", 1)
    assert distributed.start_process() == distributed.Process(3, 4, gpu)
    assert (asked["backend"], asked["device"], asked["device_id"]) == ("nccl", gpu, gpu)
    assert distributed.hosts()["backend"] == "gloo"
    assert distributed.hosts()["timeout"] >= timedelta(hours=12)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: asked.update(left=True))
    asked["at_exit"]()
    assert asked["left"] and distributed.hosts() is None


LATE = """
import sys, time
from datetime import timedelta
from torch import distributed as dist
from mmseg_ext.deploy import choice
from mmseg_ext.engine.distributed import gather_by_index, on_first_process, start_process

dist.init_process_group("gloo", timeout=timedelta(seconds=1))  # as NCCL's ten minutes
process = start_process()
late = lambda *rest: time.sleep(2.5)
begun = time.monotonic()
on_first_process(process, late)  # masks are checked, maps and reports written
waited = time.monotonic() - begun
if process.rank == 1:
    late()  # its strips are more
process.wait()
if process.rank == 1:
    late()  # its images are more
found = gather_by_index({process.rank: "ab"[process.rank]})
choice.choose_backend = lambda *rest: late() or choice.Choice("torch", "fp16", {})
print(process.rank, waited > 2, found, choice._chosen(None, (), (), process.device))
if process.rank == 0:
    late()
try:
    dist.barrier()  # the test's own: the default group does give up
except RuntimeError:
    print(process.rank, "gave up")
"""


def test_processes_wait_for_a_late_one_longer_than_the_default_group_does(tmp_path):
    script = tmp_path / "late.py"
    script.write_text(LATE)
    store = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()), WORLD_SIZE="2", OMP_NUM_THREADS="1")
    command = [sys.executable, str(script)]
    ranks = [
        subprocess.Popen(command, env={**os.environ, **store, "RANK": rank}, stdout=subprocess.PIPE, text=True)
        for rank in "01"
    ]
    outputs = [process.communicate(timeout=240)[0].splitlines() for process in ranks]
    assert [output[0] for output in outputs] == [f"{rank} True ['a', 'b'] ('torch', 'fp16')" for rank in (0, 1)]
    assert "1 gave up" in outputs[1]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
