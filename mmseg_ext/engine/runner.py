"""mmcv's iteration runner with checkpoints that cannot tear and a resume that needs no GPU."""

from __future__ import annotations

import os
from typing import Any

import torch
from mmcv.parallel import is_module_wrapper
from mmcv.runner import RUNNERS, IterBasedRunner
from torch import Tensor

from ..errors import CheckpointError
from .checkpoint import point_to, read_checkpoint, write_checkpoint
from .weights import load_fitting


def _to_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _to_cpu(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_to_cpu(item) for item in value)
    return value


@RUNNERS.register_module()
class SafeIterRunner(IterBasedRunner):
    """``IterBasedRunner`` whose ``iter_N.pth`` holds the state after exactly N iterations."""

    @property
    def network(self) -> torch.nn.Module:
        """The segmentor without its wrapper."""
        return self.model.module if is_module_wrapper(self.model) else self.model

    def get_hook_info(self) -> str:
        """Return the hooks' names in the order of their priority, in one line."""
        return ", ".join(type(hook).__name__ for hook in self._hooks)

    def save_checkpoint(
        self,
        out_dir: str,
        filename_tmpl: str = "iter_{}.pth",
        meta: dict | None = None,
        save_optimizer: bool = True,
        create_symlink: bool = True,
    ) -> None:
        """Write weights, optimizer and meta data into ``out_dir``; ``latest.pth`` follows once the file is complete."""
        done = self.iter + 1
        content = dict(
            meta={**(meta or {}), **(self.meta or {}), "epoch": self.epoch, "iter": done},
            state_dict=_to_cpu(self.network.state_dict()),
        )
        if save_optimizer:
            content["optimizer"] = _to_cpu(self.optimizer.state_dict())
        path = os.path.join(out_dir, filename_tmpl.format(done))
        write_checkpoint(content, path)
        if create_symlink:
            point_to(path, os.path.join(out_dir, "latest.pth"))

    def resume(self, checkpoint: str, resume_optimizer: bool = True, map_location: str = "cpu") -> None:
        """Continue where ``checkpoint`` was written.

        Raises:
            CheckpointError: the file holds no training state, or fits another network.
        """
        content = read_checkpoint(checkpoint)
        if not {"meta", "optimizer"} <= content.keys():
            raise CheckpointError(f"{checkpoint}: holds weights but no training state; start from it with --load-from")
        fit = load_fitting(self.network, content["state_dict"])
        if not fit.complete:
            raise CheckpointError(f"{checkpoint}: is from another config: {fit.summary()}")
        self._epoch = content["meta"]["epoch"]
        self._iter = self._inner_iter = content["meta"]["iter"]
        if resume_optimizer:
            self.optimizer.load_state_dict(content["optimizer"])
        if self.meta is not None:
            for key in ("hook_msgs", "grad_scaler"):
                if key in content["meta"]:
                    self.meta[key] = content["meta"][key]
        self.logger.info("resumed from %s at iteration %d", checkpoint, self.iter)
