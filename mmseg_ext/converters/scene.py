"""What a converter finds in raw data: scenes, each one image with its roads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..geo.raster import Window
from .settings import Settings


@dataclass(frozen=True)
class Scene:
    """One image and where its roads are drawn.

    Attributes:
        name: unique; the stem of its files in the data set.
        splits: the splits it belongs to; one, or val and test where a data set tests on its validation images.
        image: path of the image.
        mask: path of its mask, None where the roads are lines.
        lines: path of a GeoJSON with its road centrelines.
        part: (row, column, height, width) of the image that it is, None for all.
    """

    name: str
    splits: tuple[str, ...]
    image: str
    mask: str | None = None
    lines: str | None = None
    part: Window | None = None


@dataclass(frozen=True)
class RawDataSet:
    """A published data set, or a kind of folder: where it comes from and how it is read.

    Attributes:
        name: what the command calls it.
        title: what people call it.
        find_scenes: (source folder, settings) to the scenes in it.
        home: where it is described and downloaded.
        citation: the publication.
        licence: terms of its publisher.
        layout: files and folders as published.
        images: size, bands, depth.
        split: which images train, validate and test.
        gsd_m: ground sampling distance in metres per pixel, None where it is not published or differs.
        defaults: settings that differ from everyone's defaults.
        options: settings that it takes besides the common ones.
        indices: whether masks hold class indices; None looks at them.
        hole_value: value in every band of pixels that hold no image, where the files do not say it.
    """

    name: str
    title: str
    find_scenes: Callable[[str, Settings], list[Scene]]
    home: str
    citation: str
    licence: str
    layout: str
    images: str
    split: str
    gsd_m: float | None = None
    defaults: dict = field(default_factory=dict)
    options: tuple[str, ...] = ()
    indices: bool | None = None
    hole_value: int | None = None
