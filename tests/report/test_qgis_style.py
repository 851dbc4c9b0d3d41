from xml.etree import ElementTree

import pytest

from mmseg_ext.errors import ConfigError
from mmseg_ext.report.qgis_style import write_qgis_probability_style, write_qgis_style, write_qgis_uncertainty_style


def renderer(path):
    root = ElementTree.parse(path).getroot()
    assert root.tag == "qgis" and root.get("version").startswith("3.")
    found = root.find("pipe/rasterrenderer")
    assert found.get("band") == "1" and found.get("alphaBand") == "-1"
    return found


def test_classes_have_their_colours_and_the_background_none(tmp_path):
    path = tmp_path / "mask.qml"
    write_qgis_style(str(path), {1: ("haul road <main> & ramps", (255, 10, 0)), 0: ("background", (0, 0, 0))})
    assert path.read_text().startswith("<!DOCTYPE qgis")
    found = renderer(path)
    assert found.get("type") == "paletted"
    entries = [tuple(e.get(key) for key in ("value", "label", "color", "alpha")) for e in found.iter("paletteEntry")]
    assert entries == [("0", "background", "#000000", "0"), ("1", "haul road <main> & ramps", "#ff0a00", "255")]
    assert [p.name for p in tmp_path.iterdir()] == ["mask.qml"]


def test_probabilities_rise_from_nothing_to_all(tmp_path):
    path = tmp_path / "probability.qml"
    write_qgis_probability_style(str(path))
    found = renderer(path)
    assert found.get("type") == "singlebandpseudocolor"
    assert (float(found.get("classificationMin")), float(found.get("classificationMax"))) == (0, 1)
    ramp = found.find("rastershader/colorrampshader")
    assert ramp.get("colorRampType") == "INTERPOLATED"
    items = [(float(item.get("value")), int(item.get("alpha")), item.get("label")) for item in ramp.iter("item")]
    assert [value for value, _, _ in items] == [0, 0.05, 0.5, 0.75, 1]
    assert [label for _, _, label in items] == ["0%", "5%", "50%", "75%", "100%"]
    assert [alpha for _, alpha, _ in items] == [0, 0, 191, 255, 255]  # 255 * (0.25 + 0.5), then all


def test_uncertainty_is_in_bits_and_looks_otherwise(tmp_path):
    colours = {}
    for name, write in (("sure", write_qgis_probability_style), ("unsure", write_qgis_uncertainty_style)):
        write(str(tmp_path / f"{name}.qml"))
        colours[name] = [item.get("color") for item in renderer(tmp_path / f"{name}.qml").iter("item")]
    labels = [item.get("label") for item in renderer(tmp_path / "unsure.qml").iter("item")]
    assert labels == ["0 bit", "0.05 bit", "0.5 bit", "0.75 bit", "1 bit"]
    assert not set(colours["sure"]) & set(colours["unsure"])


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "nowhere").write_text("no folder")
    with pytest.raises(ConfigError, match=r"nowhere/a.qml: cannot be written"):
        write_qgis_style(str(tmp_path / "nowhere" / "a.qml"), {})
