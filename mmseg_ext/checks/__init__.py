"""Checks of input before work starts."""

from .doctor import Diagnosis, check_dataset, check_datasets, examine, write_doctor_sheet
from .findings import Finding
from .splits import Split, splits_of_config, splits_of_folder

__all__ = [
    "Diagnosis",
    "Finding",
    "Split",
    "check_dataset",
    "check_datasets",
    "examine",
    "splits_of_config",
    "splits_of_folder",
    "write_doctor_sheet",
]
