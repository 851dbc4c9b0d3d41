"""How fast methods are on backends, beside each other in one run."""

from .cell import Cell, Contender, parse_contender
from .layer_profile import layer_profile
from .machine import machine_facts
from .measuring import measure
from .prepared import Settings
from .record import Record, figures
from .scaling import scaling_cells, scaling_markdown, scaling_rows
from .speed_table import speed_bars, speed_markdown

__all__ = [
    "Cell",
    "Contender",
    "Record",
    "Settings",
    "figures",
    "layer_profile",
    "machine_facts",
    "measure",
    "parse_contender",
    "scaling_cells",
    "scaling_markdown",
    "scaling_rows",
    "speed_bars",
    "speed_markdown",
]
