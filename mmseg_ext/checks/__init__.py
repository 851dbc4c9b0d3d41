"""Checks of input before work starts."""

from .dataset import check_dataset

__all__ = ["check_dataset"]
