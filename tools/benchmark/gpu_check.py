#!/usr/bin/env python
"""What needs a GPU, tried in at most 20 minutes, in one page that can be sent back: ``tools/gpu_check.sh [FOLDER]``.

Every part is a command of this repository with a time limit; one that fails is a row of the page, not the end. Without
a GPU, stand-ins run on the CPU, and the page says which. It imports no torch, so that it runs where torch does not.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "myconfigs/dsegnext/tiny/dsegnext.tiny.160x160.MINE.0.75k.py"
LARGE = "myconfigs/dsegnext/tiny/Dsegnext.tiny.1024x1024.OPM.20k.py"
BACKENDS = ("plain", "torch", "compile", "onnxruntime", "tensorrt", "openvino")
DRIVERS = {"12": 525, "13": 580}  # the oldest that CUDA's release notes allow, by CUDA's major version
SECONDS = 1200
OVER = f"the {SECONDS // 60} minutes were over"
SAME = 1e-6  # of two scores that should be equal
NEAR = 0.1  # mean difference of two backends' maps, as a share of a map's standard deviation
MINE = "mine0004"
_CARDS = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader")
_LINKS = ("nvidia-smi", "topo", "-m")
_TORCH = """
import json, torch
cuda, gpus = torch.cuda, range(torch.cuda.device_count())
found = dict(torch=torch.__version__, built_for=torch.version.cuda, gpus=len(gpus))
try:
    found["native_bf16"] = all(cuda.get_device_capability(i)[0] >= 8 for i in gpus)
    found["nccl"] = ".".join(map(str, cuda.nccl.version())) if gpus else None
except RuntimeError as error:
    found.update(gpus=0, why=str(error).splitlines()[0])
