"""ImageNet pre-training of the MSCAN encoders with timm; importing the package registers them in timm."""

from .classifiers import MODELS, Classifier, create_classifier, load_classifier
from .image_folder import ImageFolder
from .settings import Settings, add_settings
from .training import evaluate_classifier, pretrain

__all__ = [
    "MODELS",
    "Classifier",
    "ImageFolder",
    "Settings",
    "add_settings",
    "create_classifier",
    "evaluate_classifier",
    "load_classifier",
    "pretrain",
]
