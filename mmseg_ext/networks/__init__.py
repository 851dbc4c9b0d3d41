"""Road networks made from maps: lines with widths, nodes, surfaces, heights, changes between surveys, layer files."""

from .comparison import compare_networks
from .extraction import NetworkSettings, RoadLayers, extract_network
from .heights import HeightSettings, add_heights, check_dem
from .layer_files import check_layer_files, layer_files, write_layers
from .pieces import CHANGES, ComparisonSettings
from .survey import Survey, read_area, read_survey

__all__ = [
    "CHANGES",
    "ComparisonSettings",
    "HeightSettings",
    "NetworkSettings",
    "RoadLayers",
    "Survey",
    "add_heights",
    "check_dem",
    "check_layer_files",
    "compare_networks",
    "extract_network",
    "layer_files",
    "read_area",
    "read_survey",
    "write_layers",
]
