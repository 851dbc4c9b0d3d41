"""What a network costs: parameters, multiply-accumulates by the two counters of the paper's table, training memory."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmcv import Config
from mmcv.cnn import get_model_complexity_info
from mmcv.cnn.utils import revert_sync_batchnorm
from mmseg.models import build_segmentor
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ..errors import ConfigError, TrainingError, lazy_import
from .config import step_arguments
from .distributed import DTYPES, choose_precision, memory_words
from .evaluation import EVALUATED_WHOLE
from .runner import SafeIterRunner
from .weights import build_network

MMSEG_BACKBONES = ("MSCAN", "MixVisionTransformer")
_ADAMW_BYTES = 4 * 4  # per parameter, float32: weight, gradient, and AdamW's two moments


@dataclass(frozen=True)
class Complexity:
    """What a network costs for one image.

    Attributes:
        params: number of parameters.
        imagenet_head_params: parameters of the ImageNet classifier that published D-SegNeXt checkpoints
            carry along and the published Params include; 0 for other networks.
        mmcv_macs: multiply-accumulates by mmcv's counter (SyncBN is not counted, activations only as modules).
        torchprofile_macs: multiply-accumulates by torchprofile (every traced operator it knows).
        paper_counter: the counter behind the paper's figure for this network, ``mmcv`` or ``torchprofile``.
    """

    params: int
    imagenet_head_params: int
    mmcv_macs: int
    torchprofile_macs: int
    paper_counter: str


def measure_complexity(cfg: Config, height: int, width: int) -> Complexity:
    """Count parameters and multiply-accumulates of ``cfg.model`` for one image of ``height`` x ``width`` px.

    Raises:
        MissingExtraError: torchprofile is not installed.
    """
    torchprofile = lazy_import("torchprofile", "count", "counting multiply-accumulates")
    model_cfg = copy.deepcopy(cfg.model)
    model_cfg.backbone.init_cfg = None
    model = build_segmentor(model_cfg).eval()
    model.forward = model.forward_dummy
    channels = model_cfg.backbone.get("in_channels", 3)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        with FakeTensorMode(allow_non_fake_inputs=True):  # shapes suffice: nothing is computed
            mmcv_macs, params = get_model_complexity_info(
                model, (channels, height, width), print_per_layer_stat=False, as_strings=False
            )
        plain = revert_sync_batchnorm(model)
        torchprofile_macs = torchprofile.profile_macs(plain, torch.zeros(1, channels, height, width))
    carries_head = model_cfg.backbone.get("gating_unit", {}).get("type") == "HDMSCA"
    return Complexity(
        params=params,
        imagenet_head_params=model.backbone.imagenet_head_params if carries_head else 0,
        mmcv_macs=int(mmcv_macs),
        torchprofile_macs=int(torchprofile_macs),
        paper_counter="mmcv" if model_cfg.backbone.type in MMSEG_BACKBONES else "torchprofile",
    )


def crop_size(cfg: Config) -> tuple[int, int]:
    """Return height and width of the training crops of ``cfg``.

    Raises:
        ConfigError: the training pipeline has no crop.
    """
    for step in ("RandomCrop", "RandomAffineCrop"):
        try:
            height, width = step_arguments(cfg.data.train, step)["crop_size"]
        except KeyError:
            continue
        return height, width
    raise ConfigError(f"{cfg.filename}: the training pipeline has no RandomCrop; give --shape")


@contextlib.contextmanager
def _gpu_autocast(dtype: torch.dtype | None) -> Iterator[None]:
    """Autocast as a GPU does; `torch.autocast` turns itself off where there is none."""
    torch.set_autocast_dtype("cuda", dtype or torch.float16)
    torch.set_autocast_enabled("cuda", dtype is not None)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()


def estimate_training_memory(cfg: Config, batch: int, height: int, width: int, precision: str) -> int:
    """Return the bytes of a training step on a GPU: weights, gradients, AdamW's state, what the backward pass keeps.

    The network runs on tensors without data that claim to be on a GPU, and every distinct storage that autograd saves
    is counted once. No GPU is needed. The CUDA context, cuDNN's workspaces and the allocator's fragmentation come on
    top.

    Args:
        cfg: config with ``model``.
        batch: images in a step.
        height: of an image in pixels.
        width: of an image in pixels.
        precision: ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        ConfigError: unknown precision.
    """
    dtype = DTYPES[choose_precision(precision, torch.device("cpu"))]
    kept: dict[int, tuple[Tensor, int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = (tensor, storage.nbytes())
        return tensor

    model = revert_sync_batchnorm(build_network(cfg, initialise=False)).train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to("cuda")
        own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
        images = torch.empty(batch, cfg.model.backbone.get("in_channels", 3), height, width, device="cuda")
        labels = torch.empty(batch, height, width, dtype=torch.long, device="cuda")
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            with _gpu_autocast(dtype):
                logits = model.encode_decode(images, None)
            loss = F.cross_entropy(logits.float(), labels)
        parameters = sum(p.numel() for p in model.parameters())
        saved = sum(size for key, (_, size) in kept.items() if key not in own)
        del loss
    return saved + parameters * _ADAMW_BYTES


@contextlib.contextmanager
def memory_advice(cfg: Config, runner: SafeIterRunner) -> Iterator[None]:
    """Say in one line what a training needs, as it is and with less, where a GPU's memory runs out.

    Raises:
        TrainingError: the memory ran out; the message has estimates for ``cfg``.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        said = f"iteration {runner.iter + 1}: {memory_words(error)}"
        if not runner.network.training:
            raise TrainingError(f"{said}; {EVALUATED_WHOLE}") from None
        batch, _, height, width = runner.data_batch["img"].shape
        precision = next(name for name, dtype in DTYPES.items() if dtype == runner.model.autocast_dtype)
        steps = 2 * (cfg.get("optimizer_config") or {}).get("accumulate", 1)
        ways: list[tuple[str, dict, int, str]] = [("as it is", {}, batch, precision)]
        if precision == "fp32":
            ways += [("--precision auto", {}, batch, "fp16")]
        if batch > 1:
            options = f"data.samples_per_gpu={batch // 2} optimizer_config.accumulate={steps}"
            ways += [(f"--cfg-options {options}", {}, batch // 2, precision)]
        if cfg.model.backbone.type == "MSCAN" and not cfg.model.backbone.get("recompute_stages"):
            recomputed = {"model.backbone.recompute_stages": [1, 2]}
            ways += [("--cfg-options model.backbone.recompute_stages=[1,2]", recomputed, batch, precision)]
        needs = []
        for words, settings, images, kind in ways:
            changed = copy.deepcopy(cfg)
            changed.merge_from_dict(settings)
            gib = estimate_training_memory(changed, images, height, width, kind) / 2**30
            needs.append(f"{words} {gib:.1f}")
        raise TrainingError(f"{said}; GiB that a step needs, and 1 to 2 around it: {'; '.join(needs)}") from None
