"""Registers the networks, losses, data sets, pipeline steps, hooks and runners of this package with MMSegmentation.

It follows the import of MMSegmentation by itself. The rooms that `engine` builds upon import it first, so that any of
them may be the first that somebody imports.
"""

import logging

from .errors import MissingExtraError, installed_version, require

_NEEDED = {"mmcv": "1.7.", "mmsegmentation": "0.30."}
_OTHER_NAMES = {"mmcv": "mmcv-full"}  # the same package with its operators compiled


def _check_versions() -> None:
    for package, prefix in _NEEDED.items():
        found = installed_version(package) or installed_version(_OTHER_NAMES.get(package, package)) or "not installed"
        if not found.startswith(prefix):
            raise MissingExtraError(
                f"mmseg_ext needs {package} {prefix}x, found: {found}. "
                "Install the versions of requirements.txt: run 'make install' in the repository."
            )


require(("torch", "mmcv", "mmseg"), "train", "training, and all that reads its checkpoints,")
_check_versions()

from mmcv.utils import get_logger  # noqa: E402

from . import mmcv_ops  # noqa: E402  before anything of MMSegmentation

get_logger("mmcv", log_level=logging.WARNING)  # or it tells of every parameter how it was initialised

from . import datasets, engine, models  # noqa: E402, F401  they register themselves

mmcv_ops.replace_focal_loss()
