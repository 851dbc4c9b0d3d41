"""What people look at: data in, files out."""

from .metrics_file import save_metrics
from .panel import save_panel

__all__ = ["save_metrics", "save_panel"]
