"""The charts and pictures of a road report: charts as (address, alternative text), pictures as RGB uint8."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from ..errors import LazyModule
from ..metrics.pixels import (
    ProbabilityCounts,
    best_threshold,
    calibration_curve,
    expected_calibration_error,
    precision_recall_curve,
    within_distance,
)
from ..report.pictures import data_url, fitted, hatch, paint_labels

matplotlib = LazyModule("matplotlib", "plots", "a road report")
_matplotlib_figure = LazyModule("matplotlib.figure", "plots", "a road report")

_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#767676"
_ISO_F1 = (0.2, 0.4, 0.6, 0.8)
_CALIBRATION_BINS = 15
HIT, MISSED, FALSE, NEAR, IGNORED = 1, 2, 3, 4, 255
# safe for colour-blind readers: Okabe and Ito, "Color Universal Design", 2008
ERROR_COLOURS = {HIT: (0, 158, 115), MISSED: (0, 114, 178), FALSE: (213, 94, 0), NEAR: (240, 228, 66)}
TRUTH_COLOUR, PREDICTED_COLOUR, GAP_COLOUR = ERROR_COLOURS[MISSED], ERROR_COLOURS[FALSE], (0, 0, 0)
_CONTRAST = 0.45
_GAP_RADIUS_PX = 7
_SUBPIXEL_BITS = 4


def precision_recall_chart(counts: ProbabilityCounts) -> tuple[str, str]:
    """Return the precision-recall curve over the threshold, with its best F1."""
    curve, threshold = precision_recall_curve(counts), best_threshold(counts)
    figure, (axes,) = _figure(5.2, 4.6)
    for f1 in _ISO_F1:  # f1 = 2 p r / (p + r), so p = f1 r / (2 r - f1)
        recall = np.linspace(f1 / (2 - f1), 1, 50)
        axes.plot(100 * recall, 100 * f1 * recall / (2 * recall - f1), color="#d0d0d0", linewidth=0.8, zorder=1)
        axes.annotate(
            f"F1 {100 * f1:.0f}",
            (100 * f1 / (2 - f1), 100),
            (4, -1),
            textcoords="offset points",
            va="top",
            fontsize=8,
            color=_GREY,
        )
    axes.plot(100 * curve.recall, 100 * curve.precision, color=_BLUE, marker=".", markersize=4)
    words = "no threshold has an F1"
    if np.isfinite(threshold):
        best = np.abs(curve.thresholds - threshold).argmin()
        words = f"best F1 {100 * curve.f1[best]:.1f} % at threshold {threshold:.2f}"
        axes.plot(100 * curve.recall[best], 100 * curve.precision[best], "o", color=_ORANGE, markersize=9, zorder=3)
    axes.set_title(_capital(words), fontsize=11)
    axes.set(xlabel="recall, %", ylabel="precision, %", xlim=(0, 101), ylim=(0, 101), aspect="equal")
    return _svg_url(figure), f"Precision over recall: {words}."


def calibration_chart(counts: ProbabilityCounts) -> tuple[str, str]:
    """Return the calibration curve above the pixels of each bin."""
    figure, (curve, bars) = _figure(5.2, 4.6, (3, 1))
    found, error = calibration_curve(counts, _CALIBRATION_BINS), expected_calibration_error(counts, _CALIBRATION_BINS)
    probability, share = 100 * found.mean_probability, 100 * found.road_share
    words = f"expected calibration error {100 * error:.2f} %" if np.isfinite(error) else "no pixel to score"
    curve.plot((0, 100), (0, 100), "--", color=_GREY, linewidth=1, label="perfect")
    curve.vlines(probability, share, probability, color=_ORANGE, linewidth=1.2, label="difference")
    curve.plot(probability, share, color=_BLUE, marker="o", markersize=4, label="measured")
    curve.set_title(_capital(words), fontsize=11)
    curve.set(ylabel="true road, %", xlim=(0, 100), ylim=(-2, 102))
    curve.legend(frameon=False, fontsize=9)
    bars.bar(probability, found.pixels, width=60 / _CALIBRATION_BINS, color=_BLUE)
    bars.set(xlabel="predicted road probability, %", ylabel="pixels")
    if len(probability):
        bars.set_yscale("log")
        bars.set_ylim(bottom=0.8)
    return _svg_url(figure), f"Share of true road over the predicted probability: {words}."


def distribution_chart(values: Mapping[str, np.ndarray]) -> tuple[str, str]:
    """Return a strip of dots, one an image, for ratios 0 to 1 (N,) by their label; nan where an image has none."""
    figure, (axes,) = _figure(10.6, 0.8 + 0.34 * len(values))
    random = np.random.default_rng(0)
    for row, ratios in enumerate(values.values()):
        percent = 100 * ratios[np.isfinite(ratios)]
        heights = row + random.uniform(-0.22, 0.22, len(percent))
        axes.scatter(percent, heights, s=16, color=_BLUE, alpha=0.45, linewidths=0, rasterized=True)
        median = np.median(percent) if len(percent) else np.nan
        axes.vlines(median, row - 0.36, row + 0.36, color=_ORANGE, linewidth=2.5)
        axes.text(101.5, row, f"{median:.1f}" if len(percent) else "n/a", va="center", fontsize=9)
    axes.text(101.5, -0.7, "median", va="center", fontsize=9, color=_ORANGE)
    axes.set_yticks(range(len(values)), list(values), parse_math=False)
    axes.set(xlim=(-1, 101), ylim=(len(values) - 0.5, -0.5), xlabel="%")
    axes.grid(axis="y", visible=False)
    return _svg_url(figure), f"One dot an image, and the median, of: {', '.join(values)}."


def _figure(width: float, height: float, ratios: tuple[int, ...] = (1,)) -> tuple[Any, list[Any]]:
    """Return a figure of that many inches, which no window manager holds, and its axes from top to bottom.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = _matplotlib_figure.Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0])
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg_url(figure: Any) -> str:
    data = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "road report"}):
        figure.savefig(data, format="svg", dpi=150, metadata={"Date": None})
    return data_url(data.getvalue(), "image/svg+xml")


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


