"""Pipeline steps, registered into MMSegmentation's ``PIPELINES``."""

from .band_distortion import BandDistortion
from .band_normalize import BandNormalize
from .fast_random_crop import FastRandomCrop
from .fast_random_flip import FastRandomFlip
from .load_road_image import LoadRoadImage, to_bgr
from .load_road_mask import LoadRoadMask, check_labels, check_same_size, read_mask
from .random_affine_crop import RandomAffineCrop
from .random_rotate90 import RandomRotate90
from .scale_to_gsd import ScaleToGSD

__all__ = [
    "BandDistortion",
    "BandNormalize",
    "FastRandomCrop",
    "FastRandomFlip",
    "LoadRoadImage",
    "LoadRoadMask",
    "RandomAffineCrop",
    "RandomRotate90",
    "ScaleToGSD",
    "check_labels",
    "check_same_size",
    "read_mask",
    "to_bgr",
]
