"""Pipeline steps that change images at random, and their normalisation.

The first four give what MMSegmentation's own steps give, bit for bit, in a fraction of the time and for any number of
bands; `RoadDataset` puts them in their place. `RandomRotate90`, `RandomAffineCrop` and `RandomLook` are for configs to
name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import cv2
import mmcv
import numpy as np
from mmseg.datasets.builder import PIPELINES
from mmseg.datasets.pipelines import Normalize, PhotoMetricDistortion, RandomCrop, RandomFlip

from ..errors import ConfigError
from .loading import gsd_scale

_draw = np.random  # the generator that MMSegmentation draws from, seeded in every worker
_VALUES = np.arange(256, dtype=np.uint8)
_CROP_TRIES = 10  # RandomCrop's
_FEW_LABELS = 16
_AXES = {"horizontal": 1, "vertical": 0, "diagonal": -1}
_BANDS_AT_ONCE = 4  # cv2.warpAffine's limit
_COS_SIN = {0.0: (1.0, 0.0), 90.0: (0.0, 1.0), 180.0: (-1.0, 0.0), 270.0: (0.0, -1.0)}  # without rounding errors


def _fields(results: dict) -> tuple[str, ...]:
    """Return the keys of the image and of its masks."""
    return ("img", *results.get("seg_fields", []))


def _with_hsv_changed(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """Return a BGR image (H, W, 3) after looking up one channel of its HSV form in ``table`` (256,)."""
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, channel), table), hsv, channel)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


@PIPELINES.register_module()
class BandDistortion(PhotoMetricDistortion):
    """Random brightness and contrast, the same for all bands; with three (BGR), random saturation and hue too.

    For images of three bands the result is that of ``PhotoMetricDistortion``, bit for bit, for the same state of
    NumPy's generator. Its arguments are taken as they are; images are uint8 (H, W, B).
    """

    def convert(self, img: np.ndarray, alpha: float = 1, beta: float = 0) -> np.ndarray:
        """Return ``img * alpha + beta``, cut to 0-255, uint8 (H, W, B)."""
        return cv2.LUT(img, super().convert(_VALUES, alpha, beta)).reshape(img.shape)

    def saturation(self, img: np.ndarray) -> np.ndarray:
        """Return ``img`` (H, W, B) with another saturation, if it has colours."""
        if img.shape[2] == 3 and _draw.randint(2):
            alpha = _draw.uniform(self.saturation_lower, self.saturation_upper)
            img = _with_hsv_changed(img, 1, super().convert(_VALUES, alpha=alpha))
        return img

    def hue(self, img: np.ndarray) -> np.ndarray:
        """Return ``img`` (H, W, B) with another hue, if it has colours."""
        if img.shape[2] == 3 and _draw.randint(2):
            turn = _draw.randint(-self.hue_delta, self.hue_delta)
            img = _with_hsv_changed(img, 0, ((_VALUES.astype(int) + turn) % 180).astype(np.uint8))
        return img


def normalize_setting(mean: Sequence[float], std: Sequence[float]) -> str:
    """Return the config's step that normalises bands, red first, of these means and standard deviations."""
    order = "" if len(mean) == 3 else ", to_rgb=False"
    return f"Normalize=dict(mean={mean}, std={std}{order})"


@PIPELINES.register_module()
class BandNormalize(Normalize):
    """Subtracts ``mean`` and divides by ``std``, band by band; the result is float32 (H, W, B).

    For uint8 images of three bands it is that of ``Normalize``, bit for bit, which reads no more than four.

    Args:
        mean: of each band, after the reversal, 0 to 255.
        std: of as many bands, or it is a `ConfigError`.
        to_rgb: reverse the three bands of a BGR image first.
    """

    def __init__(self, mean: list[float], std: list[float], to_rgb: bool = True) -> None:
        super().__init__(mean, std, to_rgb)
        if len(mean) != len(std):
            raise ConfigError(
                f"Normalize: {len(mean)} means but {len(std)} standard deviations; give one of each a band"
            )
        values = _VALUES.reshape(1, 256)
        # what mmcv computes for each value is what it computes for each pixel
        bands = [mmcv.imnormalize(values, m[None], s[None], False) for m, s in zip(self.mean, self.std, strict=True)]
        self._table = np.stack(bands, axis=2)

    def __call__(self, results: dict) -> dict:
        """Normalise the image and note how; a `ConfigError` where it has another number of bands than ``mean``."""
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


