"""Processes, devices and precision, and the seeds and draws that do not depend on the number of processes."""

from __future__ import annotations

import atexit
import contextlib
import datetime
import itertools
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeVar
from unittest import mock

import numpy as np
import torch
from mmcv.cnn.utils import revert_sync_batchnorm
from mmcv.parallel import MODULE_WRAPPERS, DataContainer
from torch import distributed as dist
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset, Sampler

from ..errors import ConfigError
from .test_time_augmentation import class_probabilities

_DRIVERS = {"11": "450", "12": "525", "13": "580"}  # by CUDA version; NVIDIA's table of minor version compatibility
_MESSAGE = 64  # numbers that processes exchange at least
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_PATIENCE = datetime.timedelta(hours=24)  # NCCL and gloo give up after 10 and 30 minutes, unless told otherwise
_T = TypeVar("_T")

# all processes by gloo: hosts wait and exchange objects there, so that no GPU stands in a collective meanwhile
_hosts: dist.ProcessGroup | None = None


def _seed_cpu(seed: int, counts: tuple[int, ...]) -> int:
    """Seed Python and NumPy, and return the seed that goes with them for torch."""
    mixed = np.random.SeedSequence((seed % 2**64, *counts)).generate_state(3, np.uint64)
    random.seed(int(mixed[0]))
    np.random.seed(int(mixed[1]) % 2**32)  # noqa: NPY002  MMSegmentation draws from it
    return int(mixed[2]) % 2**63


def seed_everything(seed: int, *counts: int) -> None:
    """Seed Python, NumPy and torch; the same ``seed`` and ``counts`` (not negative) give the same random numbers."""
    torch.manual_seed(_seed_cpu(seed, counts))


