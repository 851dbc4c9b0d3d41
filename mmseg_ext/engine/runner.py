"""The runner and the optimizer of a training: what each step needs, and what a checkpoint stores and resumes."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from typing import Any

import torch
from mmcv.parallel import is_module_wrapper
from mmcv.runner import RUNNERS, IterBasedRunner, build_optimizer
from torch import Tensor, nn
from torch import distributed as dist
from torch.optim import Optimizer

from ..errors import CheckpointError
from .checkpoint import check_weights, point_to, read_checkpoint, write_checkpoint
from .distributed import seed_everything
from .loggers import end_trackers
from .weights import load_fitting

# apart from the draws of images, which count by themselves
_ITERATION = 1
_FUSED = ("Adam", "AdamW", "SGD")  # have a fused step on CPU and on CUDA
_EXECUTION = ("foreach", "fused")  # how a step is computed, not what


def training_optimizer(network: nn.Module, settings: dict) -> Optimizer:
    """Return the optimizer for ``network``, which must be on its device.

    mmcv makes one group for each parameter where ``paramwise_cfg`` is given; here those of equal settings are updated
    together. The state dict keeps mmcv's groups, and any grouping of the same parameters in the same order can be
    loaded. Adam, AdamW and SGD step fused, unless ``settings``, the config's, say ``fused`` or ``foreach`` themselves.
    """
    if settings.get("type") in _FUSED and not settings.keys() & set(_EXECUTION):
        settings = {**settings, "fused": True}
    optimizer = build_optimizer(network, settings)
    built = optimizer.param_groups
    optimizer.param_groups = _joined(built)
    optimizer.register_state_dict_post_hook(lambda own, state: _regrouped(state, own.param_groups, built))
    optimizer.register_load_state_dict_pre_hook(lambda own, state: _fitting(state, built, own.param_groups))
    optimizer.register_load_state_dict_post_hook(_align_state)
    return optimizer


def _settings(group: dict) -> dict:
    return {name: value for name, value in group.items() if name != "params"}


def _joined(groups: list[dict]) -> list[dict]:
    """Return the groups with those of equal settings joined, in the order of their first parameters."""
    joined: list[dict] = []
    for group in groups:
        twin = next((other for other in joined if _settings(other) == _settings(group)), None)
        if twin is None:
            joined.append({**group, "params": list(group["params"])})
        else:
            twin["params"] += group["params"]
    return joined


def _regrouped(state: dict, groups: list[dict], wanted: list[dict]) -> dict:
    """Return a state dict, whose groups hold the parameters of ``groups`` in this order, in the groups ``wanted``.

    Each of these gets the settings that its first parameter has in ``state``.
    """
    settings = {number: _settings(group) for group in state["param_groups"] for number in group["params"]}
    numbers = dict(zip((id(p) for group in groups for p in group["params"]), settings, strict=True))
    count = itertools.count()
    moments: dict[int, dict] = {}
    regrouped = []
    for group in wanted:
        old = [numbers[id(parameter)] for parameter in group["params"]]
        new = [next(count) for _ in old]
        moments.update(
            (there, state["state"][here]) for here, there in zip(old, new, strict=True) if here in state["state"]
        )
        regrouped.append({**settings[old[0]], "params": new})
    return {**state, "state": moments, "param_groups": regrouped}


def _fitting(state: dict, built: list[dict], own: list[dict]) -> dict:
    """Return a saved state dict in the optimizer's groups, to be computed as the optimizer does."""
    count = sum(len(group["params"]) for group in built)
    if sum(len(group["params"]) for group in state["param_groups"]) != count:
        return state  # torch says what is wrong
    state = _regrouped(state, built, own)
    for saved, group in zip(state["param_groups"], own, strict=True):
        saved.update({name: group[name] for name in _EXECUTION if name in group})
    return state


