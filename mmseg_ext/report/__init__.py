"""What people look at: data in, pictures out."""

from .panel import save_panel

__all__ = ["save_panel"]