@contextlib.contextmanager
def seeded(seed: int, *counts: int) -> Iterator[None]:
    """Seed the generators of the CPU for a while, and put them back as they were."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    torch.default_generator.manual_seed(_seed_cpu(seed, counts))
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


class SeededDraws(Dataset):
    """A data set whose augmentation follows from seed and number of the draw, whatever process or worker makes it."""

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, draw_and_index: tuple[int, int]) -> dict:
        """Return image ``index``, augmented as draw number ``draw`` of the run."""
        draw, index = draw_and_index
        with seeded(self.seed, 0, draw):
            return self.dataset[index]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.dataset)  # type: ignore[arg-type]


class InfiniteSampler(Sampler[tuple[int, int]]):
    """Endless shuffled images as (number of the draw, index), the same sequence for any number of processes.

    Every pass over the data is a new permutation; of each step's images of the joint sequence, process ``rank`` takes
    its part. So k processes with batch b draw what one process with batch k*b draws, and no worker is restarted
    between passes.

    Args:
        size: number of images; of several sources one after the other, a number for each.
        seed: decides the sequence.
        rank: of this process among ``world_size``.
        start: number of draws in the joint sequence that a resumed run has done already.
        shares: of the draws that come from each source, in any unit; None: those of its images.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        shares: Sequence[float] | None = None,
    ) -> None:
        self.sizes = [size] if isinstance(size, int) else list(size)
        self.size, self.seed, self.rank, self.world_size = sum(self.sizes), seed, rank, world_size
        self.start, self.shares = start, shares

    def _passes(self, size: int, first: int, seed: int) -> Iterator[int]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield from (first + torch.randperm(size, generator=generator)).tolist()

    def _joint(self) -> Iterator[int]:
        if self.shares is None:
            yield from self._passes(self.size, 0, self.seed)
        starts = itertools.accumulate(self.sizes, initial=0)
        sources = [
            self._passes(size, first, self.seed + 1 + number)
            for number, (size, first) in enumerate(zip(self.sizes, starts, strict=False))
        ]
        generator = torch.Generator().manual_seed(self.seed)
        weights = torch.tensor(self.shares, dtype=torch.float64)
        while True:
            for number in torch.multinomial(weights, 1024, replacement=True, generator=generator).tolist():
                yield next(sources[number])

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield this process's draws, without end."""
        return itertools.islice(enumerate(self._joint()), self.start + self.rank, None, self.world_size)

    def __len__(self) -> int:
        """Return the number of this process's images in one pass."""
        return -(-self.size // self.world_size)


@dataclass(frozen=True)
class Process:
    """This process among the ``world_size`` that work together; the network runs on its ``device``."""

    rank: int
    world_size: int
    device: torch.device

    def wait(self) -> None:
        """Wait until all processes are here, for hours if need be."""
        gathered(None)  # a barrier would take the GPU that NCCL is bound to


def start_process(gpu_id: int = 0) -> Process:
    """Join the processes that torchrun started, or stand alone.

    GPUs communicate by NCCL, CPUs and hosts (see `hosts`) by gloo. Alone, the process takes GPU ``gpu_id``, or the CPU
    where there is none.

    Raises:
        ConfigError: more processes on this machine than GPUs, where there is at least one, or a GPU that cannot be
            used, such as one whose driver is too old.
    """
    gpus = torch.cuda.device_count()
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    if "RANK" not in os.environ:
        if gpus and gpu_id >= gpus:
            raise ConfigError(f"GPU {gpu_id} was requested, but this machine has {gpus} (0 to {gpus - 1})")
        device = torch.device("cuda", gpu_id) if gpus else torch.device("cpu")
        rank, world_size = 0, 1
    else:
        rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", 0))
        check_gpu_count(int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
        device = torch.device("cuda", local_rank) if gpus else torch.device("cpu")
    if device.type == "cuda":
        _start_gpu(device)
    global _hosts
    if "RANK" in os.environ and not dist.is_initialized():
        if gpus:
            dist.init_process_group("nccl", device_id=device)
        else:
            dist.init_process_group("gloo")
        atexit.register(_leave)
    if dist.is_initialized() and _hosts is None:
        _hosts = dist.new_group(backend="gloo", timeout=_PATIENCE)
    return Process(rank, world_size, device)


def _start_gpu(device: torch.device) -> None:
    """Make ``device`` the GPU of this process, or say why it cannot be used and which driver torch needs."""
    try:
        torch.cuda.set_device(device)
        torch.cuda.init()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0].split(". ")[0]
        driver = _DRIVERS.get((torch.version.cuda or "").split(".")[0], "of its release notes")
        raise ConfigError(
            f"GPU {device.index} cannot be used: {reason}; torch {torch.__version__} needs NVIDIA driver {driver} or "
            "newer (nvidia-smi shows yours); to run on the CPU: CUDA_VISIBLE_DEVICES= before the command"
        ) from None


def _leave() -> None:
    """Leave the process groups; a thread left in one would abort this process at its exit."""
    global _hosts
    _hosts = None
    if dist.is_initialized():
        dist.destroy_process_group()


def hosts() -> dist.ProcessGroup | None:
    """Return the group in which hosts wait for one another, for hours if need be; None before `start_process`.

    What one process does alone may take long: check masks, measure backends, write maps, reports and road networks. The
    others must not stand in a collective of the GPUs meanwhile: NCCL ends the run after ten minutes.
    """
    return _hosts


def gathered(mine: _T) -> list[_T]:
    """Return what every process gave, in the order of their ranks, in every process; they wait on their hosts."""
    if not dist.is_initialized():
        return [mine]
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, mine, group=hosts())
    return parts


