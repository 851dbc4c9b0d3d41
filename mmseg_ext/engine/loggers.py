"""The packages behind mmcv's logger hooks: there before a training begins, told how it ended."""

from __future__ import annotations

import importlib.util
import sys

from mmcv import Config

from ..errors import MissingExtraError

_PACKAGES = {
    "WandbLoggerHook": "wandb",
    "MlflowLoggerHook": "mlflow",
    "NeptuneLoggerHook": "neptune",
    "DvcliveLoggerHook": "dvclive",
    "ClearMLLoggerHook": "clearml",
    "SegmindLoggerHook": "segmind",
    "PaviLoggerHook": "pavi",
}


def check_loggers(cfg: Config) -> None:
    """Refuse a logger whose package is missing, in every process and before anything is written.

    Raises:
        MissingExtraError: names hook and package.
    """
    for hook in (cfg.get("log_config") or {}).get("hooks", []):
        package = _PACKAGES.get(hook["type"])
        if package is not None and importlib.util.find_spec(package) is None:
            raise MissingExtraError(
                f"{hook['type']} in log_config.hooks needs {package}, which is not installed; pip install {package}, "
                "or take the hook out"
            )


def end_trackers(finished: bool) -> None:
    """Tell Weights & Biases and MLflow, where they were used, that the run ended; their own way at exit may not run."""
    wandb, mlflow = sys.modules.get("wandb"), sys.modules.get("mlflow")
    if getattr(wandb, "run", None) is not None:
        wandb.finish(exit_code=0 if finished else 1)  # type: ignore[union-attr]
    if mlflow is not None and mlflow.active_run() is not None:
        mlflow.end_run("FINISHED" if finished else "KILLED")