print(json.dumps(found))
"""
_MINES = """
import sys; from mmseg_ext.converters import write_synthetic_mines
write_synthetic_mines(sys.argv[1], [1, 2], [3], [4, 5, 6], size_px=512)
"""

_APART = """
import json, sys, rasterio
one, two = (rasterio.open(path).read(1).astype(float) for path in sys.argv[1:])
far = abs(one - two)
print(json.dumps(dict(mean=far.mean(), largest=far.max(), spread=one.std())))
"""


class FailedError(Exception):
    """A part that did not do what it should; says why in one line, and may show the end of an ``output``."""

    def __init__(self, why: str, output: str = "") -> None:
        super().__init__(why)
        self.output = output


class LeftOutError(Exception):
    """A part that cannot run here; says why in one line."""


def shown(command: Sequence[object], output: str) -> str:
    """Return a command and the end of its output, for the page."""
    return f"`{shlex.join(map(str, command))}`\n\n```\n{output[-3000:].strip()}\n```"


def ended(process: subprocess.Popen) -> str:
    """End a command, and return what it printed, even where what it started cannot be ended."""
    process.terminate()  # a launcher ends its processes, which are in sessions of their own
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.communicate(timeout=40 if process.poll() is None else 2)[0]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        return process.communicate(timeout=2)[0]
    except subprocess.TimeoutExpired as late:
        return (late.output or b"").decode(errors="replace")


@dataclass
class Check:
    """One run of the check: its page so far, and what the parts share.

    Attributes:
        out: folder of the page and of what the parts write.
        end: the time, by `time.monotonic`, at which it must be over.
        gpus: that torch sees.
        half: the short floating-point type that the cards compute natively.
    """

    out: Path
    end: float
    gpus: int = 0
    half: str = "fp16"
    rows: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    @property
    def ranks(self) -> int:
        """Processes of the parts that need several."""
        return min(self.gpus, 2) or 2

    def run(self, *command: object, seconds: float = 60) -> str:
        """Return what a command printed; `FailedError` where it failed or took longer than ``seconds``."""
        with self.started(*command) as process:
            allowed = max(1.0, min(seconds, self.end - time.monotonic()))
            try:
                output = process.communicate(timeout=allowed)[0]
            except subprocess.TimeoutExpired:
                why = f"{shlex.join(map(str, command))[:200]}: not done in {allowed:.0f} s"
                raise FailedError(why, shown(command, ended(process))) from None
        if process.returncode:
            last = (output.strip().splitlines() or ["no output"])[-1]
            raise FailedError(f"exit code {process.returncode}: {last[:300]}", shown(command, output))
        return output

    @contextlib.contextmanager
    def started(self, *command: object) -> Iterator[subprocess.Popen]:
        """Start a command in a session of its own, all of which ends with the block."""
        environ = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        environ.setdefault("OMP_NUM_THREADS", "1")  # sums do not depend on the number of processes then
        process = subprocess.Popen(
            [*map(str, command)], cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                ended(process)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=2)

    def part(self, title: str, stand_in: str, work: Callable[[], str]) -> None:
        """Do one part and put its row on the page; ``stand_in`` says what runs where there is no GPU."""
        begin = time.monotonic()
        sys.stderr.write(f"{title} ...\n")
        try:
            if begin > self.end:
                raise LeftOutError(OVER)
            result, said = "ok", work()
        except LeftOutError as reason:
            result, said = "left out", str(reason)
        except FailedError as reason:
            result, said = "**failed**", str(reason)
            self.details += filter(None, [reason.output])
        except Exception as error:  # a part may find anything; the next ones still run
            result, said = "**failed**", f"{type(error).__name__}: {error}"
        ran = "GPU" if self.gpus else stand_in
        cells = [title, result, f"{time.monotonic() - begin:.0f}", ran, said.replace("|", "/").replace("\n", " ")]
        self.rows.append(f"| {' | '.join(cells)} |")
        self.write()

    def write(self) -> None:
        """Write the page as far as it is."""
        head = "# GPU check\n\n" + time.strftime("%Y-%m-%d %H:%M")
        if not self.gpus:
            head += "\n\n**No GPU was found: what follows ran with stand-ins, which prove nothing about GPUs.**"
        table = ["| part | result | seconds | ran on | what it said |", "| --- | --- | --- | --- | --- |", *self.rows]
        page = "\n\n".join([head, "\n".join(table), *self.details])
        draft = self.out / ".gpu_check.md"
        draft.write_text(page + "\n", encoding="utf-8")
        draft.replace(self.out / "gpu_check.md")


def told(command: Sequence[str]) -> str:
    """Return what a program of the driver prints; nothing where it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def machine(check: Check) -> str:
    """Say which cards, driver, torch and NCCL there are, and whether they fit."""
    cards = told(_CARDS).splitlines()
    if len(cards) > 1:  # how they exchange gradients
        check.details.append(shown(_LINKS, told(_LINKS)))
    found = json.loads(check.run(sys.executable, "-W", "ignore", "-c", _TORCH, seconds=120).splitlines()[-1])
    said = f"{'; '.join(cards) or 'no nvidia-smi'}; torch {found['torch']} for CUDA {found['built_for']}"
    if not found["gpus"] and (cards or "why" in found):
        needed = DRIVERS.get(str(found["built_for"]).split(".")[0], "newer")
        why = found.get("why", "torch sees no GPU")
        raise FailedError(f"{why}; its CUDA needs driver {needed} or newer, or a torch for yours ({said})")
    check.gpus = found["gpus"]
    check.half = "bf16" if found["native_bf16"] else "fp16"
    return f"{said}, NCCL {found['nccl']}; {found['gpus']} GPU(s)"


def training(check: Check, iterations: int, *options: str, alone: bool = False) -> list[str]:
    """Return the command of a short training on synthetic mines in several processes, or in one."""
    processes, folder = (1, "alone") if alone else (check.ranks, "run")
    data, precision = check.out / "data", check.half if check.gpus else "fp32"
    settings: dict[str, Any] = {f"data.{split}.data_root": data for split in ("train", "val", "test")}
    settings |= {"runner.max_iters": iterations, "precision": precision, "log_config.interval": 1}
    settings |= {
        "checkpoint_config.interval": 50 if check.gpus else 5,
        "data.samples_per_gpu": 2,
        "data.workers_per_gpu": 1,
    }
    assigned = [f"{name}={value}" for name, value in settings.items()]
    command = ["bash", "tools/dist_train.sh", CONFIG, str(processes), "--work-dir", str(check.out / folder)]
    return [*command, "--no-validate", *options, "--cfg-options", *assigned]


