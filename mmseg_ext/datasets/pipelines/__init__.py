"""Pipeline steps, registered into MMSegmentation's ``PIPELINES``."""

from .load_road_image import LoadRoadImage, to_bgr
from .load_road_mask import LoadRoadMask, check_labels, check_same_size, read_mask

__all__ = ["LoadRoadImage", "LoadRoadMask", "check_labels", "check_same_size", "read_mask", "to_bgr"]
