"""Polygons and lines drawn in LabelMe, or in any tool that writes COCO's JSON, as labels."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, LazyModule
from ..imagery.voc import IGNORE, IMAGE_SUFFIXES, Pair, list_files
from .class_colours import BACKGROUND, IGNORED, ClassColours
from .scenes import ConversionSettings, Scene

_PURPOSE = "drawing annotations"
shapely = LazyModule("shapely", None, _PURPOSE)
rasterio = LazyModule("rasterio", None, _PURPOSE)
features = LazyModule("rasterio.features", None, _PURPOSE)
_COLOURS = ((0, 0, 0), (255, 0, 0), (0, 0, 255), (255, 200, 0), (0, 200, 0), (200, 0, 255))


@dataclass(frozen=True)
class _Drawing:
    """What is drawn on one image: its size in pixels, and (class, kind, points (N, 2) as x, y) of each shape."""

    path: str
    height: int
    width: int
    shapes: Sequence[tuple[str, str, np.ndarray]]


def _json(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); export the annotations again") from None


def _points(numbers: object) -> np.ndarray:
    points = np.asarray(numbers, float).reshape(-1, 2)
    if not len(points) or not np.isfinite(points).all():
        raise ValueError("a shape without points")
    return points


def _labelme(path: str) -> _Drawing:
    content = _json(path)
    shapes = [(str(s["label"]), s.get("shape_type") or "polygon", _points(s["points"])) for s in content["shapes"]]
    return _Drawing(path, int(content["imageHeight"]), int(content["imageWidth"]), shapes)


def _coco(path: str) -> Iterator[tuple[str, _Drawing]]:
    content = _json(path)
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    shapes: dict[Any, list] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        if not isinstance(annotation["segmentation"], list):
            raise ValueError(f"annotation {annotation.get('id')} is a run-length mask; export polygons")
        for part in annotation["segmentation"]:
            shapes[annotation["image_id"]].append((names[annotation["category_id"]], "polygon", _points(part)))
    for image in content["images"]:
        size = int(image["height"]), int(image["width"])
        yield os.path.basename(image["file_name"]), _Drawing(path, *size, shapes[image["id"]])


@dataclass(frozen=True)
class Annotations:
    """The annotations of all images.

    Attributes:
        classes: names in the order of their labels, the background first.
        drawings: by image file name, or by its stem where each image has a file of annotations.
        line_width_px: full width of drawn lines in pixels; None refuses lines.
    """

    classes: tuple[str, ...]
    drawings: Mapping[str, _Drawing]
    line_width_px: float | None = None

    @classmethod
    def read(cls, path: str, classes: Sequence[str] = (), line_width_px: float | None = None) -> Annotations:
        """Return the annotations at ``path``, a COCO file or a folder of LabelMe files with the names of the images.

        Without ``classes`` the names that occur are numbered in the order of the alphabet. Shapes called ``ignore``
        are ignored; of those that overlap the later counts.

        Raises:
            DataError: unreadable, or a shape has a class that ``classes`` does not have.
        """
        file = path
        try:
            if os.path.isdir(path):
                drawings = {}
                for name in sorted(os.listdir(path)):
                    if name.lower().endswith(".json"):
                        file = os.path.join(path, name)
                        drawings[os.path.splitext(name)[0]] = _labelme(file)
            else:
                drawings = dict(_coco(path))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{file}: is no annotation of LabelMe or COCO ({error!r}); export it again") from None
        if not drawings:
            raise DataError(f"{path}: holds no annotations; name a folder of LabelMe files or a COCO file")
        found = {label: one.path for one in drawings.values() for label, _, _ in one.shapes}
        names = list(classes) or sorted(set(found) - {BACKGROUND, IGNORED})
        for label, where in found.items():
            if label not in (*names, BACKGROUND, IGNORED):
                raise DataError(f"{where}: class '{label}' is none of {', '.join(names)}; add it to --classes")
        if not names:
            raise DataError(f"{path}: not one shape has a class; draw some")
        return cls((BACKGROUND, *(name for name in names if name != BACKGROUND)), drawings, line_width_px)

    def _of(self, image: str) -> _Drawing:
        name = os.path.basename(image)
        found = self.drawings.get(name) or self.drawings.get(os.path.splitext(name)[0])
        if found is None:
            raise DataError(f"{image}: has no annotations; add them, or move the image away")
        return found

    def pairs(self, folder: str) -> list[Pair]:
        """Return the images in ``folder`` with the files that hold their annotations; all must have some."""
        names = list_files(folder, IMAGE_SUFFIXES)
        if not names:
            raise DataError(f"{folder}: holds no images; name their folder with --images")
        images = [os.path.join(folder, name) for name in names]
        return [Pair(os.path.splitext(os.path.basename(image))[0], image, self._of(image).path) for image in images]

    def labels(self, scene: Scene) -> np.ndarray:
        """Return the labels (H, W) of a scene's image, uint8: of the last shape that covers a pixel's centre.

        Raises:
            DataError: a shape is of a kind without an area, or a line and there is no width.
        """
        drawn = self._of(scene.image)
        areas = []
        for name, kind, points in drawn.shapes:
            label = IGNORE if name == IGNORED else self.classes.index(name)
            areas.append((self._area(drawn.path, kind, points), label))
        size = drawn.height, drawn.width
        areas = [(area, label) for area, label in areas if not area.is_empty]
        if not areas:
            return np.zeros(size, np.uint8)
        return features.rasterize(areas, size, transform=rasterio.Affine.identity(), dtype=np.uint8)

    def _area(self, path: str, kind: str, points: np.ndarray) -> Any:
        if kind == "polygon" and len(points) >= 3:
            return shapely.Polygon(points)
        if kind == "rectangle" and len(points) == 2:
            return shapely.box(*points.min(0), *points.max(0))
        if kind == "circle" and len(points) == 2:
            return shapely.Point(points[0]).buffer(float(np.hypot(*(points[1] - points[0]))), quad_segs=64)
        if kind in ("line", "linestrip") and len(points) >= 2:
            if self.line_width_px is None:
                raise DataError(f"{path}: has lines; say how wide they are in pixels: --line-width")
            return shapely.LineString(points).buffer(self.line_width_px / 2)
        raise DataError(f"{path}: a {kind} of {len(points)} point(s) has no area; draw polygons, or lines")

    def words(self) -> str:
        """Return the settings of a config for these classes."""
        palette = [list(_COLOURS[i % len(_COLOURS)]) for i in range(len(self.classes))]
        return f"classes={self.classes}, palette={palette}, num_classes={len(self.classes)}"


def named_classes(settings: ConversionSettings) -> Annotations | ClassColours | None:
    """Return what tells classes by their names: annotations, colours, or None where the settings ask for neither."""
    if settings.annotations is not None:
        return Annotations.read(settings.annotations, settings.classes, settings.line_width)
    return ClassColours.of(settings.colours) if settings.colours else None
