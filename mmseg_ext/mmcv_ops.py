"""What stands in for mmcv's compiled operators where mmcv was installed without them, as `make install` does.

No network, loss or tool here needs an operator, but MMSegmentation imports ``mmcv.ops`` as soon as it is imported
itself (in its focal loss). So that name must lead somewhere: to a module whose operators say, when one is used, how to
get them.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from types import ModuleType
from typing import Any

import mmcv
import torch

from .errors import MissingExtraError

_NO_COMPILER = "not available"  # mmcv's own word for "compiled without CUDA"


class _MissingOp:
    """A class, so that ``isinstance`` and subclasses work (`revert_sync_batchnorm` asks for ``SyncBatchNorm``)."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _MissingOp:
        raise MissingExtraError(
            f"mmcv.ops.{cls.__name__} is a compiled operator of mmcv, and this mmcv was installed without them; "
            "install them with: MMCV_OPS=1 make install"
        )


class _MissingOps(ModuleType):
    """The module ``mmcv.ops`` without operators."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"module 'mmcv.ops' has no attribute {name!r}")
        op = type(name, (_MissingOp,), {"__module__": "mmcv.ops"})
        setattr(self, name, op)
        return op

    def get_compiler_version(self) -> str:
        """Answer mmcv's ``collect_env``."""
        return _NO_COMPILER

    get_compiling_cuda_version = get_compiler_version


def _provide_mmcv_ops() -> None:
    """Make MMSegmentation's imports work without mmcv's compiled operators."""
    if importlib.util.find_spec("mmcv._ext") is None:
        mmcv.ops = sys.modules["mmcv.ops"] = _MissingOps("mmcv.ops")
        warnings.filterwarnings("ignore", message="Fail to import ``MultiScaleDeformableAttention``")


def replace_focal_loss() -> None:
    """Make MMSegmentation's `FocalLoss` work without mmcv's CUDA operators."""
    import mmcv.ops

    if mmcv.ops.get_compiling_cuda_version() == _NO_COMPILER:
        from mmseg.models.losses import focal_loss

        focal_loss.sigmoid_focal_loss = _sigmoid_focal_loss


def _sigmoid_focal_loss(
    pred: torch.Tensor, target: torch.Tensor, one_hot_target: torch.Tensor, *args: Any, **kwargs: Any
) -> torch.Tensor:
    """Compute on a GPU what MMSegmentation's `FocalLoss` computes on the CPU: without mmcv's CUDA operator.

    Args:
        pred: logits, (pixels, classes).
        target: classes, (pixels,); the operator's form, not needed here.
        one_hot_target: the same as (pixels, classes).
        args: of MMSegmentation's `py_sigmoid_focal_loss`.
        kwargs: of MMSegmentation's `py_sigmoid_focal_loss`.
    """
    from mmseg.models.losses.focal_loss import py_sigmoid_focal_loss

    return py_sigmoid_focal_loss(pred, one_hot_target, None, *args, **kwargs)


_provide_mmcv_ops()