def error_classes(
    truth: np.ndarray, prediction: np.ndarray, tolerance_px: float, valid: np.ndarray | None = None
) -> np.ndarray:
    """Return what became of every pixel: uint8 (H, W).

    0 for background, `HIT` (road in both), `NEAR` (road in one, within the tolerance of the other), else `MISSED`
    (only true) or `FALSE` (only predicted), and `IGNORED`. All masks are bool (H, W).
    """
    counts = np.ones(truth.shape, bool) if valid is None else valid
    truth, prediction = truth & counts, prediction & counts
    near = (truth & within_distance(prediction, tolerance_px)) | (prediction & within_distance(truth, tolerance_px))
    classes = np.zeros(truth.shape, np.uint8)
    classes[truth], classes[prediction], classes[near] = MISSED, FALSE, NEAR
    classes[truth & prediction], classes[~counts] = HIT, IGNORED
    return classes


def truth_picture(image: np.ndarray, truth: np.ndarray, valid: np.ndarray | None, longest: int) -> np.ndarray:
    """Return ``image`` (H, W, 3) with the roads of ``truth`` (H, W) tinted; ``longest`` pixels long."""
    labels = truth.astype(np.uint8)
    if valid is not None:
        labels[~valid] = IGNORED
    return paint_labels(image, labels, ((0, 0, 0), TRUTH_COLOUR), IGNORED, longest)


def error_picture(image: np.ndarray, classes: np.ndarray, longest: int) -> np.ndarray:
    """Return ``image`` (H, W, 3), dimmed, below the colours of `error_classes` (H, W); ``longest`` pixels long.

    A smaller pixel has the colour of the class with the largest share of it, as strong as the root of the road's
    share, so that thin roads stay visible and no mixture of two colours reads as a third.
    """
    shares = np.stack([fitted((classes == kind).astype(np.float32), longest) for kind in ERROR_COLOURS])
    colours = np.array(list(ERROR_COLOURS.values()), np.float32)[shares.argmax(axis=0)]
    picture = _dimmed(image, longest)
    picture += np.sqrt(shares.sum(axis=0))[..., None] * (colours - picture)
    hatch(picture, classes == IGNORED)
    return _rounded(picture)


def graph_picture(
    image: np.ndarray,
    truth_lines: Sequence[np.ndarray],
    predicted_lines: Sequence[np.ndarray],
    gaps: np.ndarray,
    longest: int,
) -> np.ndarray:
    """Return ``image`` (H, W, 3), dimmed, below the true and the predicted lines and circles around gaps.

    Lines (N, 2) and gaps (G, 2) are x, y in pixels of ``image``, integers at pixel centres; the picture is ``longest``
    pixels long, the thickness of what is drawn does not depend on the image's size.
    """
    picture = _rounded(_dimmed(image, longest))
    scale = np.array(picture.shape[1::-1]) / image.shape[1::-1]

    def placed(points: np.ndarray) -> np.ndarray:
        return (((points + 0.5) * scale - 0.5) * 2**_SUBPIXEL_BITS).round().astype(np.int32)

    for lines, colour, thickness in ((truth_lines, TRUTH_COLOUR, 8), (predicted_lines, PREDICTED_COLOUR, 3)):
        for line in lines:
            cv2.polylines(picture, [placed(line)], False, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
    for gap in gaps:
        x, y = placed(gap).tolist()
        radius = _GAP_RADIUS_PX * 2**_SUBPIXEL_BITS
        for colour, thickness in (((255, 255, 255), 5), (GAP_COLOUR, 2)):
            cv2.circle(picture, (x, y), radius, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
    return picture


def entropy_picture(entropy: np.ndarray, valid: np.ndarray | None, longest: int) -> np.ndarray:
    """Return ``entropy`` (H, W), 0 to 1, from dark blue to yellow; ``longest`` pixels long."""
    picture = entropy_colours(fitted(entropy.astype(np.float32), longest))
    if valid is not None:
        hatch(picture, ~valid)
    return picture


def entropy_colours(entropy: np.ndarray) -> np.ndarray:
    """Return the colours (h, w, 3) of ``entropy`` (h, w), 0 to 1."""
    return np.ascontiguousarray(cv2.applyColorMap(_rounded(255 * entropy), cv2.COLORMAP_CIVIDIS)[..., ::-1])


def _dimmed(image: np.ndarray, longest: int) -> np.ndarray:
    """Return ``image`` grey and pale: float32 (h, w, 3)."""
    grey = fitted(image, longest).mean(axis=2, dtype=np.float32, keepdims=True)
    return np.repeat(255 - _CONTRAST * (255 - grey), 3, axis=2)


def _rounded(picture: np.ndarray) -> np.ndarray:
    return picture.round().clip(0, 255).astype(np.uint8)