def check_gpu_count(processes: int) -> None:
    """Refuse more processes than GPUs on a machine that has any.

    Raises:
        ConfigError: names both numbers.
    """
    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        raise ConfigError(f"{processes} GPUs were requested, but this machine has {gpus}; request {gpus} or fewer")


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return ``fp32``, ``bf16`` or ``fp16`` for the config's ``precision``.

    ``auto`` takes bf16 where the GPU computes it natively (Ampere and newer), fp16 with a gradient scaler on
    older GPUs such as Turing, and fp32 on a CPU.

    Raises:
        ConfigError: an unknown name, or bf16 on a GPU that only emulates it.
    """
    if wanted not in (*DTYPES, "auto"):
        raise ConfigError(f"precision='{wanted}' is unknown; choose one of {', '.join(DTYPES)} or auto")
    native_bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8
    if wanted == "auto":
        return "fp32" if device.type == "cpu" else "bf16" if native_bf16 else "fp16"
    if wanted == "bf16" and device.type == "cuda" and not native_bf16:
        raise ConfigError(f"precision='bf16': {torch.cuda.get_device_name(device)} has no native bf16; choose fp16")
    return wanted


def agreed_precision(wanted: str, process: Process) -> str:
    """Return `choose_precision` for all processes: fp16 where the GPU of any of them has no native bf16.

    Raises:
        ConfigError: see `choose_precision`.
    """
    chosen = gather_by_index({process.rank: choose_precision(wanted, process.device)})
    return "fp16" if "fp16" in chosen else chosen[0]


def memory_words(error: torch.OutOfMemoryError) -> str:
    """Return what torch says of a full GPU, without its advice for programmers."""
    return ". ".join(str(error).split(". ")[:3])


@contextlib.contextmanager
def gpu_memory(remedy: str) -> Iterator[None]:
    """Say a ``remedy`` in one line, a `ConfigError`, where the memory of a GPU runs out within the block."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(f"{memory_words(error)}; {remedy}") from None


def to_device(batch: Any, device: torch.device) -> Any:
    """Return ``batch`` without mmcv's containers and with its tensors on ``device``."""
    if isinstance(batch, DataContainer):
        return batch.data[0] if batch.cpu_only else to_device(batch.data[0], device)
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def total_loss(losses: Mapping[str, torch.Tensor | Sequence[torch.Tensor]]) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the sum of all terms named ``loss``, and every term and the sum as means over all processes.

    As MMSegmentation's ``_parse_losses``, but the host waits for the device once, not once for each term.

    Raises:
        ConfigError: the processes have different numbers of terms.
    """
    terms = {
        name: reduce(torch.add, [part.mean() for part in ([value] if isinstance(value, torch.Tensor) else value)])
        for name, value in losses.items()
    }
    loss = reduce(torch.add, [value for name, value in terms.items() if "loss" in name])
    terms["loss"] = loss
    processes = dist.get_world_size() if dist.is_initialized() else 1
    means = torch.stack([value.detach().float() for value in terms.values()]) / processes
    # a message of one size, whatever the number of terms, which is its first value
    message = functional.pad(means, (1, -(len(terms) + 1) % _MESSAGE))
    message[0] = len(terms)
    if dist.is_initialized():
        dist.all_reduce(message)
    count, *values = message.tolist()
    if count != len(terms) * processes:
        raise ConfigError(f"process {dist.get_rank()} has the losses {', '.join(terms)}, another has others")
    return loss, dict(zip(terms, values, strict=False))


class _Steps(nn.Module):
    """What mmcv's runner and our evaluation call; keeps device and autocast type out of the networks."""

    module: Any
    device_used: torch.device
    autocast_dtype: torch.dtype | None

    def _prepare(self, batch: dict) -> dict:
        return to_device(batch, self.device_used)

    def _autocast(self) -> torch.autocast:
        enabled = self.autocast_dtype is not None
        return torch.autocast(self.device_used.type, dtype=self.autocast_dtype, enabled=enabled)

    def train_step(self, batch: dict, optimizer: object = None, **_: object) -> dict:
        """Return loss, log variables and number of images of one training batch."""
        batch = self._prepare(batch)
        with self._autocast():
            losses = self(**batch)
        loss, log_vars = total_loss(losses)
        return dict(loss=loss, log_vars=log_vars, num_samples=len(batch["img_metas"]))

    val_step = train_step

    @torch.no_grad()
    def probabilities(self, batch: dict, quarter_turns: Sequence[int] = (0,)) -> torch.Tensor:
        """Return class probabilities (classes, H, W) of the one image of a test batch; see `class_probabilities`."""
        batch = self._prepare(batch)
        with self._autocast():
            return class_probabilities(self.module, batch["img"], batch["img_metas"], quarter_turns)


