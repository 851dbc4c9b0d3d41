"""SpaceNet 3 roads."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ..errors import DataError
from .scene import RawDataSet, Scene
from .settings import SPLITTING, Settings
from .splits import assign_splits

_IMAGES = {"PS-RGB": "geojson_roads", "RGB-PanSharpen": os.path.join("geojson", "spacenetroads")}
_MULTISPECTRAL = {"PS-MS": "geojson_roads", "MUL-PanSharpen": os.path.join("geojson", "spacenetroads")}


def _chip(name: str) -> str | None:
    """Return area and number of a chip's file name, as AOI_2_Vegas_img1; None for other files."""
    found = re.search(r"(AOI_\d+_[A-Za-z]+).*_(img\d+)\.(?:tif|tiff|geojson)$", name)
    return f"{found.group(1)}_{found.group(2)}" if found else None


def _chips_in(folder: str) -> dict[str, str]:
    return {chip: os.path.join(folder, name) for name in sorted(os.listdir(folder)) if (chip := _chip(name))}


def _areas(source: str) -> Iterator[str]:
    """Yield every folder in ``source``, itself included, three floors deep."""
    for folder, below, _ in os.walk(source):
        yield folder
        if folder[len(source) :].count(os.sep) >= 2:
            below.clear()
        below.sort()


def find_spacenet3(source: str, settings: Settings) -> list[Scene]:
    """Return the chips that have both an image and centrelines; a chip without a GeoJSON is left out.

    Raises:
        DataError: no area with images and centrelines is there.
    """
    images, lines = {}, {}
    for folder in _areas(source):
        kinds = _MULTISPECTRAL if settings.bands is not None and max(settings.bands) > 3 else _IMAGES
        for image_folder, line_folder in kinds.items():
            pair = os.path.join(folder, image_folder), os.path.join(folder, line_folder)
            if all(map(os.path.isdir, pair)):
                images.update(_chips_in(pair[0]))
                lines.update(_chips_in(pair[1]))
    chips = sorted(chip for chip in images if chip in lines)
    if settings.areas:
        chips = [chip for chip in chips if any(area.casefold() in chip.casefold() for area in settings.areas)]
    if not chips:
        raise DataError(
            f"{source}: holds no area with PS-RGB and geojson_roads (or RGB-PanSharpen and geojson/spacenetroads)"
            + (f" named like {', '.join(settings.areas)}" if settings.areas else "")
            + "; unpack the training archives there"
        )
    split_of = assign_splits(chips, settings)
    return [Scene(chip, (split_of[chip],), images[chip], lines=lines[chip]) for chip in chips]


SPACENET3 = RawDataSet(
    name="spacenet3",
    title="SpaceNet 3 roads",
    find_scenes=find_spacenet3,
    home="https://spacenet.ai/spacenet-roads-dataset/",
    citation="Van Etten et al., SpaceNet: A Remote Sensing Dataset and Challenge Series, arXiv 1807.01232, 2018",
    licence="CC BY-SA 4.0",
    layout="AOI_2_Vegas/PS-RGB/SN3_roads_train_AOI_2_Vegas_PS-RGB_img1.tif and geojson_roads/SN3_..._img1.geojson; "
    "older: RGB-PanSharpen/ and geojson/spacenetroads/; --bands 5,3,2 takes PS-MS (8 bands)",
    images="2,422 chips of 1300x1300, 16-bit GeoTIFF in degrees, 0 where there is no image; centrelines as GeoJSON, "
    "drawn --road-width metres wide (4, as the publisher does)",
    split="none published for labelled chips: --val and --test by --seed, or lists of names like AOI_2_Vegas_img1",
    gsd_m=0.3,
    options=(*SPLITTING, "scene", "road_width", "areas"),
    hole_value=0,
)
