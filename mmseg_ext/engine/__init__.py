"""Training, evaluation, distribution, checkpoints: what mmcv 1.7 lacks on today's PyTorch."""

from .complexity import Complexity, measure_complexity
from .config import add_config_options, leaf_configs, load_config
from .distributed import is_first_process
from .embedded_config import config_for, config_of_checkpoint
from .evaluation import EvalHook, evaluate_checkpoint
from .memory import crop_size, estimate_training_memory
from .network import build_network
from .non_finite_guard import NonFiniteGuard
from .prediction_samples_hook import PredictionSamplesHook
from .prediction_writer import PredictionWriter
from .progress_bar import ProgressBar
from .publishing import publish_checkpoint
from .repeating import repeat, repeat_table, train_and_score
from .runner import SafeIterRunner
from .step_hook import StepHook
from .test_time_augmentation import AUGMENTATIONS, use_augmentations
from .training import train
from .weight_average_hook import WeightAverageHook

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