@MODULE_WRAPPERS.register_module()
class LocalSegmentor(_Steps):
    """A segmentor in a single process, on CPU or GPU."""

    def __init__(self, module: nn.Module, device: torch.device, autocast_dtype: torch.dtype | None) -> None:
        super().__init__()
        self.module = module
        self.device_used, self.autocast_dtype = device, autocast_dtype

    def forward(self, *args: object, **kwargs: object) -> object:
        """Call the segmentor."""
        return self.module(*args, **kwargs)


@MODULE_WRAPPERS.register_module()
class DistributedSegmentor(_Steps, nn.parallel.DistributedDataParallel):
    """A segmentor whose gradients are averaged over all processes (NCCL or gloo)."""

    def __init__(
        self, module: nn.Module, device: torch.device, autocast_dtype: torch.dtype | None, **kwargs: Any
    ) -> None:
        super().__init__(module, device_ids=[device] if device.type == "cuda" else None, **kwargs)
        self.device_used, self.autocast_dtype = device, autocast_dtype


class UnmaskedSyncBN(nn.SyncBatchNorm):
    """SyncBN for processes that all have images: the host does not wait for the device to look for empty batches.

    torch leaves that out where it believes that a CUDA graph is being captured.
    """

    @torch.compiler.disable
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalised ``x`` (B, C, H, W)."""
        with mock.patch.object(torch.cuda, "is_current_stream_capturing", lambda: True):
            return super().forward(x)


def wrap(
    model: nn.Module,
    process: Process,
    autocast_dtype: torch.dtype | None = None,
    channels_last: bool = False,
    training: bool = False,
    find_unused_parameters: bool = False,
) -> LocalSegmentor | DistributedSegmentor:
    """Move ``model`` to this process's device and wrap it for training or evaluation.

    SyncBN becomes BN where it cannot run: on a CPU, or in a single process.
    """
    if process.device.type == "cpu" or process.world_size == 1:
        model = revert_sync_batchnorm(model)
    for module in model.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.__class__ = UnmaskedSyncBN
    layout = torch.channels_last if channels_last else torch.preserve_format
    model = model.to(process.device, memory_format=layout)  # type: ignore[call-overload]
    if training and dist.is_initialized():
        options = dict(broadcast_buffers=False, find_unused_parameters=find_unused_parameters)
        return DistributedSegmentor(model, process.device, autocast_dtype, **options)
    return LocalSegmentor(model, process.device, autocast_dtype)


def share_batch_norm_statistics(model: nn.Module) -> None:
    """Give every process the first one's running statistics, which its checkpoints contain."""
    if not dist.is_initialized():
        return
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for statistics in (module.running_mean, module.running_var):
                if statistics is not None:
                    dist.broadcast(statistics, 0)


def on_first_process(process: Process, work: Callable[[], None]) -> None:
    """Run ``work`` on the first process while the others wait; an error there ends all of them."""
    if process.rank == 0:
        work()
    process.wait()


def is_first_process() -> bool:
    """Return whether this process writes what all share."""
    return not dist.is_initialized() or dist.get_rank() == 0


def gather_by_index(items: dict[int, Any]) -> list[Any]:
    """Return the values of all processes' ``items`` in the order of their keys; every process gets them."""
    items = {key: value for part in gathered(items) for key, value in part.items()}
    return [items[key] for key in sorted(items)]
