"""Every kind of raw data that can be converted: for each, how its files are found, and its entry in `CATALOGUE`.

For a new data set, write a function from (source folder, settings) to `Scene`s, describe the data in a `RawDataSet`,
and name that in `CATALOGUE`; the command line and docs/datasets.md follow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ..errors import ConfigError, DataError
from ..files import visible
from ..imagery import voc
from ..imagery.raw_mask import find_folders, pair_files
from ..imagery.raw_splits import listed_files, split_folders, with_own_names
from ..imagery.reading import image_info
from .annotations import Annotations
from .scenes import COMMON, SPLITTING, ConversionSettings, RawDataSet, Scene, area_parts, assign_splits


def scenes_of_pairs(pairs: list[voc.Pair], settings: ConversionSettings) -> list[Scene]:
    """Return a scene for every pair, or for every part of a split pair, in the split that the settings give it."""
    if not settings.by_area:
        split_of = assign_splits([stem for stem, _, _ in pairs], settings)
        return [Scene(stem, (split_of[stem],), image, mask=mask) for stem, image, mask in pairs]
    if settings.val_list or settings.scene or settings.by_name:
        raise ConfigError("--by-area splits every image; leave out --val-list, --by-name and --scene")
    return [
        Scene(f"{stem}_{split}", (split,), image, mask=mask, part=part)
        for stem, image, mask in pairs
        for split, part in area_parts(image_info(image), settings).items()
    ]


def find_pairs(source: str, settings: ConversionSettings) -> list[Scene]:
    """Return the pairs in ``source``: those of a list, of the folders that the settings name, or of the usual folders.

    A tree with a folder for each split keeps its splits, and so does a list that names them; where there is no
    validation split, it is taken from the training images.

    Raises:
        DataError: it is not clear which folder is which, an image has no mask, or two files stand for one name.
    """
    if settings.annotations is not None:
        drawn = Annotations.read(settings.annotations, settings.classes, settings.line_width)
        return scenes_of_pairs(drawn.pairs(os.path.normpath(os.path.join(source, settings.images or "."))), settings)
    listed: list[tuple[str | None, voc.Pair]] = []
    if settings.pairs is not None:
        listed = listed_files(settings.pairs, source)
    elif settings.images is None and settings.masks is None:
        for split, folders in split_folders(source).items():
            listed += [(split, pair) for pair in pair_files(*folders)]
    if listed:
        named = zip((split for split, _ in listed), with_own_names([pair for _, pair in listed], source), strict=True)
        return _scenes_with_splits(list(named), settings)
    if settings.images is None and settings.masks is None:
        images, masks = find_folders(source)
    else:
        images, masks = (os.path.join(source, folder or ".") for folder in (settings.images, settings.masks))
    return scenes_of_pairs(pair_files(os.path.normpath(images), os.path.normpath(masks)), settings)


def _scenes_with_splits(listed: list[tuple[str | None, voc.Pair]], settings: ConversionSettings) -> list[Scene]:
    """Return a scene for every pair in its own split; those without one, or all of training, are split as usual."""
    splits = {split for split, _ in listed}
    if "val" in splits:
        if settings.by_area or settings.by_name or settings.scene or settings.val_list or settings.test_list:
            raise ConfigError("the data has training and validation splits, which are kept; leave out how to split it")
        kept = splits
    else:
        kept = {"test"}
        if "test" in splits and (settings.test or settings.test_list):
            raise ConfigError("the data has a test split, which is kept; leave out --test and --test-list")
    rest = [pair for split, pair in listed if split not in kept]
    drawn = scenes_of_pairs(rest, settings) if rest else []
    return drawn + [Scene(p.stem, (split,), p.image, mask=p.mask) for split, p in listed if split and split in kept]


_DRAWN = ("annotations", "classes", "line_width")
PAIR = RawDataSet(
    name="pair",
    title="your own images and masks",
    find_scenes=find_pairs,
    home="",
    citation="",
    licence="",
    layout="images/x.tif and masks/x.png, or x_sat.jpg and x_mask.png in one folder; --images and --masks name others; "
    "a tree (train/images and train/masks, or images/train and masks/train, and so val and test); or --pairs LIST with "
    "an image, its mask and perhaps its split on each line",
    images="any size, 8 or 16 bit, any bands; masks 0/1, 0/255, grey, RGB, palette, 1 bit; several classes as indices "
    "(--num-classes) or colours (--colours road=255,0,0 ramp=0,0,255); polygons and lines of LabelMe or COCO "
    "(--annotations)",
    split="that of a tree or a list; else --val and --test by --seed, --by-name, or by --val-list and --test-list; "
    "--scene keeps scenes together",
    options=(*SPLITTING, "scene", "images", "masks", "pairs", "num_classes", "colours", *_DRAWN),
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


def find_voc(source: str, settings: ConversionSettings) -> list[Scene]:
    """Return the listed images of a VOC folder, in the splits of its lists; a list ``test`` may be missing.

    Raises:
        DataError: a folder or a list is missing, a listed file is not there, or a training image is listed twice.
    """
    images, masks, lists = (os.path.join(source, folder) for folder in (voc.IMAGES, voc.MASKS, voc.LISTS))
    for needed in (images, masks, lists):
        if not os.path.isdir(needed):
            raise DataError(
                f"{needed}: no such folder; {source} is no VOC layout ({voc.IMAGES}, {voc.MASKS}, {voc.LISTS}); "
                "for images and masks in other folders use: convert_dataset.py pair"
            )
    image_of = voc.files_by_stem(images, voc.IMAGE_SUFFIXES)
    mask_of = voc.files_by_stem(masks, voc.RAW_MASK_SUFFIXES)
    splits: dict[str, list[str]] = {}
    for split in voc.SPLITS:
        path = voc.split_file(source, split)
        if split == "test" and not os.path.isfile(path):
            continue
        for name in dict.fromkeys(voc.read_names(path)):
            stem = name if name in image_of else os.path.splitext(name)[0]
            if stem not in image_of or stem not in mask_of:
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
    return [
        Scene(stem, tuple(listed), os.path.join(images, image_of[stem]), os.path.join(masks, mask_of[stem]))
        for stem, listed in splits.items()
    ]


OPM = RawDataSet(
    name="opm",
    title="OPM, open-pit mine roads",
    find_scenes=find_voc,
    home="https://github.com/D-SegNeXt/D-SegNeXt",
    citation="Cui, Meng, Zhang, Road Extraction From High-Resolution Remote Sensing Images of Open-Pit Mine Using "
    "D-SegNeXt, IEEE GRSL 2024",
    licence="none stated; ask the authors for commercial use",
    layout=f"{voc.IMAGES}/<name>.png, {voc.MASKS}/<name>.png, {voc.LISTS}/{{train,val,test}}.txt; any folder in this "
    "layout will do",
    images="RGB 8 bit from drones; masks 0/1 with palette; 0/255, colour and 3-channel masks are repaired",
    split="as listed",
    options=("num_classes",),
)


def _published_splits(source: str, folders: dict[str, tuple[str, str]]) -> list[Scene]:
    """Return the images of a data set that has a folder of images and one of masks for each split."""
    return [
        Scene(stem, (split,), image, mask=mask)
        for split, pair in folders.items()
        for stem, image, mask in pair_files(*(os.path.join(source, folder) for folder in pair))
    ]


def find_chn6_cug(source: str, settings: ConversionSettings) -> list[Scene]:
    """Return the images of both splits."""
    if not os.path.isdir(os.path.join(source, "train", "images")):
        raise DataError(f"{source}: holds no train/images; name the folder that holds train/ and val/")
    return _published_splits(source, {split: (f"{split}/images", f"{split}/gt") for split in ("train", "val")})


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


def find_deepglobe(source: str, settings: ConversionSettings) -> list[Scene]:
    """Return the labelled images of the download in ``source``; its valid/ and test/ have no masks."""
    train = os.path.join(source, "train")
    folder = train if os.path.isdir(train) else source
    if not any(name.endswith("_sat.jpg") for name in visible(folder)):
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
    defaults=dict(val=1530 / 6226),
    options=SPLITTING,
    indices=False,
)


_MASSACHUSETTS_LAYOUTS = (
    {"train": ("train/sat", "train/map"), "val": ("valid/sat", "valid/map"), "test": ("test/sat", "test/map")},
    {
        "train": ("tiff/train", "tiff/train_labels"),
        "val": ("tiff/val", "tiff/val_labels"),
        "test": ("tiff/test", "tiff/test_labels"),
    },
)


def find_massachusetts(source: str, settings: ConversionSettings) -> list[Scene]:
    """Return the images of all three splits, from the publisher's folders or Kaggle's."""
    for layout in _MASSACHUSETTS_LAYOUTS:
        if os.path.isdir(os.path.join(source, layout["train"][0])):
            return _published_splits(source, layout)
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


_IMAGES = {"PS-RGB": "geojson_roads", "RGB-PanSharpen": os.path.join("geojson", "spacenetroads")}
_MULTISPECTRAL = {"PS-MS": "geojson_roads", "MUL-PanSharpen": os.path.join("geojson", "spacenetroads")}


def _chip(name: str) -> str | None:
    """Return area and number of a chip's file name, as AOI_2_Vegas_img1; None for other files."""
    found = re.search(r"(AOI_\d+_[A-Za-z]+).*_(img\d+)\.(?:tif|tiff|geojson)$", name)
    return f"{found.group(1)}_{found.group(2)}" if found else None


