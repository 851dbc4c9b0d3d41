"""A network for tests of maps that needs no weights."""

import numpy as np

from mmseg_ext.imagery import ImageReading
from mmseg_ext.mapping import MapSettings
from mmseg_ext.runtime.facts import NetworkFacts

PLAIN = MapSettings(64, 16, 2)


class BrightNetwork:
    """Takes what is bright in its last band for road; ``reading`` are settings of an `ImageReading`."""

    def __init__(self, **reading):
        bands = len(reading.get("bands") or (1, 2, 3))
        plain = (0.0,) * bands, (1.0,) * bands, True
        look = ("background", "road"), ((0, 0, 0), (255, 0, 0))
        self.facts = NetworkFacts(*look, *plain, ImageReading(**reading), 1, 2, None, "0")
        self.execution = dict(backend="none", precision="fp32", exported_sha256=None, threads=1)
        self.software = {}

    def predict(self, images):
        road = np.stack(images)[..., -1] / 255
        return np.stack([1 - road, road], axis=1).astype(np.float32)
