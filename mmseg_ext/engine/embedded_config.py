"""The config that a checkpoint carries as Python text, read without executing it."""

from __future__ import annotations

import ast
import math
from typing import Any

from mmcv import Config

from ..errors import CheckpointError
from .checkpoint import read_checkpoint
from .config import load_config, merge_options
from .fitting_config import fitting_config, refuse_encoder
from .published_names import with_our_names

_NUMBERS = {"inf": math.inf, "nan": math.nan}


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
    raise ValueError(f"line {node.lineno}: '{ast.unparse(node)[:60]}' is no literal")


def read_config_text(text: str) -> dict[str, Any]:
    """Return the assignments of a config's text; nothing of it is executed.

    Literals, ``dict(...)`` of them and names assigned before are understood.

    Raises:
        ValueError: the text is no Python, or assigns something that would have to be executed.
    """
    try:
        module = ast.parse(text)
        names: dict[str, Any] = {}
        for statement in module.body:
            if isinstance(statement, ast.Assign) and all(isinstance(target, ast.Name) for target in statement.targets):
                value = _value(statement.value, names)
                names.update({target.id: value for target in statement.targets if isinstance(target, ast.Name)})
            elif not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                raise ValueError(f"line {statement.lineno}: '{ast.unparse(statement)[:60]}' is no assignment")
    except (SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
    return names


def config_of_checkpoint(path: str, options: dict | None = None) -> Config:
    """Return the config that the checkpoint at ``path`` carries, with ``options`` (dotted keys) merged over it.

    Raises:
        CheckpointError: the file cannot be read, or carries no config or one that would have to be executed.
        ConfigError: an option does not fit.
    """
    checkpoint = read_checkpoint(path)
    text = (checkpoint.get("meta") or {}).get("config")
    if not isinstance(text, str):
        refuse_encoder(checkpoint["state_dict"], path)
        config = fitting_config(checkpoint["state_dict"])
        hint = f"one with the model of {config}, which the weights fit" if config else "the one it was trained with"
        raise CheckpointError(f"{path}: carries no config; give {hint}")
    try:
        content = read_config_text(text)
        if not {"model", "data"} <= content.keys():
            raise ValueError("it has no 'model' or no 'data'")
        content["model"] = with_our_names(content["model"])
        cfg = Config(content, cfg_text=text, filename=path)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: the config inside cannot be used ({error}); give one") from None
    return merge_options(cfg, options)


def config_for(config: str | None, checkpoint: str, options: dict | None = None) -> Config:
    """Return the config at ``config``, or where that is None the one inside ``checkpoint``.

    Raises:
        UserError: see `load_config` and `config_of_checkpoint`.
    """
    return load_config(config, options) if config else config_of_checkpoint(checkpoint, options)
