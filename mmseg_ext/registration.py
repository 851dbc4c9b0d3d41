"""Registers the networks, losses, data sets, pipeline steps, hooks and runners of this package with MMSegmentation.

It follows the import of MMSegmentation by itself. The rooms that `engine` builds upon import it first, so that any of
them may be the first that somebody imports.
"""

import logging
from importlib.metadata import PackageNotFoundError, version

from .errors import MissingExtraError

_NEEDED = {"mmcv": "1.7.", "mmsegmentation": "0.30."}
_OTHER_NAMES = {"mmcv": "mmcv-full"}  # the same package with its operators compiled


def _check_versions() -> None:
    for package, prefix in _NEEDED.items():
        found = _installed(package) or _installed(_OTHER_NAMES.get(package, package))
        if found is not None and not found.startswith(prefix):
            raise MissingExtraError(
                f"mmseg_ext needs {package} {prefix}x, found: {found}. "
                "Install the versions of requirements.txt: run 'make install' in the repository."
            )


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


_check_versions()  # what is not installed is said by the import that fails

from mmcv.utils import get_logger  # noqa: E402

from . import mmcv_ops  # noqa: E402  before anything of MMSegmentation

get_logger("mmcv", log_level=logging.WARNING)  # or it tells of every parameter how it was initialised

from . import datasets, engine, models  # noqa: E402, F401  they register themselves

mmcv_ops.replace_focal_loss()
