"""Road networks made from maps: lines with widths, nodes, surfaces, heights, changes between surveys, layer files."""

from ..errors import require

require(("geopandas",), "networks", "vector layers")

from .comparison import compare_networks  # noqa: E402
from .extraction import NetworkSettings, RoadLayers, extract_network  # noqa: E402
from .heights import HeightSettings, add_heights, check_dem  # noqa: E402
from .layer_files import check_layer_files, layer_files, write_layers  # noqa: E402
from .pieces import CHANGES, ComparisonSettings  # noqa: E402
from .survey import Survey, read_area, read_survey  # noqa: E402

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
