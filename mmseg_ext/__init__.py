"""Road extraction for open-pit mines on MMSegmentation 0.30; importing the package registers everything."""

import logging
import os
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version

from .errors import stop_quietly_while_importing
from .files import DISTRIBUTION_ROOT

stop_quietly_while_importing(DISTRIBUTION_ROOT / "tools")

__version__ = "0.1.0"

_NEEDED = {"mmcv": "1.7.", "mmsegmentation": "0.30."}
_OTHER_NAMES = {"mmcv": "mmcv-full"}  # the same package with its operators compiled


def _check_versions() -> None:
    for package, prefix in _NEEDED.items():
        found = _installed(package) or _installed(_OTHER_NAMES.get(package, package)) or "not installed"
        if not found.startswith(prefix):
            raise ImportError(
                f"mmseg_ext needs {package} {prefix}x, found: {found}. "
                "Install the versions of requirements.txt: run 'make install' in the repository."
            )


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _quiet_imports() -> None:
    """Keep out of every command's output what nobody can act on."""
    warnings.filterwarnings("ignore", message="On January 1, 2023, MMCV will release")
    warnings.filterwarnings("ignore", message="For binary segmentation, we suggest using")
    warnings.filterwarnings("ignore", message="Default ``avg_non_ignore`` is False")
    warnings.filterwarnings("ignore", message="`build_loss` would be deprecated soon")
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from mmcv.utils import get_logger

    get_logger("mmcv", log_level=logging.WARNING)  # or it tells of every parameter how it was initialised


def _keep_to_ourselves() -> None:
    """Keep ONNX Runtime, OpenVINO and NNCF from reporting to their makers, which they do unless told otherwise.

    ONNX Runtime sends names and hashes of networks. The other two report through a package that they can do without.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # importing it is an ImportError


_keep_to_ourselves()
_check_versions()
_quiet_imports()

from .mmcv_ops import provide_mmcv_ops  # noqa: E402

provide_mmcv_ops()

from . import datasets, engine, models  # noqa: E402

__all__ = ["__version__", "datasets", "engine", "models"]
