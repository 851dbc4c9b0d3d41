"""QGIS styles that lie beside a raster (NAME.qml for NAME.tif) and show it as it is meant when it is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from ..files import complete_file

RGB = tuple[int, int, int]
_QGIS_VERSION = "3.22.0"
_NOTHING = 0.05
_Ramp = tuple[tuple[float, RGB], ...]
_RAMP: _Ramp = ((0.5, (252, 166, 54)), (0.75, (225, 100, 98)), (1.0, (177, 42, 144)))
_UNSURE_RAMP: _Ramp = ((0.5, (189, 215, 231)), (0.75, (66, 146, 198)), (1.0, (8, 48, 107)))


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
    _write_ramp(path, _RAMP, certain, [f"{share:.0%}" for share in _shares(_RAMP)])


def write_qgis_uncertainty_style(path: str) -> None:
    """Write the style of a map of entropies in bits, 0 to 1: white to blue, the lower the more transparent.

    Args:
        path: file to write, .qml.

    Raises:
        ConfigError: it cannot be written there.
    """
    _write_ramp(path, _UNSURE_RAMP, 1.0, [f"{share:g} bit" for share in _shares(_UNSURE_RAMP)])


def _shares(ramp: _Ramp) -> list[float]:
    return [0.0, _NOTHING, *(share for share, _ in ramp)]


def _write_ramp(path: str, colours: _Ramp, certain: float, labels: Sequence[str]) -> None:
    """Write the style of a band from 0 to ``certain`` with ``colours`` by share of it."""
    renderer = _renderer("singlebandpseudocolor", classificationMin="0", classificationMax=f"{certain:.17g}")
    shader = ElementTree.SubElement(renderer, "rastershader")
    ramp = ElementTree.SubElement(
        shader, "colorrampshader", colorRampType="INTERPOLATED", classificationMode="1", clip="0"
    )
    lowest = colours[0][1]
    points = ((0.0, lowest), (_NOTHING, lowest), *colours)
    for (share, rgb), label in zip(points, labels, strict=True):
        ElementTree.SubElement(
            ramp,
            "item",
            value=f"{share * certain:.17g}",
            label=label,
            color=_hex(rgb),
            alpha="0" if share <= _NOTHING else str(round(255 * min(1.0, 0.25 + share))),
        )
    _write(path, renderer)
