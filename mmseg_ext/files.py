"""Files that appear complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ConfigError

_MIM = Path(__file__).with_name(".mim")
# the folder of myconfigs/ and tools/: the repository, or in an installed wheel .mim, as MMSegmentation has it
DISTRIBUTION_ROOT = _MIM if _MIM.is_dir() else Path(__file__).resolve().parents[1]


@contextmanager
def complete_file(path: str, remedy: str = "choose another place") -> Iterator[str]:
    """Yield a name to write to; once that file is on the disk it becomes ``path``. Folders are made.

    Args:
        path: the file; one process at a time.
        remedy: what the user can do where it cannot be written.

    Raises:
        ConfigError: it cannot be written; what was at ``path`` is intact.
    """
    partial = f"{path}.partial"
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror or error}); {remedy}") from None
