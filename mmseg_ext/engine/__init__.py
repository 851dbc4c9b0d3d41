"""Training, evaluation, distribution, checkpoints: what mmcv 1.7 lacks on today's PyTorch."""

from .checkpoint import config_for, config_of_checkpoint
from .complexity import Complexity, crop_size, estimate_training_memory, measure_complexity
from .config import add_config_options, leaf_configs, load_config
from .distributed import is_first_process
from .evaluation import EvalHook, PredictionWriter, evaluate_checkpoint
from .hooks import PredictionSamplesHook, ProgressBar, StepHook, WeightAverageHook
from .non_finite_guard import NonFiniteGuard
from .publishing import publish_checkpoint
from .repeating import repeat, repeat_table, train_and_score
from .runner import SafeIterRunner
from .test_time_augmentation import AUGMENTATIONS, use_augmentations
from .training import train
from .weights import build_network

__all__ = [
    "AUGMENTATIONS",
    "Complexity",
    "EvalHook",
    "NonFiniteGuard",
    "PredictionSamplesHook",
    "PredictionWriter",
    "ProgressBar",
    "SafeIterRunner",
    "StepHook",
    "WeightAverageHook",
    "add_config_options",
    "build_network",
    "config_for",
    "config_of_checkpoint",
    "crop_size",
    "estimate_training_memory",
    "evaluate_checkpoint",
    "is_first_process",
    "leaf_configs",
    "load_config",
    "measure_complexity",
    "publish_checkpoint",
    "repeat",
    "repeat_table",
    "train",
    "train_and_score",
    "use_augmentations",
]
