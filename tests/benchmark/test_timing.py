import itertools
import os
import re
import signal
from importlib.metadata import version

import timing
import pytest
import torch
from timing import Worker, WorkerError, apart, in_turns, machine_line, peak_bytes, ratio, timed

from mmseg_ext.engine import load_config


def test_works_take_turns_and_warm_up():
    order, numbers = [], itertools.count()
    works = {name: lambda name=name: order.append(name) or next(numbers) for name in "AB"}
    assert in_turns(works, rounds=2, warm_up=1) == dict(A=[2, 4], B=[3, 5])
    assert order == list("ABABAB")


def test_a_timed_work_is_its_clock(monkeypatch):
    clock = iter([10.0, 12.5])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    assert timed(lambda: None)() == 2.5


def test_a_ratio_is_of_what_both_have():
    assert ratio([2, 6, 8], [1, 2]) == 2.5


def test_the_machine_is_stated():
    line = machine_line(3)
    assert re.match(r"Machine: .+, \d+ cores, 3 threads, [\d.]+ GiB; ", line)
    assert re.search(r"matrix products of \d+ \(fp32\)( and \d+ \(bf16\))? GFLOP/s, copies of \d+ GB/s; load ", line)
    assert f"torch {version('torch')}" in line


def test_only_what_the_hardware_computes_is_measured(monkeypatch):
    products = []
    monkeypatch.setattr(timing.torch, "mm", lambda one, other: products.append(one.dtype))
    for names in (("fp32", "fp16"), ("fp32",)):
        monkeypatch.setattr(timing, "fast_precisions", lambda device, names=names: names)
        assert list(timing._limits(torch.device("cpu"))[1]) == list(names)
    assert products == [torch.float32, torch.float16] * 6 + [torch.float32] * 6


def test_a_worker_answers_step_by_step_and_says_why_it_cannot():
    with Worker(map, divmod, [7, 8, 9], [2, 4, 0]) as worker:
        assert [worker.ask(), worker.ask()] == [(3, 1), (2, 0)]
        with pytest.raises(WorkerError, match="^ZeroDivisionError: "):
            worker.ask()
    with Worker(map, load_config, ["none.py"]) as worker, pytest.raises(WorkerError, match="^none.py: no such config"):
        worker.ask()


def test_the_end_of_a_process_is_a_reason():
    with Worker(map, os._exit, [5]) as worker, pytest.raises(WorkerError, match="its process ended with code 5"):
        worker.ask()
    with Worker(map, abs, [-1, -2]) as worker:
        assert worker.ask() == 1
        os.kill(worker.process.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="killed, out of memory"):
            worker.ask()


def test_what_runs_apart_returns_its_value():
    assert apart(max, 2, 3) == 3


def test_the_peak_is_what_the_process_grew_by():
    assert peak_bytes() is None
    assert peak_bytes(0) > 50e6 and peak_bytes(2**30) == peak_bytes(0) - 2**30
