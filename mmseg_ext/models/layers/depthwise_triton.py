"""Depthwise convolutions of channels-last tensors by Triton, forward and backward.

A depthwise convolution does few operations per value, so memory sets its time: each value is to come from memory once
and from the caches seldom. Two things serve that.

- A convolution of dilation d is d x d plain ones, each on every d-th row and column. A program's tile holds ``ROWS`` x
  ``COLUMNS`` pixels of one of them, so what it reads beyond its own pixels is no more than without dilation.
- A program keeps the sums of all its rows at a time. What it has read of a row serves every row of the tile, and so is
  read once for each column of the kernel instead of once for each tap.

Sums are float32 whatever the tensors are. Nothing is added atomically, and the order of the sums depends on nothing
but the shapes, so equal inputs give equal bits.
"""

# ruff: noqa: ANN001, ANN202, RUF005  the kernels handle values of Triton, which unpacks no tuples

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, library, nn

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
INTERPRETED = triton.knobs.runtime.interpret
ROWS = 4
# 4 values of each row in a thread, or 8 in the last, and no spilled registers; the interpreter has nothing to choose
_CONFIGS = [
    triton.Config({"COLUMNS": columns, "CHANNELS": channels}, num_warps=warps)
    for columns, channels, warps in [(16, 32, 4), (4, 32, 1), (8, 64, 4), (4, 64, 2), (16, 64, 4)]
][: 1 if INTERPRETED else None]
# Fixed, because the order of the sums follows from it.
_WEIGHT_COLUMNS, _WEIGHT_CHANNELS, _WEIGHT_WARPS = 16, 32, 4
_WEIGHT_PROGRAMS = 1024


