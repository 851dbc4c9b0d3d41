"""Files that appear complete or not at all, the folder of those that can be had again, and one line for what fails."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import ConfigError, UserError

_MIM = Path(__file__).with_name(".mim")
# the folder of myconfigs/ and tools/: the repository, or in an installed wheel .mim, as MMSegmentation has it
DISTRIBUTION_ROOT = _MIM if _MIM.is_dir() else Path(__file__).resolve().parents[1]
CACHE_VARIABLE = "MMSEG_EXT_CACHE"


def cache_folder() -> Path:
    """Return the folder of files that can be had again: MMSEG_EXT_CACHE, else ``mmseg_ext`` in the user's cache."""
    chosen = os.environ.get(CACHE_VARIABLE) or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "mmseg_ext")
    return Path(chosen).expanduser()


def visible(folder: str) -> list[str]:
    """Return the sorted names in ``folder``, without what systems hide there: ``._a.tif``, ``.DS_Store``, Thumbs.db."""
    return sorted(name for name in os.listdir(folder) if not is_hidden(name))


def is_hidden(name: str) -> bool:
    """Return whether a file of this ``name`` is the system's, not the user's."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini")


def sha256_of(*paths: str | Path) -> str:
    """Return the SHA-256 of the content of the files at ``paths``, one after another, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def writing(path: str, remedy: str = "choose another place", kind: type[UserError] = ConfigError) -> Iterator[None]:
    """Turn an `OSError` of the block, which writes ``path``, into one line of ``kind`` that ends with ``remedy``."""
    try:
        yield
    except OSError as error:
        raise kind(f"{path}: cannot be written ({error.strerror or error}); {remedy}") from None


@contextmanager
def complete_file(
    path: str, remedy: str = "choose another place", kind: type[UserError] = ConfigError
) -> Iterator[str]:
    """Yield a name to write a file or a link to; when the block ends and all is on the disk, it becomes ``path``.

    The name lies in a folder of its own beside ``path`` and keeps the suffix, so that libraries may put files of
    theirs next to it. Missing parent folders are made. One process at a time may write a path.

    Args:
        path: the file.
        remedy: what the user can do if it cannot be written.
        kind: what is raised then.

    Raises:
        UserError: it cannot be written. After any error, what was at ``path`` is intact and nothing is left beside it.
    """
    parent, name = os.path.split(path)
    scratch = os.path.join(parent, f".{name}.partial")
    fresh = os.path.join(scratch, name)
    with writing(path, remedy, kind):
        remove(scratch)  # of a process that was killed
        os.makedirs(scratch)
        try:
            yield fresh
            if not os.path.islink(fresh):
                _sync(fresh)
            os.replace(fresh, path)
            _sync(parent or ".")
        finally:
            remove(scratch)


def write_text(path: str, text: str, kind: type[UserError] = ConfigError) -> None:
    """Write ``text`` to ``path`` in UTF-8, complete or not at all, as `complete_file` does."""
    with complete_file(path, kind=kind) as partial:
        Path(partial).write_text(text, encoding="utf-8")


def _sync(path: str) -> None:
    """Wait until the file or folder is on the disk; Windows syncs no folders, and no files opened to read."""
    windows = os.name == "nt"
    if windows and os.path.isdir(path):
        return
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: str) -> None:
    """Delete the file, the link or the folder with all that is in it at ``path``, as far as that is possible."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(path)


def remove_partial_files(folder: str) -> None:
    """Delete what killed processes left of their writes into ``folder``."""
    for scratch in Path(folder).glob(".*.partial"):
        remove(str(scratch))