def _label_counts(labels: np.ndarray, ignore_index: int) -> np.ndarray:
    """Return how many pixels of ``labels`` (H, W) each label but ``ignore_index`` has, in the labels' order."""
    counts: list[int] = []
    rest = labels.size - np.count_nonzero(labels == ignore_index)
    for label in range(_FEW_LABELS):  # a comparison costs a thirtieth of sorting the pixels
        if rest == 0:
            return np.array(counts, dtype=np.int64)
        count = int(np.count_nonzero(labels == label)) if label != ignore_index else 0
        if count:
            counts.append(count)
        rest -= count
    values, sizes = np.unique(labels, return_counts=True)
    return sizes[values != ignore_index]


@PIPELINES.register_module()
class FastRandomCrop(RandomCrop):
    """Cuts what ``RandomCrop`` cuts for the same state of NumPy's generator, and leaves the same state behind.

    ``RandomCrop`` sorts the pixels of up to ten crops to count their labels, which takes more time than all other
    steps of the paper's pipeline together; here they are compared.
    """

    def _is_mixed(self, labels: np.ndarray) -> bool:
        """Return whether ``labels`` (H, W) hold two classes or more, of which none has too large a share."""
        counts = _label_counts(labels, self.ignore_index)
        return len(counts) > 1 and bool(counts.max() / counts.sum() < self.cat_max_ratio)

    def __call__(self, results: dict) -> dict:
        """Crop the image and the masks."""
        window = self.get_crop_bbox(results["img"])
        if self.cat_max_ratio < 1:
            for _ in range(_CROP_TRIES):
                if self._is_mixed(self.crop(results["gt_semantic_seg"], window)):
                    break
                window = self.get_crop_bbox(results["img"])
        for key in _fields(results):
            results[key] = self.crop(results[key], window)
        results["img_shape"] = results["img"].shape
        return results


@PIPELINES.register_module()
class FastRandomFlip(RandomFlip):
    """Mirrors as ``RandomFlip`` does for the same state of NumPy's generator.

    ``RandomFlip`` leaves a view with negative strides, which every later step of OpenCV copies slowly.
    """

    def __call__(self, results: dict) -> dict:
        """Mirror the image and the masks, unless ``results['flip']`` says otherwise."""
        if "flip" not in results:
            results["flip"] = bool(_draw.rand() < self.prob)
        results.setdefault("flip_direction", self.direction)
        if results["flip"]:
            axis = _AXES[results["flip_direction"]]
            for key in _fields(results):
                results[key] = cv2.flip(results[key], axis).reshape(results[key].shape)
        return results


@PIPELINES.register_module()
class RandomRotate90:
    """Turns image and masks by 0, 90, 180 or 270 degrees, each as likely; no pixel changes its value.

    From above there is no up and down, so that turned images are as good as new ones.
    """

    def __call__(self, results: dict) -> dict:
        """Turn ``img`` and every field of ``seg_fields``."""
        turns = int(_draw.randint(4))
        for key in _fields(results):
            results[key] = np.ascontiguousarray(np.rot90(results[key], turns))
        results["img_shape"] = results["pad_shape"] = results["img"].shape
        return results


def _linear_part(scale: float, angle_deg: float, flip: bool) -> np.ndarray:
    """Return the matrix (2, 2) from offsets (x, y) in the crop to offsets in the image, pixels.

    The image grows by ``scale``, is turned counter-clockwise, as by `numpy.rot90`, and then mirrored left to right.
    """
    angle = math.radians(angle_deg)
    cos, sin = _COS_SIN.get(angle_deg % 360, (math.cos(angle), math.sin(angle)))
    return np.array([[cos, -sin], [sin, cos]]) * [-1.0 if flip else 1.0, 1.0] / scale


