"""Options that several command lines share: numbers, overrides of a config, those of MMSegmentation 0.30's own tools.

The last stand in people's scripts: each works, or names what replaces it. Imports no PyTorch.
"""

from __future__ import annotations

import os
from argparse import SUPPRESS, Action, ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import ConfigError

_LAUNCHERS = {
    "slurm": "start it with tools/slurm_train.sh or tools/slurm_test.sh",
    "mpi": "start it with tools/dist_train.sh or tools/dist_test.sh, or with torchrun",
}
TRAINING = {"--diff_seed": "leave it out: random numbers follow from the seed and the image, in any process"}
TESTING = {
    "--show": "no window opens here; give --show-dir DIR for pictures beside the truth",
    "--format-only": "give --mask-dir DIR, without --eval, for label maps as PNG",
    "--eval-options": "leave it out; --report DIR has the scores of every image, --mask-dir DIR the label maps",
    "--work-dir": "give --out FILE.json for the metrics",
}
_NO_EFFECT = {"--local_rank": 1, "--local-rank": 1, "--gpu-collect": 0, "--tmpdir": 1}  # and their number of values


def add_numbers(
    parser: ArgumentParser, option: str, example: str, text: str, kind: type[int] | type[float] = int
) -> None:
    """Add an option that takes numbers of a ``kind`` with commas, such as ``example``, with the help ``text``."""

    def numbers(text: str) -> tuple[float, ...]:
        try:
            return tuple(map(kind, text.split(",")))
        except ValueError:
            what = "whole numbers" if kind is int else "numbers"
            raise ConfigError(f"{option} {text}: give {what} with commas, such as {example}") from None

    parser.add_argument(option, type=numbers, metavar=example, help=text)


class DottedOptions(Action):
    """Settings ``key.sub=value ...``, as mmcv reads them; given twice, both count."""

    def __call__(self, parser: Any, namespace: Namespace, values: Any, option: str | None = None) -> None:
        """Add the settings to those of before."""
        from mmcv import DictAction

        before = getattr(namespace, self.dest) or {}
        try:
            DictAction(self.option_strings, self.dest, nargs="+")(parser, namespace, values, option)
            setattr(namespace, self.dest, {**before, **getattr(namespace, self.dest)})
        except (RecursionError, ValueError, AssertionError):
            raise ConfigError(
                f"{option} {' '.join(map(str, values))[:80]}: cannot be read; give settings one by one, "
                "key.sub=value, lists as [a,b], and lists of dicts in a config file"
            ) from None


def add_config_options(parser: ArgumentParser) -> None:
    """Add MMSegmentation's ``--cfg-options key.sub=value ...`` to a tool, and its older name ``--options``."""
    text = "config overrides, key.sub=value ..."
    parser.add_argument("--cfg-options", nargs="+", action=DottedOptions, help=text)
    parser.add_argument("--options", dest="cfg_options", nargs="+", action=DottedOptions, help=SUPPRESS)


def add_mmsegmentation_options(parser: ArgumentParser, replaced: Mapping[str, str]) -> None:
    """Add, without a word in the help, the options that MMSegmentation's tool of the same name has and ours has not.

    Args:
        parser: has ``--cfg-options`` and ``--gpu-id`` already.
        replaced: the remedy by option, for those that are refused: `TRAINING` or `TESTING`.
    """
    hidden: dict[str, Any] = dict(help=SUPPRESS, dest=SUPPRESS)
    parser.add_argument("--gpus", nargs=1, type=int, action=_Gpus, **hidden)
    parser.add_argument("--gpu-ids", nargs="+", type=int, action=_Gpus, **hidden)
    parser.add_argument("--launcher", action=_Launcher, **hidden)
    for option, remedy in replaced.items():
        parser.add_argument(option, nargs="*", action=_Refused, const=remedy, **hidden)
    for option, values in _NO_EFFECT.items():
        parser.add_argument(option, nargs=values, action=_Ignored, **hidden)


class _Ignored(Action):
    """Takes what has no effect here: torchrun's variables tell the rank, and results are always collected."""

    def __call__(self, *_: object) -> None:
        pass


class _Refused(Action):
    def __call__(self, parser: object, namespace: object, values: object, option: str | None = None) -> None:
        raise ConfigError(f"{option}: {self.const}")


class _Gpus(Action):
    """One GPU is ``--gpu-id``; several are the launcher's business."""

    def __call__(
        self, parser: object, namespace: Namespace, values: Sequence[int] | Any, option: str | None = None
    ) -> None:
        count = values[0] if option == "--gpus" else len(values)
        if count != 1:
            which = "" if option == "--gpus" else f"CUDA_VISIBLE_DEVICES={','.join(map(str, values))} "
            raise ConfigError(
                f"{option} {' '.join(map(str, values))}: this is one process, which takes one GPU; for several: "
                f"{which}tools/dist_train.sh CONFIG {count} (dist_test.sh CONFIG CHECKPOINT {count})"
            )
        if option == "--gpu-ids":
            namespace.gpu_id = values[0]


class _Launcher(Action):
    """``pytorch`` is what torchrun's variables say anyway; the others have scripts of their own."""

    def __call__(self, parser: object, namespace: object, values: Any, option: str | None = None) -> None:
        started = "RANK" in os.environ
        if values == "none" or (values == "pytorch" and started):
            return
        remedy = _LAUNCHERS.get(values, f"choose none, pytorch, {' or '.join(_LAUNCHERS)}")
        if values == "pytorch":
            remedy = "no launcher started this process; use tools/dist_train.sh CONFIG GPUS, or torchrun"
        raise ConfigError(f"--launcher {values}: {remedy}")
