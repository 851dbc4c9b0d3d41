"""What people look at: data in, files out."""

from . import model_table
from .accuracy_table import accuracy_table
from .pictures import panel, save_panel
from .run_curves import plot_runs, read_curves
from .tables import markdown_table, save_metrics, update_blocks

__all__ = [
    "accuracy_table",
    "markdown_table",
    "model_table",
    "panel",
    "plot_runs",
    "read_curves",
    "save_metrics",
    "save_panel",
    "update_blocks",
]
