#!/usr/bin/env python
"""Train a config with several seeds and report mean and deviation: ``python tools/repeat.py CONFIG --seeds 0 1 2``.

Each seed is trained in WORK_DIR/seed<N> and scored on the test split. Re-run the command to resume after a stop; more
seeds add to those that are done. WORK_DIR/repeat.json contains all scores.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from mmseg_ext.errors import ConfigError, Stopped, TrainingError, run_tool
from mmseg_ext.files import write_text
from mmseg_ext.report.tables import markdown_table

TOOLS = Path(__file__).resolve().parent


def run(what: str, command: Sequence[str]) -> None:
    """Run a tool in a process of its own, which has the time to save its work after a signal.

    Raises:
        TrainingError: it failed, and said why.
        Stopped: a signal ended it.
    """
    from mmseg_ext.engine.hooks import SIGNALS

    process = subprocess.Popen(command)
    received = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if number == signal.SIGTERM:  # Ctrl-C and a closed terminal reach all its processes, SIGTERM this one alone
            process.send_signal(number)

    heard = [s for s in SIGNALS if s != signal.SIGHUP or signal.getsignal(s) != signal.SIG_IGN]  # nohup ignores it
    previous = {number: signal.signal(number, on_signal) for number in heard}
    try:
        code = process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if received:
        raise Stopped(received[0])
    if code:
        raise TrainingError(f"{what} ended with exit code {code}; see above, then re-run the command to resume")


def train_and_score(
    config: str, seed: int, work_dir: str, options: Sequence[str] = (), validate: bool = True, processes: int = 1
) -> dict[str, float]:
    """Train ``config`` in its own process, score the last checkpoint on the test split and return the metrics, 0 to 1.

    An interrupted training is resumed; a finished one is only scored.

    Args:
        config: path of a config.
        seed: seed of the training.
        work_dir: where checkpoints, logs and ``test.json`` go.
        options: config overrides, ``key.sub=value``.
        validate: evaluate at the config's interval too.
        processes: GPUs, or gloo processes without any.

    Raises:
        TrainingError: training or evaluation failed, and said why.
        Stopped: a signal came; the training's work is saved.
    """
    overrides = ["--cfg-options", *options] if options else []
    launched = [sys.executable] if processes == 1 else [sys.executable, "-m", "mmseg_ext.engine.launch", str(processes)]
    scores = os.path.join(work_dir, "test.json")
    name = f"{config} with seed {seed}"
    train = [str(TOOLS / "train.py"), config, "--seed", str(seed), "--work-dir", work_dir, "--auto-resume"]
    run(f"the training of {name}", [*launched, *train, *([] if validate else ["--no-validate"]), *overrides])
    checkpoint = os.path.join(work_dir, "latest.pth")
    test = [str(TOOLS / "test.py"), config, checkpoint, "--eval", "mIoU", "--out", scores]
    run(f"the evaluation of {name}", [*launched, *test, *overrides])
    return json.loads(Path(scores).read_text(encoding="utf-8"))["metrics"]


def repeat(
    config: str, seeds: Iterable[int], work_dir: str | None, options: Sequence[str], processes: int
) -> dict[str, Any]:
    """Train ``config`` with each of ``seeds`` and return mean and standard deviation (n - 1) of every score, 0 to 1.

    The result is written as ``repeat.json`` after every seed; a seed that is in it is not trained again.

    Returns:
        ``config``, ``options``, ``runs`` (a row of ``seed`` and ``metrics`` each), ``mean`` and ``deviation`` (by
        metric; the deviation is empty for one run).

    Raises:
        ConfigError: no such config, or ``work_dir`` contains the result of another one.
    """
    from mmseg_ext.engine import load_config
    from mmseg_ext.engine.training import WORK_DIRS

    config = load_config(config).filename
    work_dir = work_dir or os.path.join(WORK_DIRS, f"{Path(config).stem}.repeat")
    path = Path(work_dir, "repeat.json")
    settings: dict[str, Any] = dict(config=Path(config).name, options=list(options))
    runs = finished_runs(path, settings)
    result = summary(settings, runs)
    for seed in seeds:
        if all(run["seed"] != seed for run in runs):
            metrics = train_and_score(config, seed, os.path.join(work_dir, f"seed{seed}"), options, True, processes)
            runs.append(dict(seed=seed, metrics=metrics))
            runs.sort(key=lambda run: run["seed"])
            result = summary(settings, runs)
            write_text(str(path), json.dumps(result, indent=1) + "\n")
    return result


def finished_runs(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the runs in the file at ``path``, which must have been made with the same ``settings``."""
    if not path.exists():
        return []
    before = json.loads(path.read_text(encoding="utf-8"))
    for name, value in settings.items():
        if before[name] != value:
            raise ConfigError(f"{path}: was made with {name} {before[name]}, not {value}; choose another --work-dir")
    return before["runs"]


def summary(settings: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return ``settings`` and ``runs`` with mean and deviation of the metrics that all runs have."""
    values = {name: [run["metrics"][name] for run in runs] for name in (runs[0]["metrics"] if runs else ())}
    values = {name: each for name, each in values.items() if None not in each}
    return dict(
        **settings,
        runs=runs,
        mean={name: statistics.mean(each) for name, each in values.items()},
        deviation={name: statistics.stdev(each) for name, each in values.items()} if len(runs) > 1 else {},
    )


def repeat_table(result: dict[str, Any]) -> str:
    """Return mIoU and all IoUs but the background's in percent as a Markdown table, a row per seed and the mean."""
    ious = [name for name in result["runs"][0]["metrics"] if name.startswith("IoU.")]
    names = ["mIoU", *ious[1:]]
    rows = [
        [str(run["seed"]), *("--" if run["metrics"][n] is None else f"{100 * run['metrics'][n]:.2f}" for n in names)]
        for run in result["runs"]
    ]
    mean, deviation = result["mean"], result["deviation"]
    cells = []
    for name in names:
        spread = f" ± {100 * deviation[name]:.2f}" if name in deviation else ""
        cells.append(f"{100 * mean[name]:.2f}{spread}" if name in mean else "--")
    header = ["seed", *(name.replace("IoU.", "") + " IoU %" if "." in name else f"{name} %" for name in names)]
    return markdown_table(header, [*rows, ["mean ± deviation" if deviation else "mean", *cells]])


def main() -> None:
    """Repeat as the command line says, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a leaf below myconfigs/, its name, or your own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--work-dir", help="folder of all runs (default: work_dirs/<config name>.repeat)")
    parser.add_argument("--processes", type=int, default=1, help="GPUs for each run, or gloo processes (default: 1)")
    parser.add_argument("--cfg-options", nargs="+", default=[], help="config overrides for all, key.sub=value ...")
    args = parser.parse_args()
    result = repeat(args.config, args.seeds, args.work_dir, args.cfg_options, args.processes)
    sys.stdout.write(f"{repeat_table(result)}\n")


if __name__ == "__main__":
    run_tool(main)
