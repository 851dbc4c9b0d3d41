"""Configs: published type names, files and options, the config inside a checkpoint, and the one that weights fit."""

from __future__ import annotations

import ast
import contextlib
import copy
import functools
import json
import math
import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmcv import Config
from mmseg.models import build_segmentor
from torch import Size, Tensor, nn

from ..datasets.pipelines import nested_steps, with_step_args
from ..datasets.several import part_settings, refuse_several
from ..errors import CheckpointError, ConfigError
from ..files import DISTRIBUTION_ROOT
from ..imagery.voc import SPLITS
from .checkpoint import read_checkpoint

# type name of a published config -> what builds the same network here
_PUBLISHED_TYPES: dict[str, dict[str, Any]] = {
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

CONFIG_ROOT = DISTRIBUTION_ROOT / "myconfigs"

# what a config may set and the base configs do not
_FURTHER_SETTINGS = (
    *("precision", "channels_last", "compile", "lr_of_batch", "non_finite", "sample_predictions", "custom_hooks"),
    *("load_from", "resume_from", "work_dir", "early_stopping", "min_loaded_share", "find_unused_parameters"),
    *("cudnn_benchmark", "log_level", "test_rotations", "seed", "dist_params", "workflow", "log_config"),
    *("evaluation", "optimizer_config"),
)
_NUMBERS = {"inf": math.inf, "nan": math.nan}


def with_our_names(model: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a config's ``model`` in which published type names and arguments are ours."""
    model = copy.deepcopy(model)
    for part in ("backbone", "decode_head"):
        if isinstance(model.get(part), dict):
            model[part].update(copy.deepcopy(_PUBLISHED_TYPES.get(model[part].get("type"), {})))
    head = model.get("decode_head")
    if isinstance(head, dict) and head.get("type") == "LightHamHead" and "ham_kwargs" in head:
        theirs = head.pop("ham_kwargs") or {}
        head["ham_cfg"] = {ours: theirs[name] for name, ours in _HAM_ARGUMENTS.items() if name in theirs}
    return model


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


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def config_mistakes(cfg: Config) -> Iterator[None]:
    """Turn what building from ``cfg`` raises for an unknown name or a wrong value into one line.

    Raises:
        ConfigError: names the config and what the builder said.
    """
    try:
        yield
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError) as error:
        raise ConfigError(f"{cfg.filename}: a setting does not fit: {_in_one_line(error)}") from error


def found_by_name(name: str) -> str | None:
    """Return the path of the published config that is called ``name``, with or without .py, in any letter case."""
    wanted = name.casefold().removesuffix(".py")
    for leaf in leaf_configs():
        if Path(leaf).stem.casefold() == wanted:
            return os.path.relpath(CONFIG_ROOT.parent / leaf)
    return None


def load_config(path: str, options: dict | None = None) -> Config:
    """Return the config at ``path`` with ``options`` (dotted keys) merged over it.

    Args:
        path: a file, or the name of a leaf below ``myconfigs/``, such as ``dsegnext.tiny.1024x1024.OPM.20k``.
        options: dotted keys to values.

    Raises:
        ConfigError: the file is missing (the closest existing one is offered), is no valid config, or an
            option does not fit.
    """
    if not os.path.isfile(path):
        path = found_by_name(path) or path
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
        raise ConfigError(f"{path}: cannot be read as a config ({_in_one_line(error)})") from None
    if "model" not in cfg or "data" not in cfg:
        raise ConfigError(f"{path}: has no 'model' or no 'data'; give one of the leaf configs below myconfigs/")
    cfg.model = with_our_names(cfg.model)
    return _with_options(cfg, options or {})


def _with_options(cfg: Config, options: dict) -> Config:
    """Return ``cfg`` with ``options`` (dotted keys) merged over it.

    Raises:
        ConfigError: an option does not fit, or there is no such setting.
    """
    known = [*cfg.keys(), *_FURTHER_SETTINGS]
    for key, value in options.items():
        name = key.split(".")[0]
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
        for key in options:
            _make_room(cfg, key.split(".")[:-1])
        cfg.merge_from_dict(options)
    except Exception as error:
        raise ConfigError(f"{cfg.filename}: an option of --cfg-options does not fit ({_in_one_line(error)})") from None
    for split in SPLITS:
        if cfg.data.get(split) is not None:
            fill_in_step_args(cfg.data[split])
            if split != "train":
                refuse_several(cfg.data[split], split)
    return cfg


def fill_in_step_args(split: Any) -> None:
    """Put the ``step_args`` of a split into its pipeline, which is then right for MMSegmentation's own code too."""
    for part in split if isinstance(split, (list, tuple)) else [split.get("dataset"), *split.get("datasets", [])]:
        if part is not None:
            fill_in_step_args(part)
    if isinstance(split, dict) and "pipeline" in split:
        split["pipeline"] = with_step_args(split["pipeline"], split.pop("step_args", None) or {})


def _make_room(cfg: Config, parents: list[str]) -> None:
    """Turn every None on the way to a dotted key into an empty dict: ``init_cfg=None`` may become one again."""
    place = cfg._cfg_dict
    for name in parents:
        if not isinstance(place, dict) or name not in place:
            return
        if place[name] is None:
            place[name] = {}
        place = place[name]


def batch_settings(cfg: Config) -> dict:
    """Return how training batches are loaded: ``cfg.data`` with its ``train_dataloader`` over it."""
    return {**cfg.data, **cfg.data.get("train_dataloader", {})}


def step_arguments(split: Config, step_type: str) -> dict:
    """Return the arguments of the first pipeline step of ``step_type``.

    Args:
        split: ``cfg.data.train``, ``val`` or ``test``; its ``step_args`` are filled into the pipeline. Of several data
            sets the first counts.
        step_type: type of the step, also inside ``MultiScaleFlipAug``.

    Raises:
        KeyError: the pipeline has no such step.
    """
    fill_in_step_args(split)
    for step in nested_steps(next(part_settings(split))["pipeline"]):
        if step["type"] == step_type:
            return step
    raise KeyError(step_type)


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    """Return the value of a literal, of ``dict(...)`` or of a name that was assigned before.

    Raises:
        ValueError: anything else, which would have to be executed.
    """
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        values = [_value(item, names) for item in node.elts]
        return values if isinstance(node, ast.List) else {ast.Tuple: tuple, ast.Set: set}[type(node)](values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        number = _value(node.operand, names)
        if isinstance(number, (int, float)):
            return -number if isinstance(node.op, ast.USub) else number
    if isinstance(node, ast.Dict):
        merged: dict = {}
        for key, item in zip(node.keys, node.values, strict=True):
            merged |= _value(item, names) if key is None else {_value(key, names): _value(item, names)}
        return merged
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        merged = {}
        for argument in node.args:
            merged |= _value(argument, names)
        for keyword in node.keywords:
            item = _value(keyword.value, names)
            merged |= item if keyword.arg is None else {keyword.arg: item}
        return merged
    if isinstance(node, ast.Name) and node.id in names | _NUMBERS:
        return (_NUMBERS | names)[node.id]
    raise ValueError(f"line {node.lineno}: '{ast.unparse(node)[:60]}' is not a literal")


def read_config_text(text: str) -> dict[str, Any]:
    """Return the assignments of a config's text; nothing of it is executed.

    Literals, ``dict(...)`` of them and names assigned before are understood.

    Raises:
        ValueError: the text is no Python, or assigns something that would have to be executed.
    """
    try:
        names: dict[str, Any] = {}
        for statement in ast.parse(text).body:
            if isinstance(statement, ast.Assign) and all(isinstance(target, ast.Name) for target in statement.targets):
                value = _value(statement.value, names)
                names.update({target.id: value for target in statement.targets if isinstance(target, ast.Name)})
            elif not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                raise ValueError(f"line {statement.lineno}: '{ast.unparse(statement)[:60]}' is not an assignment")
    except (SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise ValueError(_in_one_line(error)) from None
    return names


def config_of_checkpoint(path: str, options: dict | None = None) -> Config:
    """Return the config inside the checkpoint at ``path``, with ``options`` (dotted keys) merged over it.

    Raises:
        CheckpointError: the file cannot be read, or contains no config or one that would have to be executed.
        ConfigError: an option does not fit.
    """
    checkpoint = read_checkpoint(path)
    text = (checkpoint.get("meta") or {}).get("config")
    if not isinstance(text, str):
        refuse_encoder(checkpoint["state_dict"], path)
        config = fitting_config(checkpoint["state_dict"])
        hint = f"one with the model of {config}, which the weights fit" if config else "the one it was trained with"
        raise CheckpointError(f"{path}: contains no config; give {hint}")
    try:
        content = read_config_text(text)
        if not {"model", "data"} <= content.keys():
            raise ValueError("it has no 'model' or no 'data'")
        content["model"] = with_our_names(content["model"])
        cfg = Config(content, cfg_text=text, filename=path)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: the config inside cannot be used ({error}); give one") from None
    return _with_options(cfg, options or {})


def config_for(config: str | None, checkpoint: str, options: dict | None = None) -> Config:
    """Return the config at ``config``, or where that is None the one inside ``checkpoint``.

    Raises:
        UserError: see `load_config` and `config_of_checkpoint`.
    """
    return load_config(config, options) if config else config_of_checkpoint(checkpoint, options)


def _plainest_first(path: str) -> tuple[bool, bool, int, str]:
    return "/ablation/" in path, ".OPM." not in path, len(path), path


@functools.cache
def _networks() -> dict[str, tuple[type[nn.Module], dict[str, Size]]]:
    """Return type of the backbone and shapes by key of every distinct network, by its plainest config."""
    found: dict[str, tuple[type[nn.Module], dict[str, Size]]] = {}
    seen = set()
    for path in sorted(leaf_configs(), key=_plainest_first):
        with contextlib.suppress(Exception):  # somebody's unfinished config must not hide what was refused
            model = load_config(str(CONFIG_ROOT.parent / path)).model
            model.backbone.init_cfg = None
            head = {key: value for key, value in model.decode_head.items() if key != "loss_decode"}
            description = json.dumps([model.backbone, head], sort_keys=True)
            if description not in seen:
                seen.add(description)
                network = build_segmentor(model)
                found[path] = type(network.backbone), {key: value.shape for key, value in network.state_dict().items()}
    return found


def fitting_config(weights: dict[str, Tensor]) -> str | None:
    """Return the path of the plainest config whose network, or encoder, has the keys and shapes of ``weights``.

    The number of classes may differ. Builds every network of ours, which takes seconds: meant for the moment when a
    checkpoint has been refused.

    Args:
        weights: a segmentation checkpoint (``backbone.*``, ``decode_head.*``) or an encoder with or without prefix.
    """
    whole = any(key.startswith("decode_head.") for key in weights)
    for path, (backbone, shapes) in _networks().items():
        theirs = {
            key if key.startswith(("backbone.", "decode_head.")) else f"backbone.{key}": v for key, v in weights.items()
        }
        if hasattr(backbone, "adapt_published_keys"):
            backbone.adapt_published_keys(theirs, "backbone.")
        own = {key: shape for key, shape in shapes.items() if whole or key.startswith("backbone.")}
        needed = [key for key in own if not key.endswith("num_batches_tracked") and ".conv_seg." not in key]
        if theirs.keys() <= own.keys() and all(key in theirs and theirs[key].shape == own[key] for key in needed):
            return path
    return None


def refuse_encoder(weights: dict[str, Tensor], path: str) -> None:
    """Refuse an encoder where a whole segmentation network is needed.

    Raises:
        CheckpointError: ``weights`` are those of an encoder of ours; the message says what an encoder is for.
    """
    if not any(key.startswith("decode_head.") for key in weights) and fitting_config(weights):
        raise CheckpointError(
            f"{path}: is an encoder, not a segmentation network; start a training from it: "
            f"--cfg-options model.backbone.init_cfg.checkpoint={path}"
        )
