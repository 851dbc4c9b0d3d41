"""Training, evaluation, distribution, checkpoints: what mmcv 1.7 lacks on today's PyTorch."""

from .. import registration  # noqa: F401  first
from .complexity import crop_size, estimate_training_memory, measure_complexity
from .config import config_for, leaf_configs, load_config
from .distributed import is_first_process
from .evaluation import PredictionWriter, evaluate_checkpoint
from .publishing import publish_checkpoint
from .test_time_augmentation import AUGMENTATIONS, use_augmentations
from .training import train
from .weights import build_network

__all__ = [
    "AUGMENTATIONS",
    "PredictionWriter",
    "build_network",
    "config_for",
    "crop_size",
    "estimate_training_memory",
    "evaluate_checkpoint",
    "is_first_process",
    "leaf_configs",
    "load_config",
    "measure_complexity",
    "publish_checkpoint",
    "train",
    "use_augmentations",
]