def several_trained(check: Check) -> bool:
    """Return whether several processes have trained a network."""
    return (check.out / "run" / "latest.pth").exists()


def start(check: Check) -> str:
    """Train from the first iteration."""
    check.run(sys.executable, "-W", "ignore", "-c", _MINES, check.out / "data", seconds=90)
    check.run(*training(check, iterations := 200 if check.gpus else 5), seconds=240)
    return f"{iterations} iterations in {check.ranks} process(es), precision {check.half if check.gpus else 'fp32'}"


def alone(check: Check) -> str:
    """Train in one process where several could not, so that there is a network to evaluate."""
    if several_trained(check):
        raise LeftOutError("not needed: several processes trained one")
    check.run(*training(check, iterations := 200 if check.gpus else 5, alone=True), seconds=240)
    return f"{iterations} iterations"


def resume(check: Check) -> str:
    """Go on where the training ended."""
    if not several_trained(check):
        raise LeftOutError("there is no training in several processes to resume")
    output = check.run(*training(check, 240 if check.gpus else 10, "--auto-resume"), seconds=150)
    found = re.search(r"resumed from \S+ at iteration \d+", output)
    if found is None:
        raise FailedError("the run did not resume")
    return found[0].replace(str(check.out), "")


def killed(check: Check) -> str:
    """Kill one process while it trains: all must end, with the cause as the last line."""
    if not several_trained(check):
        raise LeftOutError("several processes did not train")
    logs = set((check.out / "run").glob("*.log.json"))
    command = training(check, 10**6, "--auto-resume")
    with check.started(*command) as launcher:
        give_up = min(time.monotonic() + 120, check.end)
        while not any("train" in log.read_text() for log in set((check.out / "run").glob("*.log.json")) - logs):
            if launcher.poll() is not None or time.monotonic() > give_up:
                why = f"the training did not begin (exit code {launcher.poll()})"
                raise FailedError(why, shown(command, ended(launcher)))
            time.sleep(0.2)
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        ranks = [pid for pid in children if b"train.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(int(ranks[-1]), signal.SIGKILL)
        begin = time.monotonic()
        try:
            output = launcher.communicate(timeout=60)[0]
        except subprocess.TimeoutExpired:
            raise FailedError("some were not ended after 60 s", shown(command, ended(launcher))) from None
    last = (output.splitlines() or ["no output"])[-1]
    if launcher.returncode != 137 or "was ended by SIGKILL" not in last:
        raise FailedError(f"exit code {launcher.returncode}, last line: {last}", shown(command, output))
    return f"all ended after {time.monotonic() - begin:.0f} s: {last}"


def trained(check: Check) -> Path:
    """Return the weights that a training has left."""
    for folder in ("run", "alone"):
        if (weights := check.out / folder / "latest.pth").exists():
            return weights
    raise FailedError("no training has left a network")


def scores(check: Check, name: str, *options: object, processes: int = 1, seconds: float = 120) -> dict[str, float]:
    """Return the metrics of the trained network on the synthetic test mines."""
    file, roots = check.out / f"{name}.json", f"data.test.data_root={check.out / 'data'}"
    tool = [sys.executable, "tools/test.py"] if processes == 1 else ["bash", "tools/dist_test.sh"]
    count = [] if processes == 1 else [processes]
    arguments = [CONFIG, trained(check), *count, "--eval", "mIoU", "--out", file, *options, "--cfg-options", roots]
    check.run(*tool, *arguments, seconds=seconds)
    return json.loads(file.read_text())["metrics"]


def evaluation(check: Check) -> str:
    """Evaluate in one process and in several: the scores must be the same."""
    alone, together = (scores(check, f"by_{count}", processes=count) for count in (1, check.ranks))
    far = max(abs(alone[name] - together[name]) for name in alone)
    if not far <= SAME:
        raise FailedError(f"scores of 1 and {check.ranks} process(es) differ by {far:.2g}")
    seen = "" if alone["IoU.road"] else "; no road was found, so this says little"
    return f"mIoU {100 * alone['mIoU']:.3f} in 1 and {check.ranks} process(es), largest difference {far:.2g}{seen}"


def mapped(check: Check, name: str, *options: object, processes: int = 1, seconds: float = 120) -> Path:
    """Return the probabilities of a synthetic mine, mapped by the trained network."""
    launcher = [] if processes == 1 else ["-m", "mmseg_ext.engine.launch", processes]
    image, out = check.out / "data" / "JPEGImages" / f"{MINE}.png", check.out / f"map_{name}"
    tool = [sys.executable, *launcher, "tools/predict.py", trained(check), image, "--out", out]
    check.run(*tool, "--tile", 256, "--overlap", 64, *options, seconds=seconds)
    return out / f"{MINE}_probability.tif"


def apart(check: Check, one: Path, two: Path) -> dict[str, float]:
    """Return how far two maps are apart, in steps of their probability: mean, largest; and the first one's spread."""
    found = json.loads(check.run(sys.executable, "-W", "ignore", "-c", _APART, one, two).splitlines()[-1])
    if found["spread"] < 1:
        raise FailedError("the map is the same nearly everywhere, so it compares nothing")
    return found


def maps(check: Check) -> str:
    """Map an image in one process and in several: the maps must be the same."""
    precision = check.half if check.gpus else "fp32"
    options = ["--backend", "torch", "--precision", precision]
    one, two = (mapped(check, f"by_{count}", *options, processes=count) for count in (1, check.ranks))
    largest = apart(check, one, two)["largest"]
    said = f"{precision}: maps of 1 and {check.ranks} process(es) differ by {largest:.0f} of 250 steps at most"
    if largest > 1:
        raise FailedError(said)
    return said


def backend(check: Check, name: str) -> str:
    """Map an image on one backend: the map must be near that of the plain network."""
    precision = "fp32"
    if check.gpus and name != "plain":
        precision = "fp16" if name == "onnxruntime" else check.half
    limit = 180 if check.gpus and name != "compile" else 500
    options = ["--backend", name, "--precision", precision, "--batch", 1]  # compile compiles for one shape only
    try:
        found = mapped(check, name, *options, seconds=limit)
    except FailedError as reason:
        if re.search("exit code 2: .*(cannot run here|pip install)", str(reason)):
            raise LeftOutError(str(reason)) from None
        raise
    plain = check.out / "map_plain" / f"{MINE}_probability.tif"
    if not plain.exists():
        raise FailedError(f"{precision}: it runs, but there is no map of the plain network to compare with")
    steps = apart(check, plain, found)
    said = "{}: {:.2f} of 250 steps from plain on average, {:.0f} at most; the map's own spread is {:.1f}"
    said = said.format(precision, *(steps[key] for key in ("mean", "largest", "spread")))
    if not steps["mean"] <= NEAR * steps["spread"]:
        raise FailedError(said)
    return said


def products(machine: str) -> dict[str, float]:
    """Return the rates of products of matrices, GFLOP/s by precision, in the sentence about the machine."""
    rates = re.search(r"products of (.*) GFLOP/s", machine)
    return {name: float(rate) for rate, name in re.findall(r"(\d+) \((\w+)\)", rates[1] if rates else "")}


def memory(check: Check) -> str:
    """Take training steps with the published batches; put memory beside its estimate, and the speed, on the page."""
    configs = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("myconfigs/**/*.OPM.*k.py"))
    configs = configs if check.gpus else [LARGE]
    precision, rows, failed = check.half if check.gpus else "fp32", [], 0
    for config in configs:
        name = Path(config).name.removesuffix(".py")
        if time.monotonic() > check.end:
            rows.append([name, *[""] * 4, f"left out: {OVER}", ""])
            continue
        try:
            table = check.run(sys.executable, "tools/get_memory.py", config, "--precision", precision, seconds=90)
            _, crop, batch, estimate = (cell.strip() for cell in table.splitlines()[-1].strip("| ").split("|"))
            side, images = (crop.split("x")[0], batch) if check.gpus else ("64", "1")
            options = ["--settings", precision, "--crop", side, "--batch", images, "--rounds", "3"]
            output = check.run(sys.executable, "tools/benchmark/training.py", config, *options, seconds=90)
            found = output.splitlines()[-1].strip("| ").split("|")[-1]
            peak, rate = (re.search(rf"([\d.]+) {unit}", found) for unit in ("GiB", "GFLOP/s"))
            share = f"{100 * float(rate[1]) / products(output)[precision]:.0f} %" if rate else ""
            rows.append([name, crop, batch, estimate, peak[1] if peak else ""])
            rows[-1] += [f"{found.split()[0]} at {side} px", share]
        except FailedError as reason:
            failed += 1
            check.details += filter(None, [reason.output])
            rows.append([name, *[""] * 4, str(reason).replace("|", "/"), ""])
    head = ["config", "crop", "images", f"{precision}: estimate, GiB", "measured, GiB", "images/s"]
    head.append("of the roof")
    lines = [head, ["---"] * len(head), *rows]
    check.details.append("## Training\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    if failed:
        raise FailedError(f"{failed} of {len(rows)} networks; the table is below")
    return f"{len(rows)} network(s); the table is below"


def speed(check: Check) -> str:
    """Measure inference, and put the share of the card's own limit beside it."""
    short = ["plain", "torch", *([f"torch+{check.half}", f"compile+{check.half}"] if check.gpus else [])]
    cells, size = [f"dsegnext-t@{way}" for way in short], 1024 if check.gpus else 128
    options = ["--sizes", size, "--rounds", "3", "--out", check.out / "speed"]
    check.run(sys.executable, "tools/benchmark/networks.py", *cells, *options, seconds=300)
    results = json.loads((check.out / "speed" / "results.json").read_text())
    counted = check.run(sys.executable, "tools/get_flops.py", LARGE, "--shape", size, seconds=60)
    macs = float(re.search(r"torchprofile: ([\d.]+) G", counted)[1])  # type: ignore[index]
    limits = products(results["machine"])
    lines = []
    for row in results["rows"]:
        share = (
            f"{200 * macs * row['images_per_s'] / limits[row['precision']]:.0f} %"
            if row["images_per_s"]
            else row["failed"]
        )
        lines.append(f"- {row['contender']}: {share}")
    text = "Operations a second, as a share of what products of matrices reach here (the roof of the roofline):"
    figures = (check.out / "speed" / "results.md").read_text()
    check.details.append(f"## Inference\n\n{figures}\n{text}\n\n" + "\n".join(lines))
    return f"{len(lines)} ways at {size} px; the table is below"


def main() -> None:
    """Do all parts; the exit code is 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", default="work_dirs/gpu_check", help="folder (default: work_dirs/gpu_check)")
    out = Path(parser.parse_args().out).resolve()
    if (out / "run").exists():
        parser.exit(2, f"error: {out}: has a check already; give another folder, or remove this one\n")
    if importlib.util.find_spec("torch") is None:
        parser.exit(2, f"error: {sys.executable} has no torch; name the one of make install: PYTHON=.venv/bin/python\n")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.exit(2, f"error: {out}: cannot be made ({error.strerror}); give another folder\n")
    check = Check(out, time.monotonic() + SECONDS)
    try:
        every_part(check)
    except KeyboardInterrupt:
        check.write()
        parser.exit(130, f"stopped; the page so far: {out / 'gpu_check.md'}\n")
    sys.stdout.write(f"{out / 'gpu_check.md'}\n")
    sys.exit(any("**failed**" in row for row in check.rows))


def every_part(check: Check) -> None:
    """Do all parts, what is quick and matters most first."""
    check.part("driver and torch", "no GPU", lambda: machine(check))
    check.part("training in several processes", "gloo on the CPU, fp32", lambda: start(check))
    check.part("training in one process", "CPU, fp32", lambda: alone(check))
    check.part("resuming it", "gloo on the CPU, fp32", lambda: resume(check))
    check.part("a killed process", "gloo on the CPU, fp32", lambda: killed(check))
    check.part("evaluation in 1 and several processes", "gloo on the CPU", lambda: evaluation(check))
    check.part("a map in 1 and several processes", "gloo on the CPU, fp32", lambda: maps(check))
    for name in BACKENDS:
        check.part(f"backend {name}", "CPU", lambda name=name: backend(check, name))  # type: ignore[misc]
    check.part("inference speed and its roof", "CPU, 128 px", lambda: speed(check))
    check.part("training memory and speed", "CPU, one network at 64 px", lambda: memory(check))


if __name__ == "__main__":
    main()
