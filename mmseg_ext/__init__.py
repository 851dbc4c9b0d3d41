"""Road extraction for open-pit mines; registers everything with MMSegmentation 0.30 as soon as that is imported.

Who only maps needs neither PyTorch nor MMSegmentation: importing this package imports neither.
"""

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .errors import stop_quietly_while_importing
from .files import DISTRIBUTION_ROOT

__version__ = "0.1.0"

_AFTER = {"mmcv": "mmseg_ext.mmcv_ops", "mmseg": "mmseg_ext.registration"}  # what follows the import of what


class _Follower(MetaPathFinder):
    """Lets the modules of `_AFTER` follow those that they add to."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _AFTER:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        loader: Any = spec and spec.loader
        if loader is not None:
            execute = loader.exec_module

            def execute_both(module: ModuleType) -> None:
                execute(module)
                importlib.import_module(_AFTER[name])

            loader.exec_module = execute_both
        return spec


def _quiet_imports() -> None:
    """Keep out of every command's output what nobody can act on."""
    warnings.filterwarnings("ignore", message="On January 1, 2023, MMCV will release")
    warnings.filterwarnings("ignore", message="For binary segmentation, we suggest using")
    warnings.filterwarnings("ignore", message="Default ``avg_non_ignore`` is False")
    warnings.filterwarnings("ignore", message="`build_loss` would be deprecated soon")
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


def _keep_to_ourselves() -> None:
    """Keep ONNX Runtime, OpenVINO and NNCF from reporting to their makers, which they do unless told otherwise.

    ONNX Runtime sends names and hashes of networks. The other two report through a package that they can do without.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # importing it is an ImportError


stop_quietly_while_importing(DISTRIBUTION_ROOT / "tools")
_keep_to_ourselves()
_quiet_imports()
sys.meta_path.insert(0, _Follower())
for _leader, _follower in _AFTER.items():
    if _leader in sys.modules:
        importlib.import_module(_follower)
