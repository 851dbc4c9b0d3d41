"""ImageNet pre-training of the MSCAN encoders with timm; importing the package registers them in timm."""

from .classifiers import CLASSIFIERS, Classifier, create_classifier, load_classifier
from .settings import PretrainSettings, add_pretrain_options
from .training import evaluate_classifier, pretrain

__all__ = [
    "CLASSIFIERS",
    "Classifier",
    "PretrainSettings",
    "add_pretrain_options",
    "create_classifier",
    "evaluate_classifier",
    "load_classifier",
    "pretrain",
]
