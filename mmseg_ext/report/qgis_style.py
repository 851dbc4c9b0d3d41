"""QGIS styles that lie beside a raster (NAME.qml for NAME.tif) and show it as it is meant when it is opened."""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree

from ..writing import complete_file

RGB = tuple[int, int, int]
_QGIS_VERSION = "3.22.0"
_NOTHING = 0.05
_RAMP: tuple[tuple[float, RGB], ...] = ((0.5, (252, 166, 54)), (0.75, (225, 100, 98)), (1.0, (177, 42, 144)))


def _hex(rgb: RGB) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def _write(path: str, renderer: ElementTree.Element) -> None:
    root = ElementTree.Element("qgis", version=_QGIS_VERSION, styleCategories="Symbology")
    pipe = ElementTree.SubElement(root, "pipe")
    pipe.append(renderer)
    ElementTree.SubElement(pipe, "brightnesscontrast", brightness="0", contrast="0", gamma="1")
    ElementTree.SubElement(pipe, "huesaturation", saturation="0", grayscaleMode="0", colorizeOn="0")
    ElementTree.SubElement(pipe, "rasterresampler", maxOversampling="2")
    ElementTree.SubElement(root, "blendMode").text = "0"
    ElementTree.indent(root)
    with complete_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.write("<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n")
        file.write(ElementTree.tostring(root, encoding="unicode") + "\n")


def _renderer(kind: str, **attributes: str) -> ElementTree.Element:
    shown = {"type": kind, "band": "1", "opacity": "1", "alphaBand": "-1", "nodataColor": ""}
    renderer = ElementTree.Element("rasterrenderer", shown | attributes)
    ElementTree.SubElement(renderer, "rasterTransparency")
    return renderer


def write_qgis_style(path: str, colours: Mapping[int, tuple[str, RGB]], background: int | None = 0) -> None:
    """Write the style of a mask of classes.

    Args:
        path: file to write, .qml.
        colours: name and colour of each class by its value; other values are not shown.
        background: the class that is transparent, None for none.

    Raises:
        ConfigError: it cannot be written there.
    """
    renderer = _renderer("paletted")
    palette = ElementTree.SubElement(renderer, "colorPalette")
    for value, (name, rgb) in sorted(colours.items()):
        alpha = "0" if value == background else "255"
        ElementTree.SubElement(palette, "paletteEntry", value=str(value), label=name, color=_hex(rgb), alpha=alpha)
    _write(path, renderer)


def write_qgis_probability_style(path: str, certain: float = 1.0) -> None:
    """Write the style of a map of probabilities: yellow to violet, the lower the more transparent.

    Below 5 % nothing is shown.

    Args:
        path: file to write, .qml.
        certain: the value of probability 1 as QGIS shows it: 1 where the band has a scale, which QGIS applies
            before it looks for colours.

    Raises:
        ConfigError: it cannot be written there.
    """
    renderer = _renderer("singlebandpseudocolor", classificationMin="0", classificationMax=f"{certain:.17g}")
    shader = ElementTree.SubElement(renderer, "rastershader")
    ramp = ElementTree.SubElement(
        shader, "colorrampshader", colorRampType="INTERPOLATED", classificationMode="1", clip="0"
    )
    lowest = _RAMP[0][1]
    for share, rgb in ((0.0, lowest), (_NOTHING, lowest), *_RAMP):
        ElementTree.SubElement(
            ramp,
            "item",
            value=f"{share * certain:.17g}",
            label=f"{share:.0%}",
            color=_hex(rgb),
            alpha="0" if share <= _NOTHING else str(round(255 * min(1.0, 0.25 + share))),
        )
    _write(path, renderer)
