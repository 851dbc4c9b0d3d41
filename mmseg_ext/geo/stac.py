"""The rasters that a STAC file lists: an item, a collection or catalogue with its items, or a page of a search."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from ..download import is_url
from ..errors import DataError
from .sources import is_remote, public_name

_SILENCE_S = 30.0  # after which a server counts as gone


def stac_rasters(place: str, asset: str | None = None) -> list[str]:
    """Return the rasters that the STAC file at ``place``, a path or an address, lists; results are named by item.

    Collections and catalogues are followed to their items, pages of a search to the next ones.

    Args:
        place: an item, a collection, a catalogue or a feature collection.
        asset: which asset of each item is the raster; None: the only one.

    Raises:
        DataError: unreadable, no STAC, no item, or an item without such an asset, whose others are named.
    """
    rasters = [_raster(item, at, asset) for item, at in _items(place)]
    if not rasters:
        raise DataError(f"{public_name(place)}: lists no item; give a STAC item, or a collection with some")
    return rasters


def _items(place: str) -> Iterator[tuple[dict, str]]:
    """Yield the items that a STAC file leads to, each with the place of the file that it is in."""
    waiting = [place]
    for at in waiting:  # grows
        found = _read(at)
        kind, links = found.get("type"), found.get("links", [])
        if kind not in ("Feature", "FeatureCollection", "Collection", "Catalog"):
            raise DataError(f"{public_name(at)}: is no STAC item, collection or feature collection; give one")
        followed = ("next",) if kind == "FeatureCollection" else ("item", "child")
        if kind != "Feature":
            places = [_joined(at, link["href"]) for link in links if link.get("rel") in followed]
            waiting += [there for there in dict.fromkeys(places) if there not in waiting]
        for item in [found] if kind == "Feature" else found.get("features", []):
            yield item, at


def _raster(item: dict, at: str, asset: str | None) -> str:
    """Return the raster of an ``item`` in the file ``at``."""
    assets, name = item.get("assets", {}), item.get("id", "item")
    if asset is None and len(assets) == 1:
        asset = next(iter(assets))
    if asset not in assets:
        wanted = "which asset is the raster is not said" if asset is None else f"has no asset {asset}"
        there = f"give --asset with one of {', '.join(assets)}" if assets else "it has none at all"
        raise DataError(f"{public_name(at)}: item {name}: {wanted}; {there}")
    return public_name(_joined(at, assets[asset]["href"]), str(name))


def _joined(base: str, href: str) -> str:
    """Return the place that ``href`` in the file at ``base`` means."""
    if is_remote(href):
        return href
    if is_url(base):
        return urljoin(base, href)
    return os.path.normpath(os.path.join(os.path.dirname(base), href.removeprefix("file://")))


def _read(place: str) -> dict[str, Any]:
    """Return the JSON object at a path or an address."""
    shown = public_name(place)
    try:
        if is_url(place):
            with urllib.request.urlopen(place, timeout=_SILENCE_S) as answer:
                found = json.load(answer)
        else:
            found = json.loads(Path(place).read_text(encoding="utf-8"))
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "code", None) or getattr(error, "reason", None) or error.strerror
        raise DataError(f"{shown}: cannot be read ({reason}); check the address") from None
    except ValueError:
        raise DataError(f"{shown}: is no JSON; give a STAC item, collection or feature collection") from None
    return found if isinstance(found, dict) else {}