def _align_state(optimizer: Optimizer) -> None:
    """Give the moments the memory format of their parameters, which a fused step takes for granted."""
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if torch.is_tensor(value) and value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


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
    """``IterBasedRunner`` whose ``iter_N.pth`` contains all that decides iteration N + 1.

    Random numbers follow from the seed and the number of the iteration, so none of their states is stored.

    Attributes:
        seed: seed of the run.
        draws: training images drawn so far, by all processes.
        draws_per_iter: images that one iteration draws, in all processes.
        accumulated: iterations whose gradients wait for the next step of the optimizer.
        skipped_in_a_row: last iterations whose steps were skipped because of non-finite losses.
        average: moving average of the weights by key, None where none is kept.
        scaler: of the loss, for fp16; else it changes nothing.
    """

    seed = 0
    draws = 0
    draws_per_iter = 1
    accumulated = 0
    skipped_in_a_row = 0
    average: dict[str, Tensor] | None = None
    scaler = torch.amp.GradScaler(enabled=False)
    _logged_before: list[dict] | None = None

    def run(self, *args: object, **kwargs: object) -> None:
        """Run as mmcv does; however it ends, call ``close`` of the hooks that have one, and end their trackers."""
        finished = False
        try:
            super().run(*args, **kwargs)
            finished = True
        finally:
            for hook in self.hooks:
                if hasattr(hook, "close"):
                    hook.close()
            end_trackers(finished)

    def train(self, data_loader: object, **kwargs: object) -> None:
        """Run one iteration with random numbers of its own."""
        if self._logged_before is not None:  # mmcv empties the log's averages when a run begins
            for history, saved in zip(self._log_histories(), self._logged_before, strict=False):
                history.update(saved)
            self._logged_before = None
        seed_everything(self.seed, _ITERATION, self.iter, self.rank)
        self.draws += self.draws_per_iter
        super().train(data_loader, **kwargs)

    @property
    def network(self) -> torch.nn.Module:
        """The segmentor without its wrapper."""
        return self.model.module if is_module_wrapper(self.model) else self.model

    def get_hook_info(self) -> str:
        """Return the hooks' names in the order of their priority, in one line."""
        return ", ".join(type(hook).__name__ for hook in self._hooks)

    def share_gradients(self) -> None:
        """Average the gradients of half a step over all processes: a checkpoint holds one for all of them.

        To be called in all processes before one writes a checkpoint within a step.
        """
        if self.accumulated and dist.is_initialized():
            for parameter in filter(lambda own: own.requires_grad, self.network.parameters()):
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad.div_(dist.get_world_size()))

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
        if self.skipped_in_a_row:
            self.logger.warning(
                "iteration %d: no checkpoint, since the last %d step(s) were skipped", done, self.skipped_in_a_row
            )
            return
        meta = {**(meta or {}), **(self.meta or {})}
        if self.scaler.is_enabled():
            meta["grad_scaler"] = self.scaler.state_dict()
        content = dict(
            meta={**meta, "epoch": self.epoch, "iter": done, "draws": self.draws},
            state_dict=_to_cpu(self.network.state_dict()),
            log_buffer=[{k: [*map(float, v)] for k, v in history.items()} for history in self._log_histories()],
        )
        if self.average is not None:
            content["average"] = _to_cpu(self.average)
        if self.accumulated:
            pending = {name: p.grad for name, p in self.network.named_parameters() if p.grad is not None}
            content.update(accumulated=self.accumulated, gradients=_to_cpu(pending))
        if save_optimizer:
            content["optimizer"] = _to_cpu(self.optimizer.state_dict())
        path = os.path.join(out_dir, filename_tmpl.format(done))
        check_weights(content["state_dict"], path)
        write_checkpoint(content, path)
        if create_symlink:
            point_to(path, os.path.join(out_dir, "latest.pth"))

    @contextlib.contextmanager
    def evaluated_weights(self) -> Iterator[None]:
        """Put the average of the weights, if one is kept, in their place while the block runs."""
        if self.average is None:
            yield
            return
        kept = {key: value.detach().clone() for key, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        try:
            yield
        finally:
            self.network.load_state_dict(kept)

    def _log_histories(self) -> tuple[dict, dict]:
        """Return what the next log line will average, and over how many images."""
        return self.log_buffer.val_history, self.log_buffer.n_history

    def resume(self, checkpoint: str, resume_optimizer: bool = True, map_location: str = "cpu") -> None:
        """Continue where ``checkpoint`` was written.

        Raises:
            CheckpointError: the file has no training state, or fits another network.
        """
        content = read_checkpoint(checkpoint)
        if not {"meta", "optimizer"} <= content.keys():
            raise CheckpointError(f"{checkpoint}: has weights but no training state; start from it with --load-from")
        fit = load_fitting(self.network, content["state_dict"])
        if not fit.complete:
            raise CheckpointError(f"{checkpoint}: is from another config: {fit.summary()}")
        self._epoch = content["meta"]["epoch"]
        self._iter = self._inner_iter = content["meta"]["iter"]
        self.draws = content["meta"].get("draws", self.iter * self.draws_per_iter)
        seed = content["meta"].get("seed", self.seed)
        if seed != self.seed:
            self.logger.info("the run keeps its own seed, %d, instead of %d", seed, self.seed)
            self.seed = seed
            if self.meta is not None:
                self.meta["seed"] = seed
        if "average" in content:
            own = self.network.state_dict()
            self.average = {key: value.to(own[key].device) for key, value in content["average"].items()}
        self.accumulated = content.get("accumulated", 0)
        for name, parameter in self.network.named_parameters():
            if name in content.get("gradients", {}):
                parameter.grad = torch.empty_like(parameter).copy_(content["gradients"][name])
        self._logged_before = content.get("log_buffer")
        if resume_optimizer:
            self._resume_optimizer(content["optimizer"])
        if self.meta is not None:
            for key in ("hook_msgs", "grad_scaler"):
                if key in content["meta"]:
                    self.meta[key] = content["meta"][key]
        self.logger.info("resumed from %s at iteration %d", checkpoint, self.iter)

    def _resume_optimizer(self, state: dict) -> None:
        """Load the optimizer's state; its settings are those of the config, which may have changed."""
        settings = [_settings(group) for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state)
        changed = set()
        for group, own in zip(self.optimizer.param_groups, settings, strict=True):
            own["initial_lr"] = own["lr"]  # what the schedule multiplies
            for name, value in own.items():
                if name != "lr" and group.get(name, value) != value:
                    changed.add(f"{name} {group[name]:g} -> {value:g}" if isinstance(value, float) else name)
                if name != "lr":
                    group[name] = value
        if changed:
            self.logger.info("the config changed the optimizer: %s", ", ".join(sorted(changed)))
