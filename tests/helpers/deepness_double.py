"""A stand-in for the QGIS plugin Deepness 0.6.5, which needs QGIS: what it reads of a file and does with a tile.

Written after the plugin's published source (classes ModelBase, Segmentor and MapProcessorSegmentation). It has neither
the plugin's reading of layers, nor its grid of tiles, median filter and polygons.
"""

import json

import numpy as np
import onnxruntime


class DeepnessSegmentor:
    """An ONNX file as the plugin takes it; an AssertionError where it would refuse."""

    def __init__(self, path):
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (given,), (returned,) = self.session.get_inputs(), self.session.get_outputs()
        self.name, self.shape = given.name, given.shape
        entries = {key: json.loads(value) for key, value in self.session.get_modelmeta().custom_metadata_map.items()}
        assert str(entries["model_type"]).capitalize() == "Segmentor"
        assert self.shape[2] == self.shape[3] == int(entries["tile_size"])
        assert len(returned.shape) == 4 and returned.shape[2] == returned.shape[3]
        names = sorted(entries["class_names"].items(), key=lambda item: int(item[0]))
        assert [int(key) for key, _ in names] == list(range(returned.shape[1]))
        self.class_names = [name for _, name in names]
        self.resolution_cm = float(entries["resolution"])
        self.overlap_percent = int(entries["tiles_overlap"])
        self.threshold, self.small_segment = float(entries["seg_thresh"]), int(entries["seg_small_segment"])
        self.mean, self.std = (
            np.array([float(value) for value in entries[f"standardization_{name}"]], np.float32)
            for name in ("mean", "std")
        )

    def classes(self, tiles):
        """Return the classes (N, H, W) of tiles (N, H, W, C) of the raster's type."""
        limited = tiles[:, :, :, : self.shape[-3]]
        standardized = (np.float32(limited * 1.0 / 255.0) - self.mean) / self.std
        (found,) = self.session.run(None, {self.name: np.transpose(standardized, (0, 3, 1, 2))})
        found[found < self.threshold] = 0
        return np.argmax(found, axis=1)
