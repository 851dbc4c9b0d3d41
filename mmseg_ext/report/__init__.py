"""What people look at: data in, files out."""

from .pictures import panel, save_picture
from .tables import markdown_table, save_metrics, update_blocks

__all__ = ["markdown_table", "panel", "save_metrics", "save_picture", "update_blocks"]
