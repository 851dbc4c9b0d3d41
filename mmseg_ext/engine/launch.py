"""Starts one process per GPU, or gloo processes on a CPU: torchrun that explains failures in one line.

Run as ``python -m mmseg_ext.engine.launch PROCESSES SCRIPT [ARGS ...]``. NNODES, NODE_RANK, MASTER_ADDR and PORT
describe several machines; on one machine a free port is found.
"""

from __future__ import annotations

import logging
import os
import signal
import sys

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.run import get_args_parser, run

from ..errors import LOST_PEER, ConfigError, run_tool
from .distributed import check_gpu_count


def torchrun_arguments(processes: int, environ: dict[str, str]) -> list[str]:
    """Return torchrun's options for this machine.

    Raises:
        ConfigError: several nodes without the address of the first.
    """
    nodes = int(environ.get("NNODES", 1))
    arguments = [f"--nproc-per-node={processes}", f"--nnodes={nodes}"]
    if nodes == 1 and "PORT" not in environ:
        return [*arguments, "--standalone"]
    if nodes > 1 and "MASTER_ADDR" not in environ:
        raise ConfigError(f"NNODES={nodes} needs MASTER_ADDR, the address of the first node (and the same PORT on all)")
    return [
        *arguments,
        f"--node-rank={environ.get('NODE_RANK', 0)}",
        f"--master-addr={environ.get('MASTER_ADDR', '127.0.0.1')}",
        f"--master-port={environ.get('PORT', 29500)}",
    ]


def launch(processes: int, script: list[str]) -> int:
    """Run ``script`` in ``processes`` processes and return the exit code of the first that failed, or 0.

    A signal to the launcher ends all processes; the code is then 128 + its number, as shells have it.

    Raises:
        ConfigError: more processes than GPUs, or an incomplete description of several nodes.
    """
    if processes < 1:
        raise ConfigError(f"{processes} processes were requested; request 1 or more")
    check_gpu_count(processes)
    if not torch.cuda.device_count():
        sys.stderr.write(f"no GPU here: running {processes} process(es) on the CPU with gloo\n")
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        os.environ["OMP_NUM_THREADS"] = str(max(1, cores // processes))
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    arguments = torchrun_arguments(processes, dict(os.environ))
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # nohup: torchrun would take the signal all the same
        arguments.append("--signals-to-handle=SIGTERM,SIGINT,SIGQUIT")
    try:
        run(get_args_parser().parse_args([*arguments, *script]))
    except ChildFailedError as error:
        return _explain(error.failures)
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def _explain(failures: dict[int, ProcessFailure]) -> int:
    """Say the cause once, as the last line, and return the exit code that it deserves."""
    # a process that lost its peer is no cause; a killed one left no time of its own
    rank, cause = min(
        failures.items(), key=lambda item: (item[1].exitcode == LOST_PEER, item[1].exitcode >= 0, item[1].timestamp)
    )
    if cause.exitcode < 0:
        name = signal.Signals(-cause.exitcode).name
        hint = "; the kernel does that when memory runs out" if name == "SIGKILL" else ""
        sys.stderr.write(f"error: process {rank} was ended by {name}{hint}; all processes are stopped\n")
        return 128 - cause.exitcode
    if cause.exitcode == LOST_PEER:
        sys.stderr.write("error: a process on another machine was lost; the cause stands in that machine's output\n")
    elif os.path.isfile(cause.error_file):
        sys.stderr.write(f"error: {cause.message}\n")
    return cause.exitcode


def main() -> None:
    """Parse the command line and launch."""
    if len(sys.argv) < 3 or not sys.argv[1].isdigit():
        raise ConfigError("usage: python -m mmseg_ext.engine.launch PROCESSES SCRIPT [ARGS ...]")
    sys.exit(launch(int(sys.argv[1]), sys.argv[2:]))


if __name__ == "__main__":
    run_tool(main)
