"""A folder of images and a folder of masks, as most data comes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from difflib import get_close_matches

import numpy as np

from ..checks import examine, splits_of_folder
from ..datasets.raw_mask import RAW_MASK_SUFFIXES, find_folders, pair_files, repaired_labels
from ..datasets.reading import IMAGE_SUFFIXES, image_info
from ..datasets.road_dataset import files_by_stem
from ..errors import ConfigError, DataError
from .conversion import Conversion, convert_scenes
from .scenes import COMMON, NAMES, SPLITS, SPLITTING, RawDataSet, Scene, Settings, area_parts, assign_splits, read_names


def scenes_of_pairs(pairs: list[tuple[str, str, str]], settings: Settings) -> list[Scene]:
    """Return a scene for every (stem, image path, mask path), each in the split that the settings give it."""
    if settings.by_area:
        return _by_area(pairs, settings)
    split_of = assign_splits([stem for stem, _, _ in pairs], settings)
    return [Scene(stem, (split_of[stem],), image, mask=mask) for stem, image, mask in pairs]


def _by_area(pairs: list[tuple[str, str, str]], settings: Settings) -> list[Scene]:
    if settings.val_list or settings.scene or settings.by_name:
        raise ConfigError("--by-area splits every image; leave out --val-list, --by-name and --scene")
    scenes = []
    for stem, image, mask in pairs:
        info = image_info(image)
        for split, part in area_parts(info.height, info.width, settings).items():
            scenes.append(Scene(f"{stem}_{split}", (split,), image, mask=mask, part=part))
    return scenes


def find_pairs(source: str, settings: Settings) -> list[Scene]:
    """Return the pairs in ``source``: the folders that the settings name, or those with the usual names.

    Raises:
        DataError: it is not clear which folder is which, an image has no mask, or two files stand for one name.
    """
    if settings.images is None and settings.masks is None:
        images, masks = find_folders(source)
    else:
        images, masks = (os.path.join(source, folder or ".") for folder in (settings.images, settings.masks))
    return scenes_of_pairs(pair_files(os.path.normpath(images), os.path.normpath(masks)), settings)


PAIR = RawDataSet(
    name="pair",
    title="your own images and masks",
    find_scenes=find_pairs,
    home="",
    citation="",
    licence="",
    layout="images/x.tif and masks/x.png, or x_sat.jpg and x_mask.png in one folder; --images and --masks name others",
    images="any size, 8 or 16 bit, any bands; masks 0/1, 0/255, grey, RGB, palette, 1 bit",
    split="--val and --test by --seed, --by-name, or by --val-list and --test-list; --scene keeps scenes together",
    options=(*SPLITTING, "scene", "images", "masks", "num_classes"),
)
EPFL = RawDataSet(
    name="epfl",
    title="EPFL and ETH course data",
    find_scenes=find_pairs,
    home="https://www.aicrowd.com/challenges/epfl-ml-road-segmentation",
    citation="EPFL machine learning course CS-433; ETH Zurich computational intelligence lab uses the same form",
    licence="none stated; pictures from Google Maps, for the course",
    layout="images/satImage_001.png and groundtruth/satImage_001.png below training/ (ETH since 2022: satimage_0.png)",
    images="100 (ETH 144) of 400x400, RGB 8 bit (ETH RGBA); masks grey with soft edges, road from half of white up",
    split="none published: here the last fifth of the names validates; change with --val and the like",
    defaults=dict(by_name=True),
    options=(*SPLITTING, "images", "masks"),
    indices=False,
)


# -- converters.voc
# Data that is in the VOC layout already: verified, and repaired where one answer is safe.


def find_voc(source: str, settings: Settings) -> list[Scene]:
    """Return the listed images of a VOC folder, in the splits of its lists; a list ``test`` may be missing.

    Raises:
        DataError: a folder or a list is missing, a listed file is not there, or a training image is listed twice.
    """
    images, masks = os.path.join(source, "JPEGImages"), os.path.join(source, "SegmentationClass")
    lists = os.path.join(source, "ImageSets", "Segmentation")
    for needed in (images, masks, lists):
        if not os.path.isdir(needed):
            raise DataError(
                f"{needed}: no such folder; {source} is no VOC layout (JPEGImages, SegmentationClass, ImageSets); "
                "images and masks in other folders: convert_dataset.py pair"
            )
    image_of, mask_of = files_by_stem(images, IMAGE_SUFFIXES), files_by_stem(masks, RAW_MASK_SUFFIXES)
    found = {
        stem: (os.path.join(images, name), os.path.join(masks, mask_of[stem]))
        for stem, name in image_of.items()
        if stem in mask_of
    }
    splits: dict[str, list[str]] = {}
    for split in SPLITS:
        path = os.path.join(lists, f"{split}.txt")
        if split == "test" and not os.path.isfile(path):
            continue
        for name in dict.fromkeys(read_names(path)):
            stem = name if name in found else os.path.splitext(name)[0]
            if stem not in found:
                raise DataError(
                    f"{path}: lists {name}, but {images} and {masks} do not both hold it; add it or remove the line"
                )
            splits.setdefault(stem, []).append(split)
    for stem, listed in splits.items():
        if "train" in listed and len(listed) > 1:
            raise DataError(
                f"{lists}: {stem} is listed for {' and '.join(listed)}, so the scores would be of images trained on; "
                "keep it in one list"
            )
    if not any("train" in listed for listed in splits.values()):
        raise DataError(f"{os.path.join(lists, 'train.txt')}: lists no image; name the training images in it")
    return [Scene(stem, tuple(listed), *found[stem]) for stem, listed in splits.items()]


OPM = RawDataSet(
    name="opm",
    title="OPM, open-pit mine roads",
    find_scenes=find_voc,
    home="https://github.com/D-SegNeXt/D-SegNeXt",
    citation="Cui, Meng, Zhang, Road Extraction From High-Resolution Remote Sensing Images of Open-Pit Mine Using "
    "D-SegNeXt, IEEE GRSL 2024",
    licence="none stated; ask the authors for commercial use",
    layout="JPEGImages/<name>.png, SegmentationClass/<name>.png, ImageSets/Segmentation/{train,val,test}.txt; any "
    "folder in this layout will do",
    images="RGB 8 bit from drones; masks 0/1 with palette; 0/255, colour and 3-channel masks are repaired",
    split="as listed",
    options=("num_classes",),
)


# -- converters.chn6_cug
# CHN6-CUG roads.


def find_chn6_cug(source: str, settings: Settings) -> list[Scene]:
    """Return the images of both splits.

    Raises:
        DataError: train/images is not there.
    """
    if not os.path.isdir(os.path.join(source, "train", "images")):
        raise DataError(f"{source}: holds no train/images; name the folder that holds train/ and val/")
    return [
        Scene(stem, (split,), image, mask=mask)
        for split in ("train", "val")
        for stem, image, mask in pair_files(*(os.path.join(source, split, part) for part in ("images", "gt")))
    ]


CHN6_CUG = RawDataSet(
    name="chn6_cug",
    title="CHN6-CUG roads",
    find_scenes=find_chn6_cug,
    home="https://github.com/CUG-URS/CHN6-CUG-Roads-Dataset",
    citation="Zhu et al., A Global Context-aware and Batch-independent Network for road extraction from VHR satellite "
    "imagery, ISPRS Journal 175, 2021",
    licence="academic use only; pictures from Google Earth",
    layout="{train,val}/images/<id>_sat.jpg and {train,val}/gt/<id>_mask.png",
    images="4,511 of 512x512, RGB JPEG 8 bit; masks 0 to 255, road from 128 up",
    split="published: 3,608 / 903; the validation images are the test",
    gsd_m=0.5,
    indices=False,
)


# -- converters.deepglobe
# DeepGlobe roads.

_PAIRS, _VALIDATION = 6226, 1530


def find_deepglobe(source: str, settings: Settings) -> list[Scene]:
    """Return the labelled images of the download in ``source``; its valid/ and test/ have no masks.

    Raises:
        DataError: no such folder, or an image without a mask.
    """
    train = os.path.join(source, "train")
    folder = train if os.path.isdir(train) else source
    if not any(name.endswith("_sat.jpg") for name in os.listdir(folder)):
        raise DataError(f"{folder}: holds no x_sat.jpg beside x_mask.png; name the folder that holds train/")
    return scenes_of_pairs(pair_files(folder, folder), settings)


DEEPGLOBE = RawDataSet(
    name="deepglobe",
    title="DeepGlobe roads 2018",
    find_scenes=find_deepglobe,
    home="https://competitions.codalab.org/competitions/18467",
    citation="Demir et al., DeepGlobe 2018: A Challenge to Parse the Earth through Satellite Images, CVPRW 2018",
    licence="DigitalGlobe internal use licence; not open",
    layout="train/100034_sat.jpg and train/100034_mask.png; valid/ and test/ hold images without masks",
    images="6,226 labelled, 1024x1024, RGB JPEG 8 bit; masks RGB PNG, not purely 0 and 255: road from 128 up",
    split="none published; the usual 4,696 / 1,530 by --seed, or by a list with --val-list",
    gsd_m=0.5,
    defaults=dict(val=_VALIDATION / _PAIRS),
    options=SPLITTING,
    indices=False,
)


# -- converters.massachusetts
# Massachusetts roads.

_LAYOUTS = (
    {"train": ("train/sat", "train/map"), "val": ("valid/sat", "valid/map"), "test": ("test/sat", "test/map")},
    {
        "train": ("tiff/train", "tiff/train_labels"),
        "val": ("tiff/val", "tiff/val_labels"),
        "test": ("tiff/test", "tiff/test_labels"),
    },
)


def find_massachusetts(source: str, settings: Settings) -> list[Scene]:
    """Return the images of all three splits, from the publisher's folders or Kaggle's.

    Raises:
        DataError: neither layout is there.
    """
    for layout in _LAYOUTS:
        if os.path.isdir(os.path.join(source, layout["train"][0])):
            return [
                Scene(stem, (split,), image, mask=mask)
                for split, (images, masks) in layout.items()
                for stem, image, mask in pair_files(os.path.join(source, images), os.path.join(source, masks))
            ]
    raise DataError(
        f"{source}: holds neither train/sat (as published) nor tiff/train (as on Kaggle); name the folder above them"
    )


MASSACHUSETTS = RawDataSet(
    name="massachusetts",
    title="Massachusetts roads",
    find_scenes=find_massachusetts,
    home="https://www.cs.toronto.edu/~vmnih/data/",
    citation="Mnih, Machine Learning for Aerial Image Labeling, PhD thesis, University of Toronto, 2013",
    licence="none stated; released for research",
    layout="{train,valid,test}/sat/10078660_15.tiff and .../map/10078660_15.tif; Kaggle: tiff/train, tiff/train_labels",
    images="1,171 of 1500x1500, RGB 8 bit; masks 0/255, centrelines drawn 7 px wide; large white areas without image",
    split="published: 1,108 / 14 / 49",
    gsd_m=1.0,
    indices=False,
    hole_value=255,
)


# -- converters.spacenet3
# SpaceNet 3 roads.

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


# -- converters.catalogue
# Every converter by its name.

CATALOGUE: dict[str, RawDataSet] = {
    raw.name: raw for raw in (PAIR, OPM, DEEPGLOBE, MASSACHUSETTS, CHN6_CUG, SPACENET3, EPFL)
}


def describe() -> str:
    """Return what every data set is and how it is converted, as Markdown."""
    sections = []
    for raw in CATALOGUE.values():
        facts = [
            ("from", raw.home),
            ("cite", raw.citation),
            ("licence", raw.licence),
            ("files", raw.layout),
            ("content", raw.images),
            ("split", raw.split),
            ("ground sampling distance", f"{raw.gsd_m:g} m" if raw.gsd_m else "from the georeference, or --gsd"),
            ("options", ", ".join(f"`--{name.replace('_', '-')}`" for name in raw.options)),
        ]
        lines = "\n".join(f"- {key}: {value}" for key, value in facts if value)
        sections.append(f"**`{raw.name}`**: {raw.title}\n\n{lines}")
    common = ", ".join(f"`--{name.replace('_', '-')}`" for name in COMMON)
    return "\n\n".join([*sections, f"All take {common}."])


def _inside(folder: str, other: str) -> bool:
    folder, other = os.path.realpath(folder), os.path.realpath(other)
    return os.path.commonpath([folder, other]) == folder


def convert(name: str, source: str, dest: str, **settings: object) -> Conversion:
    """Convert the raw data in ``source`` into a data set at ``dest``; the source is not changed.

    Args:
        name: one of `CATALOGUE`.
        source: folder of the raw data.
        dest: folder to create.
        settings: attributes of `Settings`; those left out, or None, take the data set's defaults.

    Raises:
        ConfigError: no such converter, or a setting that it does not take.
        DataError: names the files that could not be understood.
    """
    if name not in CATALOGUE:
        near = get_close_matches(name, CATALOGUE, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(CATALOGUE)}"
        raise ConfigError(f"{name}: no converter has this name; {hint}")
    raw = CATALOGUE[name]
    given = {key: value for key, value in settings.items() if value is not None}
    for key in given:
        if key not in NAMES:
            raise ConfigError(f"{key}: a conversion has no such setting")
        if key not in (*COMMON, *raw.options):
            raise ConfigError(f"--{key.replace('_', '-')} does not apply to {name} ({raw.title}); leave it out")
    source = os.path.normpath(source)
    if not os.path.isdir(source):
        raise DataError(f"{source}: no such folder")
    chosen = Settings(**{**raw.defaults, **given})
    if _inside(dest, source):
        raise DataError(f"{dest}: holds the source {source}, which must not be replaced; choose another folder")
    if raw is OPM:
        return _verified(raw, source, dest, chosen)
    return convert_scenes(raw, raw.find_scenes(source, chosen), dest, chosen)


def repair_dataset(source: str, dest: str, num_classes: int = 2, overwrite: bool = False) -> Conversion:
    """Write the VOC folder ``source`` anew at ``dest``, its masks brought to labels; images and splits stay.

    Raises:
        DataError: what has no one safe answer is named.
    """
    raw = replace(OPM, name="voc", title="repaired", home="", citation="", licence="")
    settings = Settings(tile=0, num_classes=num_classes, overwrite=overwrite)
    return _verified(raw, os.path.normpath(source), dest, settings)


def _verified(raw: RawDataSet, source: str, dest: str, settings: Settings) -> Conversion:
    """Convert a folder in the VOC layout, each mask judged by itself and by what the label doctor says of it."""
    scenes = raw.find_scenes(source, settings)
    road_is_ignore: set[str] = set()
    if settings.num_classes == 2:
        for finding in examine(source, *splits_of_folder(source)).findings:
            if finding.code == "mask-0-255":
                road_is_ignore.update(map(os.path.realpath, finding.files))

    def read_labels(path: str) -> np.ndarray:
        return repaired_labels(path, settings.num_classes, os.path.realpath(path) in road_is_ignore)

    return convert_scenes(raw, scenes, dest, settings, read_labels)
