"""Files by URL and SHA-256: fetched once, resumed where a connection broke, refused when they are others."""

from __future__ import annotations

import http.client
import logging
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote, urldefrag, urlsplit

from filelock import FileLock
from tqdm import tqdm

from .errors import CheckpointError
from .files import CACHE_VARIABLE, cache_folder, remove, sha256_of, writing

MAX_BYTES = 4 * 2**30
_WAITS_S = (1.0, 2.0, 4.0, 8.0)  # before each further try that brings no new bytes
_SILENCE_S = 30.0  # after which a server counts as gone
_CHUNK = 2**18
_BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers that may be others in a moment
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_REMEDY = f"name another folder in {CACHE_VARIABLE}"
logger = logging.getLogger(__name__)


def is_url(name: str) -> bool:
    """Return whether ``name`` is the address of a file on a web server."""
    return re.match(r"https?://", name, re.IGNORECASE) is not None


def states_hash(name: str) -> bool:
    """Return whether ``name`` is a URL that says which file it means, as `local_file` wants it."""
    return is_url(name) and urldefrag(name).fragment.lower().startswith("sha256=")


def local_file(name: str) -> str:
    """Return the path of the file that ``https://HOST/FILE#sha256=HEX`` means; any other name as it is.

    The file is fetched at the first time and kept in the cache folder, by its hash. What a cut or a killed process left
    is resumed where the server can. ``http://`` is for servers on this machine.

    Raises:
        CheckpointError: the URL states no hash, or cannot be fetched; the file is another or too large; or the cache
            folder cannot be written.
    """
    if not is_url(name):
        return name
    url, fragment = urldefrag(name)
    _check(url)
    stated = re.fullmatch(r"sha256=([0-9a-f]{64})", fragment.lower())
    if stated is None:
        raise CheckpointError(
            f"{name}: a URL must state the SHA-256 of its file: add #sha256= and the 64 digits that its publisher "
            "states, or that sha256sum prints for a copy that you trust"
        )
    folder = cache_folder() / "downloads" / stated[1]
    file = re.sub(r"[^\w.+-]", "_", unquote(urlsplit(url).path).rpartition("/")[2]).lstrip(".")[-100:] or "file"
    download = _Download(url, stated[1], folder / file)
    if not download.is_there():
        with writing(str(folder), _REMEDY, CheckpointError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = FileLock(folder / ".lock").acquire()
        with lock:
            if not download.is_there():  # no other process was first
                download.fetch()
    return str(download.target)


def _check(url: str, came_from: str = "") -> None:
    """Refuse an address that is not to be read, be it given or that of a redirection from ``came_from``."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        if not host:
            raise ValueError("it names no server")
    except ValueError as error:
        raise CheckpointError(f"{url}: is no address ({error}); check it") from None
    if parts.username is not None:
        raise CheckpointError(
            f"{parts.scheme}://{host}: addresses with a user name are not read; fetch the file yourself"
        )
    if parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK and not came_from.startswith("https")):
        return
    if came_from:
        raise CheckpointError(f"{came_from}: redirects to {url}, which is not fetched: only https is safe")
    raise CheckpointError(f"{url}: only https is read; http is for servers on this machine")


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Refuse what a file must not be taken from, such as ``file://``."""
        _check(newurl, req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Download:
    """A file on its way from ``url`` to ``target``.

    What has arrived lies in a partial file, and beside it what the server calls this version of the file.
    """

    def __init__(self, url: str, sha256: str, target: Path) -> None:
        self.url, self.sha256, self.target = url, sha256, target
        self.partial = target.with_name(f".{target.name}.partial")
        self.version = target.with_name(f".{target.name}.version")
        # this machine's own servers are not asked through a proxy
        proxies = {scheme: proxy for scheme, proxy in urllib.request.getproxies().items() if scheme == "https"}
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler(proxies), _CheckedRedirects).open

    def is_there(self) -> bool:
        """Return whether the whole file has been fetched before; a damaged one does not count."""
        return self.target.is_file() and sha256_of(self.target) == self.sha256

    def fetch(self) -> None:
        """Put the file in place, in as many tries as bring something new, and a few more."""
        most, failures = self._arrived(), 0
        if most and sha256_of(self.partial) == self.sha256:  # stopped just before it was put in place
            self._put_in_place()
            return
        while True:
            try:
                resumed = self._receive()
            except (OSError, http.client.HTTPException) as error:
                reason = _reason(error)
            else:
                found = sha256_of(self.partial)
                if found == self.sha256:
                    self._put_in_place()
                    return
                self._discard()
                if not resumed:
                    raise CheckpointError(
                        f"{self.url}: is another file, with SHA-256 {found}; nothing was kept: check the address and "
                        "the hash with its publisher"
                    )
                reason = "the file has changed since the download began"
            failures = 0 if self._arrived() > most else failures + 1
            most = max(most, self._arrived())
            if failures > len(_WAITS_S):
                kept = f"; {most / 1e6:.1f} MB are kept: re-run the command to resume" if self._arrived() else ""
                raise CheckpointError(f"{self.url}: cannot be fetched ({reason}){kept or '; try again later'}")
            wait_s = _WAITS_S[max(failures - 1, 0)]
            logger.warning("%s: %s; trying again in %g s", self.url, reason, wait_s)
            time.sleep(wait_s)

    def _receive(self) -> bool:
        """Fetch what is missing into the partial file; return whether there was something before.

        Raises:
            OSError, HTTPException: the connection failed; trying again may help.
            CheckpointError: it would not.
        """
        offset = self._arrived()
        request = urllib.request.Request(quote(self.url, safe="%/:=&?~+!$,;'@()*[]"))
        request.add_header("User-Agent", "mmseg_ext")
        if offset:
            request.add_header("Range", f"bytes={offset}-")
            if self.version.is_file():  # another version is sent whole
                request.add_header("If-Range", self.version.read_text(encoding="latin-1"))
        try:
            answer = self._open(request, timeout=_SILENCE_S)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # the file is shorter than what has arrived
                self._discard()
            elif error.code not in _BUSY:
                raise CheckpointError(
                    f"{self.url}: cannot be fetched ({error.code} {error.reason}); check the address"
                ) from None
            raise
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise CheckpointError(f"{self.url}: cannot be fetched ({error.reason.verify_message})") from None
            raise
        with answer:
            if answer.status == 206 and not answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
                self._discard()
                raise http.client.HTTPException("the server sent another part than it was asked for")
            if answer.status != 206:
                offset = 0
            length = answer.headers.get("Content-Length", "")
            total = offset + int(length) if length.isdigit() else None
            self._refuse_size(total or 0)
            if not offset:
                self._remember_version(answer.headers)
            logger.info("%s: %s", self.url, f"resuming at {offset / 1e6:.1f} MB" if offset else "fetching")
            size = offset
            with writing(str(self.partial), _REMEDY, CheckpointError):
                file = open(self.partial, "ab" if offset else "wb", buffering=0)
            with file, self._progress(offset, total) as shown:
                while chunk := answer.read1(_CHUNK):
                    size += len(chunk)
                    self._refuse_size(size)
                    with writing(str(self.partial), _REMEDY, CheckpointError):
                        rest = memoryview(chunk)
                        while rest:  # all of it, or an error
                            rest = rest[file.write(rest) :]
                    shown.update(len(chunk))
        if total is not None and size < total:
            raise http.client.HTTPException(f"the connection broke after {size / 1e6:.1f} of {total / 1e6:.1f} MB")
        return offset > 0

    def _arrived(self) -> int:
        """Return the size of the partial file in bytes."""
        return self.partial.stat().st_size if self.partial.is_file() else 0

    def _progress(self, offset: int, total: int | None) -> tqdm:
        name = self.target.name
        return tqdm(total=total, initial=offset, desc=name, unit="B", unit_scale=True, disable=None, leave=False)

    def _refuse_size(self, size: int) -> None:
        if size > MAX_BYTES:
            self._discard()
            raise CheckpointError(f"{self.url}: is larger than {MAX_BYTES / 2**30:g} GiB; fetch it yourself")

    def _remember_version(self, headers: Message) -> None:
        """Keep the name that the server gives to this version of the file; only a strong one is good for resuming."""
        tag = headers.get("ETag", "")
        name = tag if tag.startswith('"') else headers.get("Last-Modified", "")
        remove(str(self.version))
        if name:
            with writing(str(self.version), _REMEDY, CheckpointError):
                self.version.write_text(name, encoding="latin-1")

    def _put_in_place(self) -> None:
        with writing(str(self.target), _REMEDY, CheckpointError):
            with open(self.partial, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(self.partial, self.target)
        self._discard()

    def _discard(self) -> None:
        for path in (self.partial, self.version):
            remove(str(path))


def _reason(error: OSError | http.client.HTTPException) -> str:
    """Return in a few words why a file did not arrive."""
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.code} {error.reason}"
    return str(getattr(error, "reason", None) or error) or type(error).__name__
