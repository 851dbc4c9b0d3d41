"""Checks of input before work starts."""

from .. import registration  # noqa: F401  first
from .doctor import Diagnosis, check_datasets, examine, write_doctor_sheet
from .splits import splits_of_config, splits_of_folder

__all__ = ["Diagnosis", "check_datasets", "examine", "splits_of_config", "splits_of_folder", "write_doctor_sheet"]
