"""Type names and arguments of configs published with the paper, in the terms of this package."""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmcv import Config, DictAction

from ..errors import ConfigError

# type name of a published config -> what builds the same network here
_TYPES: dict[str, dict[str, Any]] = {
    "DCAN": dict(type="MSCAN", gating_unit=dict(type="HDMSCA", kernel_size=5, dilations=(1, 2, 5, 9))),
    "LinkNet34": dict(type="LinkNet34"),
    "DinkNet34": dict(type="DLinkNet34"),
    "NL34_LinkNet": dict(type="NLLinkNet34"),
    "Dunet": dict(type="DUNet"),
    "UNet2": dict(type="SevenLevelUNet"),
    "SimpleHead": dict(type="FCNHead", num_convs=0, concat_input=False),
}
# arguments of the published Hamburger -> ours; the others describe what is fixed here
_HAM_ARGUMENTS = {"MD_R": "rank", "MD_S": "groups", "TRAIN_STEPS": "train_steps", "EVAL_STEPS": "eval_steps"}


def with_our_names(model: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a config's ``model`` in which published type names and arguments are ours."""
    model = copy.deepcopy(model)
    for part in ("backbone", "decode_head"):
        if isinstance(model.get(part), dict):
            ours = _TYPES.get(model[part].get("type"), {})
            model[part].update(copy.deepcopy(ours))
    head = model.get("decode_head")
    if isinstance(head, dict) and head.get("type") == "LightHamHead" and "ham_kwargs" in head:
        theirs = head.pop("ham_kwargs") or {}
        head["ham_cfg"] = {ours: theirs[name] for name, ours in _HAM_ARGUMENTS.items() if name in theirs}
    return model


# -- engine.config
# Reading a config file, with a helpful answer where it cannot be read.

CONFIG_ROOT = Path(__file__).resolve().parents[2] / "myconfigs"


def leaf_configs() -> list[str]:
    """Return the path of every config that can be trained, ``myconfigs/...``, relative to the repository."""
    paths = (p.relative_to(CONFIG_ROOT.parent) for p in CONFIG_ROOT.rglob("*.py"))
    return sorted(path.as_posix() for path in paths if "_base_" not in path.parts)


def _closest_config(path: str) -> str | None:
    """Return the existing config whose path is most like ``path``."""
    beside = [str(p) for p in sorted(Path(path).parent.glob("*.py"))]
    near = get_close_matches(path, beside, n=1, cutoff=0.8)
    if near:
        return near[0]
    known = [os.path.relpath(CONFIG_ROOT.parent / leaf) for leaf in leaf_configs()]
    by_folded = {p.casefold(): p for p in known}
    by_name = {os.path.basename(p).casefold(): p for p in known}
    wanted = os.path.relpath(path).casefold()
    near = get_close_matches(wanted, by_folded, n=1, cutoff=0.6)
    named = get_close_matches(os.path.basename(wanted), by_name, n=1, cutoff=0.8)
    if named:
        return by_name[named[0]]
    return by_folded[near[0]] if near else None


# what a config may set and the base configs do not
_FURTHER_SETTINGS = (
    *("precision", "channels_last", "compile", "lr_of_batch", "non_finite", "sample_predictions", "custom_hooks"),
    *("load_from", "resume_from", "work_dir", "min_loaded_share", "find_unused_parameters", "cudnn_benchmark"),
    *("log_level", "test_rotations", "seed", "dist_params", "workflow", "log_config", "evaluation", "optimizer_config"),
)


class _ConfigOptions(DictAction):
    """mmcv's action, with one line for what it cannot read."""

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__call__(*args, **kwargs)
        except (RecursionError, ValueError, AssertionError):
            values = next((value for value in (*args, *kwargs.values()) if isinstance(value, list)), [])
            raise ConfigError(
                f"--cfg-options {' '.join(map(str, values))[:80]}: cannot be read; give settings one by one, "
                "key.sub=value, lists as [a,b], and lists of dicts in a config file"
            ) from None


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add MMSegmentation's ``--cfg-options key.sub=value ...`` to a tool."""
    parser.add_argument("--cfg-options", nargs="+", action=_ConfigOptions, help="config overrides, key.sub=value ...")


@contextlib.contextmanager
def config_mistakes(cfg: Config) -> Iterator[None]:
    """Turn what building from ``cfg`` raises for an unknown name or a wrong value into one line.

    Raises:
        ConfigError: names the config and what the builder said.
    """
    try:
        yield
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{cfg.filename}: a setting does not fit: {reason}") from error


def load_config(path: str, options: dict | None = None) -> Config:
    """Return the config at ``path`` with ``options`` (dotted keys) merged over it.

    Raises:
        ConfigError: the file is missing (the closest existing one is offered), is no valid config, or an
            option does not fit.
    """
    if not os.path.isfile(path):
        near = _closest_config(path)
        hint = f"did you mean {near}?" if near else "docs/model_zoo.md lists them"
        raise ConfigError(f"{path}: no such config; {hint}")
    if path.endswith((".pth", ".pt", ".safetensors")):
        raise ConfigError(f"{path}: is a checkpoint, not a config; give a config first (to train from it: --load-from)")
    try:
        cfg = Config.fromfile(path)
    except ImportError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{path}: cannot be read as a config ({reason})") from None
    if "model" not in cfg or "data" not in cfg:
        raise ConfigError(f"{path}: has no 'model' or no 'data'; give one of the leaf configs below myconfigs/")
    cfg.model = with_our_names(cfg.model)
    return merge_options(cfg, options)


def merge_options(cfg: Config, options: dict | None) -> Config:
    """Return ``cfg`` with ``options`` (dotted keys) merged over it.

    Raises:
        ConfigError: an option does not fit, or no setting is called so.
    """
    for key, value in (options or {}).items():
        name = key.split(".")[0]
        known = [*cfg.keys(), *_FURTHER_SETTINGS]
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "the config has none of this name"
            raise ConfigError(f"{cfg.filename}: --cfg-options {key}: no such setting; {hint}")
        parts = value if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(part, str) and part.startswith(("dict(", "{")) for part in parts):
            raise ConfigError(
                f"--cfg-options {key}={value}: cannot be read; give settings one by one, {key}.name=value, "
                "and lists of dicts in a config file"
            )
    try:
        for key in options or {}:
            _make_room(cfg, key.split(".")[:-1])
        cfg.merge_from_dict(options or {})
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{cfg.filename}: an option of --cfg-options does not fit ({reason})") from None
    return cfg


def _make_room(cfg: Config, parents: list[str]) -> None:
    """Turn every None on the way to a dotted key into an empty dict: ``init_cfg=None`` may become one again."""
    place = cfg._cfg_dict
    for name in parents:
        if not isinstance(place, dict) or name not in place:
            return
        if place[name] is None:
            place[name] = {}
        place = place[name]


def step_arguments(split: Config, step_type: str) -> dict:
    """Return the arguments of the first pipeline step of ``step_type``, with the split's ``step_args`` over them.

    Args:
        split: ``cfg.data.train``, ``val`` or ``test``.
        step_type: type of the step, also inside ``MultiScaleFlipAug``.

    Raises:
        KeyError: the pipeline has no such step.
    """
    steps = list(split.pipeline)
    while steps:
        step = steps.pop(0)
        if step["type"] == step_type:
            return {**step, **split.get("step_args", {}).get(step_type, {})}
        steps = [*step.get("transforms", []), *steps]
    raise KeyError(step_type)
