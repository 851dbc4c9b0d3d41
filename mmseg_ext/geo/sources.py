"""Where rasters and vectors are: files on a disk, and rasters elsewhere that GDAL reads over the network.

A raster elsewhere is named ``https://HOST/a.tif``, ``s3://BUCKET/a.tif``, ``gs://``, ``az://``, or as GDAL names it,
``/vsi...``. Addresses may carry secrets: a password, a signature after ``?``. `public_name` takes them off and
remembers them, so that names, messages and records are free of them; `opened_as` puts them back for GDAL alone.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.etree import ElementTree

from ..errors import DataError, LazyModule

rasterio = LazyModule("rasterio", None, "reading rasters")
_BESIDE = {".shp": (".dbf", ".shx", ".prj", ".cpg")}  # in place of the suffix
_BEHIND = (".msk", "-wal")  # after the suffix: a mask of valid pixels, what SQLite has not yet put into its file
_HEAD = 4096
_NO_FILE = re.compile(r"/vsi|\w{2,}:|<")  # archives, networks, parts of files, sources written inside
_SCHEMES = {
    "http": "/vsicurl/http://",
    "https": "/vsicurl/https://",
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
}
_NAMED = re.compile(rf"({'|'.join(_SCHEMES)})://", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^/?#]*@")
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or AWS_NO_SIGN_REQUEST=YES for public ones",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or GS_NO_SIGN_REQUEST=YES for public ones",
    "az": "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_ACCESS_KEY or _SAS_TOKEN",
    "curl": "GDAL_HTTP_USERPWD or GDAL_HTTP_BEARER; a signed address may have expired",
}
_FORBIDDEN = r"(?i)code: 40[013]|denied|forbidden|access key|signature|expired|invalid|not defined|missing azure"
_ABSENT = r"(?i)response code: 404|no such|does not exist"
_NO_ANSWER = r"CURL error: (.+)|(HTTP response code: \d+)"
_NO_PARTS = "Range downloading not supported"
_SETTINGS = {
    "GDAL_HTTP_MAX_RETRY": "5",  # after the answers 429, 500 and 502 to 504; GDAL's own is not to try again
    "GDAL_HTTP_RETRY_DELAY": "0.5",  # seconds, which grow; GDAL's own are 30
    "GDAL_HTTP_CONNECTTIMEOUT": "15",  # seconds; curl's own are 300
    "GDAL_HTTP_LOW_SPEED_TIME": "30",  # seconds below the limit after which a server counts as gone; else never
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",  # bytes per second
}
_WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # before each further try to read what a broken connection did not bring
_addresses: dict[str, str] = {}  # by their public names; only those that have secrets
_result_names: dict[str, str] = {}  # by public names; only where the results are not named as the file is
logger = logging.getLogger(__name__)


def is_remote(name: str) -> bool:
    """Return whether ``name`` is no file on a disk but what GDAL reads in another way."""
    return name.startswith("/vsi") or _NAMED.match(name) is not None


def public_name(name: str, result: str | None = None) -> str:
    """Return ``name`` without user, password and what follows ``?``; the name of a file as it is.

    Args:
        name: a path or an address.
        result: what to call its results; None: as its file.
    """
    if not is_remote(name):
        public = name
    elif name.startswith("/vsicurl?"):
        inner = parse_qs(name.partition("?")[2]).get("url", [""])[0]
        public = f"/vsicurl/{_LOGIN.sub('', inner).partition('?')[0]}"
    else:
        public = _LOGIN.sub("", name).partition("?")[0]
    if public != name:
        _addresses[public] = name
    if result is not None:
        _result_names[public] = re.sub(r"[^\w.+-]", "_", result)
    return public


def result_name(name: str) -> str:
    """Return what to call the results of the raster ``name``: its file without the suffix, or what was said of it."""
    public = public_name(name)
    if public in _result_names:
        return _result_names[public]
    file = os.path.splitext(os.path.basename(public))[0]
    return re.sub(r"[^\w.+-]", "_", unquote(file)) if is_remote(name) else file


def opened_as(name: str) -> str:
    """Return what GDAL opens for the raster ``name``: an absolute path, or an address, with secrets for GDAL alone."""
    if not is_remote(name):
        return os.path.abspath(name)
    address = _addresses.get(name, name)
    found = _NAMED.match(address)
    return _SCHEMES[found[1].lower()] + address[found.end() :] if found else address


def gdal_env(name: str, **options: str) -> Any:
    """Return the context with GDAL's ``options`` in which ``name`` is opened and read; the environment comes first."""
    if is_remote(name):
        # Nothing is looked for beside it: that would list whole buckets, and with a signature behind each name a server
        # may answer with the raster itself.
        settings = {**_SETTINGS, "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
        options |= {option: value for option, value in settings.items() if option not in os.environ}
    # GDAL finds credentials by itself; rasterio would ask boto3, where that is installed, which takes long each time
    return rasterio.Env(rasterio.session.DummySession(), **options)


def waits_s(name: str) -> tuple[float, ...]:
    """Return the seconds to wait before each further try to read ``name``; none for a file."""
    return _WAITS_S if is_remote(name) else ()


def forget(name: str) -> None:
    """Let GDAL drop what it keeps of ``name``: after a broken connection that may be half of a piece, for good."""
    with suppress(AttributeError):
        _gdal().VSICurlPartialClearCache(opened_as(name).encode())
        _gdal().CPLErrorReset()  # else rasterio would raise the old error at the next call


def refusal(name: str, said: str) -> DataError | None:
    """Return the error of a raster elsewhere of which GDAL ``said`` why it cannot be opened.

    None where that tells nothing: it is no raster, or the connection broke.
    """
    address = opened_as(name)
    said = said.replace(address, "").replace(os.path.basename(address), "")
    handler = re.match(r"/vsi(s3|gs|az)", address)
    if _NO_PARTS in said:
        text = "its server sends no parts of files; fetch the file and give its path"
    elif re.search(_FORBIDDEN, said):
        text = f"access is denied; GDAL takes credentials from {_CREDENTIALS[handler[1] if handler else 'curl']}"
    elif re.search(_ABSENT, said):
        text = "is not there; check the address"
    elif found := re.search(_NO_ANSWER, said):
        text = f"its server does not answer ({found[1] or found[2]}); check the address, or try again later"
    else:
        return None
    return DataError(f"{name}: {text}")


def fingerprint(name: str) -> list[Any]:
    """Return what changes when the raster or file ``name`` does; no secrets, and the same when they are renewed.

    Size and time of a file; of a raster elsewhere the length, the tag and the time that its server states.

    Raises:
        OSError: there is no such file.
    """
    if not is_remote(name):
        status = os.stat(name)
        return [os.path.abspath(name), status.st_size, status.st_mtime_ns]
    headers = _headers(opened_as(name))
    length = headers.get("content-range", "").rpartition("/")[2] or headers.get("content-length")
    stated = [length, headers.get("etag"), headers.get("last-modified")]
    if stated == [None] * 3:
        logger.warning("%s: does not say which version it is; give --overwrite when it has changed", public_name(name))
    return [public_name(name), *stated]


@cache
def _gdal() -> Any:
    """Return rasterio's GDAL as a C library, for what rasterio does not offer; on Windows nothing is found in it."""
    import rasterio._base

    library = ctypes.CDLL(rasterio._base.__file__)
    with suppress(AttributeError):
        library.VSIGetFileMetadata.restype = ctypes.POINTER(ctypes.c_char_p)
        library.CSLDestroy.argtypes = [ctypes.POINTER(ctypes.c_char_p)]
    return library


def _headers(address: str) -> dict[str, str]:
    """Return what a server says of a file, by lower-case names; nothing where it, or this GDAL, says nothing."""
    if not hasattr(_gdal(), "VSIGetFileMetadata"):
        return {}
    with gdal_env(address):
        lines = _gdal().VSIGetFileMetadata(address.encode(), b"HEADERS", None)
    found, index = {}, 0
    while lines and lines[index] is not None:
        field, _, value = lines[index].decode("latin-1").partition("=")
        found[field.lower()] = value.strip()
        index += 1
    if lines:
        _gdal().CSLDestroy(lines)
    return found


def source_files(path: str) -> list[str]:
    """Return the existing files that what is at ``path`` depends on, itself first.

    A virtual raster (VRT) depends on its sources, which may be virtual themselves. Overviews and statistics, which
    programs write when they show a file, are left out.

    Raises:
        DataError: a source of a virtual raster is missing.
    """
    found = [path]
    for file in found:  # grows
        stem, suffix = os.path.splitext(file)
        beside = [*(stem + end for end in _BESIDE.get(suffix.lower(), ())), *(file + end for end in _BEHIND)]
        named = list(dict.fromkeys(_named_in(file)))
        if missing := [source for source in named if not os.path.exists(source)]:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise DataError(f"{file}: its source {missing[0]} is missing{more}; restore it, or build the VRT anew")
        found += [file for file in (*filter(os.path.isfile, beside), *named) if file not in found]
    return found


def _named_in(path: str) -> Iterator[str]:
    """Yield the files that a virtual raster names; nothing for other files."""
    if not os.path.isfile(path):
        return
    with open(path, "rb") as file:
        if b"<VRTDataset" not in file.read(_HEAD):
            return
        file.seek(0)
        try:
            tree = ElementTree.parse(file)
        except ElementTree.ParseError:
            return  # GDAL will say so
    for element in tree.iter():
        name = (element.text or "").strip()
        if element.tag in ("SourceFilename", "SourceDataset") and name:
            place = os.path.join(os.path.dirname(path), name) if element.get("relativeToVRT") == "1" else name
            if os.path.exists(place) or not _NO_FILE.match(name):
                yield os.path.normpath(place)
