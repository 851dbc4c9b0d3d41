"""From road maps to vector layers: lines with widths, their nodes, and the road's surface."""

from ..errors import require

require(("geopandas",), "gis", "vector layers")

from .extraction import NetworkSettings, RoadLayers, extract_network  # noqa: E402
from .layer_files import LAYER_SUFFIXES, check_layer_files, layer_files, write_layers  # noqa: E402

__all__ = [
    "LAYER_SUFFIXES",
    "NetworkSettings",
    "RoadLayers",
    "check_layer_files",
    "extract_network",
    "layer_files",
    "write_layers",
]