def _chips_in(folder: str) -> dict[str, str]:
    return {chip: os.path.join(folder, name) for name in visible(folder) if (chip := _chip(name))}


def _areas(source: str) -> Iterator[str]:
    """Yield every folder in ``source``, itself included, three levels deep."""
    for folder, below, _ in os.walk(source):
        yield folder
        if folder[len(source) :].count(os.sep) >= 2:
            below.clear()
        below.sort()


def find_spacenet3(source: str, settings: ConversionSettings) -> list[Scene]:
    """Return the chips that have both an image and centrelines; a chip without a GeoJSON is left out."""
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


_DUBAI_HELD_OUT = ("3", "6")


def find_dubai(source: str, settings: ConversionSettings) -> list[Scene]:
    """Return the images of all tiles; those of tiles 3 and 6 validate."""
    tiles = {found[1]: name for name in visible(source) if (found := re.fullmatch(r"Tile (\d+)", name))}
    if not tiles:
        raise DataError(f"{source}: holds no folder 'Tile 1'; name the folder that holds the tiles")
    return [
        Scene(
            f"tile{number}_{stem.removeprefix('image_part_')}",
            ("val" if number in _DUBAI_HELD_OUT else "train",),
            image,
            mask=mask,
        )
        for number, name in sorted(tiles.items(), key=lambda tile: int(tile[0]))
        for stem, image, mask in pair_files(*(os.path.join(source, name, folder) for folder in ("images", "masks")))
    ]


DUBAI = RawDataSet(
    name="dubai",
    title="Dubai, semantic segmentation of aerial imagery",
    find_scenes=find_dubai,
    home="https://humansintheloop.org/resources/datasets/semantic-segmentation-dataset-2/",
    citation="Humans in the Loop with the Mohammed Bin Rashid Space Centre, Semantic segmentation of aerial imagery",
    licence="published as open access, CC0 1.0; check it at its home",
    layout="Tile 1/images/image_part_001.jpg and Tile 1/masks/image_part_001.png, to Tile 8",
    images="72 of 500 to 2,150 px, RGB JPEG 8 bit from satellites; masks in colours: road, four other classes that "
    "become background; unlabeled, and what is not painted (black), is ignored",
    split="none published; tiles 3 and 6 validate and test",
    defaults=dict(
        colours=("background=#3C1098+#8429F6+#FEDD3A+#E2A929", "road=#6EC1E4", "ignore=#9B9B9B+#000000"),
    ),
    options=("colours",),
)


CATALOGUE: dict[str, RawDataSet] = {
    raw.name: raw for raw in (PAIR, OPM, DEEPGLOBE, MASSACHUSETTS, CHN6_CUG, SPACENET3, DUBAI, EPFL)
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