def _averaged(image: np.ndarray, block: int) -> np.ndarray:
    """Return ``image`` (H, W, B) with one pixel for ``block`` x ``block``."""
    rows, cols = -(-image.shape[0] // block), -(-image.shape[1] // block)
    missing = rows * block - image.shape[0], cols * block - image.shape[1]
    if any(missing):
        image = cv2.copyMakeBorder(image, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
    return cv2.resize(image, (cols, rows), interpolation=cv2.INTER_AREA)


@PIPELINES.register_module()
class RandomAffineCrop:
    """Cuts a randomly scaled, turned and mirrored crop; only the crop's own pixels are ever computed.

    In place of ``Resize``, ``RandomCrop``, ``RandomFlip`` and ``Pad``. Images are interpolated linearly, after
    averaging blocks of k x k pixels where they shrink to 1/k or less (k >= 2), so that nothing is skipped; masks take
    the nearest pixel. With scale 1 and right angles pixels are copied. The crop stays inside the image where that
    is large enough; what lies beyond takes the mean of the image around the crop and is ignored.

    Args:
        crop_size: rows and columns of the crop.
        ratio_range: least and greatest scale; drawn so that halving is as likely as doubling.
        gsd_m: ground sampling distance at scale 1, metres per pixel; None: that of the image.
        max_angle_deg: turns by up to this angle to either side.
        quarter_turns: turn by 0, 90, 180 or 270 degrees as well.
        flip_probability: probability of mirroring, left to right.
        road_probability: probability of a crop that surely shows road (by `road_labels`), if its image has any.

    Raises:
        ConfigError: an argument makes no sense, or ``gsd_m`` is given and that of an image is not known.
    """

    def __init__(
        self,
        crop_size: Sequence[int],
        ratio_range: Sequence[float] = (0.5, 2.0),
        gsd_m: float | None = None,
        max_angle_deg: float = 0.0,
        quarter_turns: bool = True,
        flip_probability: float = 0.5,
        road_probability: float = 0.0,
    ) -> None:
        if len(crop_size) != 2 or min(crop_size) < 1:
            raise ConfigError(f"RandomAffineCrop: crop_size={tuple(crop_size)}; give rows and columns")
        if len(ratio_range) != 2 or not 0 < ratio_range[0] <= ratio_range[1]:
            raise ConfigError(f"RandomAffineCrop: ratio_range={tuple(ratio_range)}; give two scales, the smaller first")
        if gsd_m is not None and gsd_m <= 0:
            raise ConfigError(f"RandomAffineCrop: gsd_m={gsd_m}; give metres per pixel, more than 0")
        for name, share in (("flip_probability", flip_probability), ("road_probability", road_probability)):
            if not 0 <= share <= 1:
                raise ConfigError(f"RandomAffineCrop: {name}={share}; give a probability, 0 to 1")
        self.crop_size = tuple(crop_size)
        self.ratio_range = tuple(ratio_range)
        self.gsd_m = gsd_m
        self.max_angle_deg = max_angle_deg
        self.quarter_turns = quarter_turns
        self.flip_probability = flip_probability
        self.road_probability = road_probability

    def __call__(self, results: dict) -> dict:
        """Cut ``img`` and every field of ``seg_fields``."""
        base = 1.0 if self.gsd_m is None else gsd_scale(results, self.gsd_m, "RandomAffineCrop")
        scale = base * math.exp(_draw.uniform(math.log(self.ratio_range[0]), math.log(self.ratio_range[1])))
        angle_deg = _draw.uniform(-self.max_angle_deg, self.max_angle_deg)
        if self.quarter_turns:
            angle_deg += 90 * _draw.randint(4)
        flip = _draw.random_sample() < self.flip_probability
        wants_road = _draw.random_sample() < self.road_probability

        linear = _linear_part(scale, angle_deg, flip)
        matrix = self._placed_on_road(results, linear) if wants_road else None
        if matrix is None:
            low, high = self._centres(results["img"].shape, linear)
            matrix = self._placed(linear, _draw.uniform(low, high))
        results["img"] = self._warped_image(results["img"], matrix, scale)
        for key in results.get("seg_fields", []):
            labels, to_labels = self._needed(results[key], matrix, margin=1)
            results[key] = self._warp(labels, to_labels, cv2.INTER_NEAREST, [results.get("ignore_index", 255)])
        results.update(
            img_shape=results["img"].shape,
            pad_shape=results["img"].shape,
            scale_factor=np.full(4, scale, dtype=np.float32),
            keep_ratio=True,
            # the crop is taken as it is: no later step shall mirror it back
            flip=False,
            flip_direction=None,
        )
        return results

    @property
    def _crop_centre(self) -> np.ndarray:
        """Centre (x, y) of the crop in its own pixels; a pixel's centre has whole coordinates."""
        rows, cols = self.crop_size
        return np.array([(cols - 1) / 2, (rows - 1) / 2])

    def _centres(self, shape: Sequence[int], linear: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return least and greatest image position (x, y) of the crop's centre.

        On an axis on which the image is large enough, the crop stays inside; on another, it covers the image.
        """
        reach = np.abs(linear) @ (self._crop_centre + 0.5)
        ends = np.stack([reach - 0.5, np.array([shape[1], shape[0]]) - 0.5 - reach])
        return ends.min(axis=0), ends.max(axis=0)

    def _placed(self, linear: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """Return the affine matrix (2, 3) from the crop to the image whose crop has its centre at ``centre`` (x, y)."""
        offset = centre - linear @ self._crop_centre
        if np.array_equal(linear, linear.round()):
            offset = offset.round()  # pixels are copied
        return np.column_stack([linear, offset])

    def _placed_on_road(self, results: dict, linear: np.ndarray) -> np.ndarray | None:
        """Return an affine matrix (2, 3) whose crop shows road, None where the image has none."""
        labels = results["gt_semantic_seg"]
        road = np.flatnonzero(np.logical_or.reduce([labels == label for label in results["road_labels"]]))
        if len(road) == 0:
            return None
        low, high = self._centres(labels.shape, linear)
        last = 2 * self._crop_centre
        row, col = divmod(int(road[_draw.randint(len(road))]), labels.shape[1])
        target = np.array([col, row], dtype=float)
        within = _draw.uniform(0, last)
        centre = (target - linear @ (within - self._crop_centre)).clip(low, high)
        # a pixel of the crop that lies exactly on the target: nearest-pixel sampling cannot miss it
        within = (np.linalg.solve(linear, target - centre) + self._crop_centre).round().clip(0, last)
        return np.column_stack([linear, target - linear @ within])

    def _needed(self, source: np.ndarray, matrix: np.ndarray, margin: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the part of ``source`` that the crop needs, ``margin`` included, and the affine matrix to it."""
        rows, cols = self.crop_size
        corners = matrix @ np.array([[0, cols - 1, 0, cols - 1], [0, 0, rows - 1, rows - 1], [1, 1, 1, 1]])
        x0, y0 = (math.floor(least) - margin for least in corners.min(axis=1))
        x1, y1 = (math.ceil(greatest) + 1 + margin for greatest in corners.max(axis=1))
        left, top = min(max(x0, 0), source.shape[1] - 1), min(max(y0, 0), source.shape[0] - 1)
        return source[top : max(y1, top + 1), left : max(x1, left + 1)], matrix - [[0, 0, left], [0, 0, top]]

    def _warp(self, source: np.ndarray, matrix: np.ndarray, way: int, fill: Sequence[float]) -> np.ndarray:
        rows, cols = self.crop_size
        flags = way | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(
            source, matrix, (cols, rows), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=fill
        )

    def _warped_image(self, image: np.ndarray, matrix: np.ndarray, scale: float) -> np.ndarray:
        """Return the crop (h, w, B) of ``image`` (H, W, B)."""
        block = int(1 / scale)
        # the blocks at the window's edge can be cut off: none of them may be needed
        image, matrix = self._needed(image, matrix, margin=2 * block if block >= 2 else 1)
        if block >= 2:
            matrix = np.column_stack([matrix[:, :2], matrix[:, 2] + 0.5]) / block - [[0, 0, 0.5]]
        parts = []
        for first in range(0, image.shape[2], _BANDS_AT_ONCE):
            part = image[:, :, first : first + _BANDS_AT_ONCE]
            fill = cv2.mean(part)
            warped = self._warp(_averaged(part, block) if block >= 2 else part, matrix, cv2.INTER_LINEAR, fill)
            parts.append(warped.reshape(*self.crop_size, -1))
        return np.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]


def _exponential(reach: float) -> float:
    """Return a factor from 1 / ``reach`` to ``reach``, as often below 1 as above."""
    return math.exp(_draw.uniform(-math.log(reach), math.log(reach)))


@PIPELINES.register_module()
class RandomLook:
    """Gives an image the look of another sensor, season, light or file: what a network abroad must not mind.

    Each change comes with its own probability, in this order: other colours (a gain for every band and one for all, and
    a gamma), grey, a cloud's shadow, haze, blur, and JPEG compression. Images are uint8 (H, W, B); of any number of
    bands, except that only three become JPEG. Masks stay.

    Args:
        gain: greatest factor, or divisor, of a band; of all bands together its square root.
        gamma: greatest exponent, or root.
        haze: greatest share of haze.
        shade: darkest factor in a shadow.
        blur_px: greatest standard deviation of the blur.
        jpeg_quality: least quality, up to 100.
        probabilities: of each of colours, grey, shadow, haze, blur, jpeg; those left out stay.

    Raises:
        ConfigError: a probability of something else, or none from 0 to 1.
    """

    USUAL: ClassVar[dict[str, float]] = dict(colours=0.8, grey=0.1, shadow=0.2, haze=0.2, blur=0.2, jpeg=0.2)

    def __init__(
        self,
        gain: float = 1.3,
        gamma: float = 1.5,
        haze: float = 0.5,
        shade: float = 0.4,
        blur_px: float = 1.5,
        jpeg_quality: int = 30,
        probabilities: dict[str, float] | None = None,
    ) -> None:
        self.gain, self.gamma, self.haze, self.shade = gain, gamma, haze, shade
        self.blur_px, self.jpeg_quality = blur_px, jpeg_quality
        given = probabilities or {}
        if not set(given) <= set(self.USUAL) or not all(0 <= share <= 1 for share in given.values()):
            raise ConfigError(f"RandomLook: probabilities={given}; give shares, 0 to 1, of {', '.join(self.USUAL)}")
        self.probabilities = {**self.USUAL, **given}

    def __call__(self, results: dict) -> dict:
        """Change ``img``."""
        image = results["img"]
        for name, share in self.probabilities.items():
            if _draw.random_sample() < share:
                image = getattr(self, f"_{name}")(image).reshape(image.shape)
        results["img"] = image
        return results

    def _colours(self, image: np.ndarray) -> np.ndarray:
        bands = image.shape[2]
        gains = [_exponential(self.gain) for _ in range(bands)]
        both, power = _exponential(math.sqrt(self.gain)), _exponential(self.gamma)
        values = np.arange(256)[:, None] / 255 * np.array(gains) * both
        table = (255 * values.clip(0, 1) ** power).round().astype(np.uint8)
        return cv2.LUT(image, table.reshape(1, 256, bands))

    def _grey(self, image: np.ndarray) -> np.ndarray:
        mean = image.mean(axis=2, keepdims=True).round().astype(np.uint8)
        return np.repeat(mean, image.shape[2], axis=2)

    def _clouds(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return soft patches (H, W, 1), float32 from 0 to 1."""
        coarse = _draw.uniform(0, 1, (4, 4)).astype(np.float32)
        soft = cv2.resize(coarse, shape[1::-1], interpolation=cv2.INTER_CUBIC)
        return ((soft - 0.4) * 4).clip(0, 1)[:, :, None]

    def _shadow(self, image: np.ndarray) -> np.ndarray:
        factor = 1 - self._clouds(image.shape) * (1 - _draw.uniform(self.shade, 1))
        return (image * factor).round().astype(np.uint8)

    def _haze(self, image: np.ndarray) -> np.ndarray:
        share = self._clouds(image.shape) * _draw.uniform(0, self.haze)
        white = _draw.uniform(180, 255)
        return (image + (white - image) * share).round().astype(np.uint8)

    def _blur(self, image: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(image, (0, 0), _draw.uniform(0.3, max(0.3, self.blur_px)))

    def _jpeg(self, image: np.ndarray) -> np.ndarray:
        if image.shape[2] != 3:
            return image
        quality = int(_draw.randint(self.jpeg_quality, 101))
        packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))
