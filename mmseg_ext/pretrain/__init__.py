"""Pre-training of encoders: as timm classifiers on ImageNet, or by a teacher's features on unlabelled images.

Importing the package registers the MSCAN encoders in timm.
"""

from .classifiers import CLASSIFIERS, Classifier, create_classifier, load_classifier
from .crops import list_images
from .distillation import distil
from .settings import DistilSettings, PretrainSettings, add_model_options
from .training import evaluate_classifier, pretrain

__all__ = [
    "CLASSIFIERS",
    "Classifier",
    "DistilSettings",
    "PretrainSettings",
    "add_model_options",
    "create_classifier",
    "distil",
    "evaluate_classifier",
    "list_images",
    "load_classifier",
    "pretrain",
]
