"""MMSegmentation's Normalize for any number of bands, by lookup tables."""

from __future__ import annotations

import cv2
import mmcv
import numpy as np
from mmseg.datasets.builder import PIPELINES
from mmseg.datasets.pipelines import Normalize

from ...errors import ConfigError


@PIPELINES.register_module()
class BandNormalize(Normalize):
    """Subtracts ``mean`` and divides by ``std``, band by band; the result is float32 (H, W, B).

    For uint8 images of three bands it is that of ``Normalize``, bit for bit, which reads no more than four.

    Args:
        mean: of each band, after the reversal, 0 to 255.
        std: of each band, after the reversal.
        to_rgb: reverse the three bands of a BGR image first.

    Raises:
        ConfigError: ``mean`` and ``std`` are not for as many bands.
    """

    def __init__(self, mean: list[float], std: list[float], to_rgb: bool = True) -> None:
        super().__init__(mean, std, to_rgb)
        if len(mean) != len(std):
            raise ConfigError(
                f"Normalize: {len(mean)} means but {len(std)} standard deviations; give one of each a band"
            )
        values = np.arange(256, dtype=np.uint8).reshape(1, 256)
        # what mmcv computes for each value is what it computes for each pixel
        bands = [mmcv.imnormalize(values, m[None], s[None], False) for m, s in zip(self.mean, self.std, strict=True)]
        self._table = np.stack(bands, axis=2)

    def __call__(self, results: dict) -> dict:
        """Normalise the image and note how.

        Raises:
            ConfigError: the image has another number of bands than ``mean``.
        """
        image = results["img"]
        if image.shape[2] != len(self.mean):
            raise ConfigError(
                f"{results.get('filename')}: {image.shape[2]} bands, but Normalize has {len(self.mean)} means; "
                "give mean and std of every band (tools/convert_dataset.py measures them)"
            )
        if image.dtype != np.uint8:
            return super().__call__(results)
        if self.to_rgb:
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        results["img"] = cv2.LUT(image, self._table).reshape(image.shape)
        results["img_norm_cfg"] = dict(mean=self.mean, std=self.std, to_rgb=self.to_rgb)
        return results
