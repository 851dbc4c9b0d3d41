"""Checks of input before work starts."""

from .dataset import check_dataset, check_datasets
from .diagnosis import Diagnosis
from .doctor import examine
from .doctor_sheet import write_doctor_sheet
from .finding import Finding
from .split import Split
from .split_files import splits_of_config, splits_of_folder

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
