"""QGIS styles that lie beside a raster (NAME.qml for NAME.tif), so that QGIS opens it in the intended colours.

A style that cannot be written is a ConfigError.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree

from ..files import write_text

RGB = tuple[int, int, int]
_QGIS_VERSION = "3.22.0"
_TRANSPARENT = 0.05
_PROBABILITY_RAMP: dict[float, RGB] = {0.5: (252, 166, 54), 0.75: (225, 100, 98), 1.0: (177, 42, 144)}
_UNCERTAINTY_RAMP: dict[float, RGB] = {0.5: (189, 215, 231), 0.75: (66, 146, 198), 1.0: (8, 48, 107)}


def write_qgis_style(path: str, colours: Mapping[int, tuple[str, RGB]]) -> None:
    """Write the style of a mask of classes: name and colour of each by its value; 0 is transparent."""
    renderer = _renderer("paletted")
    palette = ElementTree.SubElement(renderer, "colorPalette")
    for value, (name, rgb) in sorted(colours.items()):
        alpha = "255" if value else "0"
        ElementTree.SubElement(palette, "paletteEntry", value=str(value), label=name, color=_hex(rgb), alpha=alpha)
    _write(path, renderer)


def write_qgis_probability_style(path: str) -> None:
    """Write the style of a map of probabilities: yellow to violet, the lower the more transparent, nothing below 5 %.

    Values run from 0 to 1; the scale of a band counts, because QGIS applies it before it looks for colours.
    """
    _write_ramp(path, _PROBABILITY_RAMP, "{:.0%}")


def write_qgis_uncertainty_style(path: str) -> None:
    """Write the style of a map of entropies in bits, 0 to 1: white to blue, the lower the more transparent."""
    _write_ramp(path, _UNCERTAINTY_RAMP, "{:g} bit")


def _write_ramp(path: str, colours: Mapping[float, RGB], label: str) -> None:
    """Write the style of a band from 0 to 1 with ``colours`` by value; ``label`` formats a value."""
    renderer = _renderer("singlebandpseudocolor", classificationMin="0", classificationMax="1")
    shader = ElementTree.SubElement(renderer, "rastershader")
    ramp = ElementTree.SubElement(
        shader, "colorrampshader", colorRampType="INTERPOLATED", classificationMode="1", clip="0"
    )
    lowest = next(iter(colours.values()))
    for value, rgb in {0.0: lowest, _TRANSPARENT: lowest, **colours}.items():
        alpha = 0 if value <= _TRANSPARENT else round(255 * min(1.0, 0.25 + value))
        shown = {"value": f"{value:.17g}", "label": label.format(value), "color": _hex(rgb), "alpha": str(alpha)}
        ElementTree.SubElement(ramp, "item", shown)
    _write(path, renderer)


def _renderer(kind: str, **attributes: str) -> ElementTree.Element:
    shown = {"type": kind, "band": "1", "opacity": "1", "alphaBand": "-1", "nodataColor": ""}
    renderer = ElementTree.Element("rasterrenderer", shown | attributes)
    ElementTree.SubElement(renderer, "rasterTransparency")
    return renderer


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
    kind = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
    write_text(path, f"{kind}\n{ElementTree.tostring(root, encoding='unicode')}\n")