@triton.jit
def _place(tile, height, width, dilation, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return image, first row and all columns of a tile; its other rows follow at the distance of the dilation."""
    row_shifts = tl.minimum(dilation, height)
    column_shifts = tl.minimum(dilation, width)
    row_tiles = tl.cdiv(tl.cdiv(height, dilation), ROWS) * row_shifts
    column_tiles = tl.cdiv(tl.cdiv(width, dilation), COLUMNS) * column_shifts
    column_tile = tile % column_tiles
    row_tile = tile // column_tiles % row_tiles
    row = row_tile % row_shifts + row_tile // row_shifts * ROWS * dilation
    column = column_tile // column_shifts * COLUMNS + tl.arange(0, COLUMNS)
    return tile // column_tiles // row_tiles, row, column_tile % column_shifts + column * dilation


@triton.autotune(_CONFIGS, key=["channels", "dilation", "KERNEL_HEIGHT", "KERNEL_WIDTH"])
@triton.jit
def _convolve(
    x,
    taps,
    bias,
    y,
    height,
    width,
    channels,
    dilation,
    KERNEL_HEIGHT: tl.constexpr,
    KERNEL_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Write one tile of the convolution."""
    image, row, columns = _place(tl.program_id(0), height, width, dilation, ROWS, COLUMNS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    exists = channel < channels
    start = image.to(tl.int64) * height * width * channels
    first = tl.zeros((COLUMNS, CHANNELS), tl.float32)
    if bias is not None:
        first += tl.load(bias + channel, mask=exists, other=0.0).to(tl.float32)[None, :]
    sums = (first,) * ROWS
    for kx in tl.static_range(KERNEL_WIDTH):
        factors = ()
        for ky in tl.static_range(KERNEL_HEIGHT):
            tap = tl.load(taps + (ky * KERNEL_WIDTH + kx) * channels + channel, mask=exists, other=0.0)
            factors = factors + (tap.to(tl.float32)[None, :],)  # type: ignore[assignment]
        sources = columns + (kx - KERNEL_WIDTH // 2) * dilation
        inside = ((sources >= 0) & (sources < width))[:, None] & exists[None, :]
        offsets = sources[:, None] * channels + channel[None, :]
        for i in tl.static_range(ROWS + KERNEL_HEIGHT - 1):
            at = row + (i - KERNEL_HEIGHT // 2) * dilation
            pointers = x + (start + at.to(tl.int64) * width * channels) + offsets
            values = tl.load(pointers, mask=inside & (at >= 0) & (at < height), other=0.0).to(tl.float32)
            for ky in tl.static_range(KERNEL_HEIGHT):
                if i - ky >= 0 and i - ky < ROWS:
                    total = sums[i - ky] + values * factors[ky]
                    sums = sums[: i - ky] + (total,) + sums[i - ky + 1 :]
    inside = (columns < width)[:, None] & exists[None, :]
    offsets = columns[:, None] * channels + channel[None, :]
    for j in tl.static_range(ROWS):
        at = row + j * dilation
        pointers = y + (start + at.to(tl.int64) * width * channels) + offsets
        tl.store(pointers, sums[j].to(y.dtype.element_ty), mask=inside & (at < height))


@triton.jit
def _sum_for_weights(
    x,
    gradient,
    partial,
    tiles,
    height,
    width,
    channels,
    dilation,
    KERNEL_HEIGHT: tl.constexpr,
    KERNEL_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Write the gradients of taps and, after them, bias that come from every n-th tile, n being the programs."""
    TAPS: tl.constexpr = KERNEL_HEIGHT * KERNEL_WIDTH
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    exists = channel < channels
    sums = (tl.zeros((COLUMNS, CHANNELS), tl.float32),) * (TAPS + 1)
    tile = tl.program_id(0)
    while tile < tiles:
        image, row, columns = _place(tile, height, width, dilation, ROWS, COLUMNS)
        start = image.to(tl.int64) * height * width * channels
        inside = (columns < width)[:, None] & exists[None, :]
        offsets = columns[:, None] * channels + channel[None, :]
        gradients = ()
        for j in tl.static_range(ROWS):
            at = row + j * dilation
            pointers = gradient + (start + at.to(tl.int64) * width * channels) + offsets
            values = tl.load(pointers, mask=inside & (at < height), other=0.0).to(tl.float32)
            gradients = gradients + (values,)  # type: ignore[assignment]
            sums = sums[:TAPS] + (sums[TAPS] + values,)
        for kx in tl.static_range(KERNEL_WIDTH):
            sources = columns + (kx - KERNEL_WIDTH // 2) * dilation
            inside = ((sources >= 0) & (sources < width))[:, None] & exists[None, :]
            offsets = sources[:, None] * channels + channel[None, :]
            for i in tl.static_range(ROWS + KERNEL_HEIGHT - 1):
                at = row + (i - KERNEL_HEIGHT // 2) * dilation
                pointers = x + (start + at.to(tl.int64) * width * channels) + offsets
                values = tl.load(pointers, mask=inside & (at >= 0) & (at < height), other=0.0).to(tl.float32)
                for ky in tl.static_range(KERNEL_HEIGHT):
                    if i - ky >= 0 and i - ky < ROWS:
                        total = sums[ky * KERNEL_WIDTH + kx] + values * gradients[i - ky]
                        sums = sums[: ky * KERNEL_WIDTH + kx] + (total,) + sums[ky * KERNEL_WIDTH + kx + 1 :]
        tile += tl.num_programs(0)
    for tap in tl.static_range(TAPS + 1):
        pointers = partial + (tl.program_id(0) * (TAPS + 1) + tap) * channels + channel
        tl.store(pointers, tl.sum(sums[tap], 0), mask=exists)


def _count_tiles(x: Tensor, dilation: int, columns: int) -> int:
    tiles = x.shape[0]
    for size, block in ((x.shape[2], ROWS), (x.shape[3], columns)):
        tiles *= min(dilation, size) * triton.cdiv(triton.cdiv(size, dilation), block)
    return tiles


@library.custom_op("mmseg_ext::depthwise_conv", mutates_args=())
def depthwise_conv(x: Tensor, taps: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """Return the depthwise convolution of ``x`` that keeps its size, zeros being around it.

    Args:
        x: (N, C, H, W) with channels last in memory, of a type in `DTYPES`.
        taps: weights (kernel height, kernel width, C), contiguous, both sides odd.
        bias: (C,), or None.
        dilation: of both axes.

    Returns:
        (N, C, H, W) with channels last, of the type of ``x``.
    """
    y = torch.empty_like(x, memory_format=torch.channels_last)
    _, channels, height, width = x.shape

    def grid(block: dict[str, int]) -> tuple[int, int]:
        return _count_tiles(x, dilation, block["COLUMNS"]), triton.cdiv(channels, block["CHANNELS"])

    with torch.cuda.device_of(x):
        _convolve[grid](x, taps, bias, y, height, width, channels, dilation, *taps.shape[:2], ROWS)
    return y


@library.custom_op("mmseg_ext::depthwise_conv_weight_gradient", mutates_args=())
def weight_gradient(x: Tensor, gradient: Tensor, kernel_height: int, kernel_width: int, dilation: int) -> Tensor:
    """Return the gradients of taps and bias, (kernel height * kernel width + 1, C) in float32, the bias last.

    Args:
        x: what was convolved, (N, C, H, W) with channels last.
        gradient: gradient of the convolution's result, likewise.
        kernel_height: rows of the kernel.
        kernel_width: columns of the kernel.
        dilation: of both axes.
    """
    _, channels, height, width = x.shape
    tiles = _count_tiles(x, dilation, _WEIGHT_COLUMNS)
    blocks = triton.cdiv(channels, _WEIGHT_CHANNELS)
    programs = min(tiles, max(1, _WEIGHT_PROGRAMS // blocks))
    partial = x.new_empty(programs, kernel_height * kernel_width + 1, channels, dtype=torch.float32)
    with torch.cuda.device_of(x):
        _sum_for_weights[programs, blocks](
            x,
            gradient,
            partial,
            tiles,
            height,
            width,
            channels,
            dilation,
            kernel_height,
            kernel_width,
            ROWS,
            _WEIGHT_COLUMNS,
            _WEIGHT_CHANNELS,
            num_warps=_WEIGHT_WARPS,
        )
    return partial.sum(0)


@depthwise_conv.register_fake
def _(x: Tensor, taps: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


@weight_gradient.register_fake
def _(x: Tensor, gradient: Tensor, kernel_height: int, kernel_width: int, dilation: int) -> Tensor:
    return x.new_empty(kernel_height * kernel_width + 1, x.shape[1], dtype=torch.float32)


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, taps, _, ctx.dilation = inputs
    ctx.save_for_backward(x, taps)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
    x, taps = ctx.saved_tensors
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    for_x = for_taps = for_bias = None
    if ctx.needs_input_grad[0]:
        for_x = depthwise_conv(gradient, taps.flip(0, 1), None, ctx.dilation)
    if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
        both = weight_gradient(x, gradient, taps.shape[0], taps.shape[1], ctx.dilation).to(taps.dtype)
        for_taps, for_bias = both[:-1].view_as(taps), both[-1] if ctx.needs_input_grad[2] else None
    return for_x, for_taps, for_bias, None


depthwise_conv.register_autograd(_backward, setup_context=_keep)


class TritonDepthwiseConv(nn.Conv2d):
    """A depthwise convolution on the kernels of this file wherever they apply, and ``nn.Conv2d`` elsewhere.

    They apply on a GPU to channels-last tensors of the types in `DTYPES`, and not while a network is being exported.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved features (N, C, H, W)."""
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        exporting = torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export() or torch.jit.is_tracing()
        if (
            exporting
            or not (x.is_cuda or INTERPRETED)
            or x.dtype not in DTYPES
            or x.dim() != 4
            or not x.numel()
            or not x.is_contiguous(memory_format=torch.channels_last)
        ):
            return super().forward(x)
        taps = self.weight[:, 0].permute(1, 2, 0).contiguous()
        return depthwise_conv(x, taps, self.bias, self.dilation[0])
