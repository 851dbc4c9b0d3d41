#!/usr/bin/env python
"""Speed of the depthwise convolutions, and of the whole network with and without our kernel for them, on this GPU.

`stages` takes every depthwise convolution of D-SegNeXt-T, S and B and compares its time with the roofline: the bytes
that have to move over what a copy within the GPU's memory moves. Forward these are x and y; backward x, both gradients.
`network` takes D-SegNeXt-T, inference and training step.

Examples:
    python tools/measure_kernels.py stages --batch 8 --precision bf16
    python tools/measure_kernels.py network
"""

import argparse
import copy
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from mmcv import Config
from mmcv.cnn.utils import revert_sync_batchnorm
from torch import Tensor

from mmseg_ext.engine import build_network, load_config
from mmseg_ext.engine.precision import DTYPES
from mmseg_ext.engine.training_speed import measure_training
from mmseg_ext.errors import ConfigError, run_tool
from mmseg_ext.models.folding import folded
from mmseg_ext.models.layers import Hamburger
from mmseg_ext.models.layers.depthwise import use_depthwise_kernel
from mmseg_ext.models.layers.msca import depthwise_conv
from mmseg_ext.models.scores import Scores
from mmseg_ext.report import markdown_table

CONFIGS = Path(__file__).resolve().parents[1] / "myconfigs" / "dsegnext"
SIZES = {
    "T": "tiny/dsegnext.tiny.1024x1024.OPM.20k.scratch.py",
    "S": "small/dsegnext.small.1024x1024.OPM.20k.scratch.py",
    "B": "base/dsegnext.base.1024x1024.OPM.40k.scratch.py",
}
METHODS = {
    "cuDNN NCHW": ("cudnn", torch.contiguous_format),
    "cuDNN channels_last": ("cudnn", torch.channels_last),
    "Triton": ("triton", torch.channels_last),
}
INFERENCE = (
    "fp32",
    "bf16+channels_last+folded",
    "fp16+channels_last+folded",
    "bf16+channels_last+folded+graph",
    "fp16+channels_last+folded+graph",
    "bf16+channels_last+folded+max-autotune-no-cudagraphs",
    "bf16+channels_last+folded+reduce-overhead",
    "bf16+channels_last+folded+triton+graph",
    "bf16+channels_last+folded+triton+reduce-overhead",
    "fp16+channels_last+folded+triton+graph",
)
TRAINING = (
    "fp32+loop",
    "bf16+channels_last",
    "bf16+channels_last+triton",
    "bf16+channels_last+compile",
    "bf16+channels_last+compile+triton",
)
MODES = ("max-autotune-no-cudagraphs", "reduce-overhead")
WARM_UP = 3


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    stages = what.add_parser("stages", help="every depthwise convolution against the roofline")
    stages.add_argument("--batch", type=int, default=8, help="images (default: 8)")
    stages.add_argument("--precision", choices=DTYPES, default="bf16", help="type of the features (default: bf16)")
    network = what.add_parser("network", help="inference and training step of D-SegNeXt-T")
    network.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16], help="of inference (default: 1 4 16)")
    network.add_argument("--training-batches", type=int, nargs="*", default=[4, 8], help="(default: 4 8)")
    for one in (stages, network):
        one.add_argument("--size", type=int, default=1024, help="rows and columns of an image (default: 1024)")
        one.add_argument("--rounds", type=int, default=10, help="medians of so many (default: 10)")
    return parser.parse_args()


def config(size: str) -> Config:
    """Return the config of D-SegNeXt-``size``."""
    return load_config(str(CONFIGS / SIZES[size]))


def replayed(work: Callable[[], object]) -> Callable[[], object]:
    """Return a function that does ``work`` as one CUDA graph, so that launching costs next to nothing."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    kept = []
    with torch.cuda.graph(graph):
        kept.append(work())

    def replay() -> object:
        graph.replay()
        return kept[0]

    return replay


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Return the median time of ``work``, after a few times that warm up."""
    times = []
    for turn in range(WARM_UP + rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        if turn >= WARM_UP:
            times.append(time.perf_counter() - start)
    return median(times)


def copy_bandwidth(rounds: int) -> float:
    """Return the bytes per second that a copy within the GPU's memory reads and writes."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / seconds(lambda: target.copy_(source), rounds)


def convolutions(model: Config, size_px: int) -> list[tuple[str, int, int, int, int]]:
    """Return stage, channels, side, kernel and dilation of every kind of depthwise convolution of a D-SegNeXt."""
    found = []
    backbone = model.backbone
    widths = zip(backbone.embed_dims, backbone.mlp_ratios, strict=True)
    for stage, (channels, ratio) in enumerate(widths, start=1):
        side = size_px // 2 ** (stage + 1)
        gate = backbone.gating_unit
        found += [(f"{stage}", channels, side, gate.kernel_size, dilation) for dilation in gate.dilations]
        found.append((f"{stage}, MLP", channels * ratio, side, 3, 1))
    return found


def convolution_seconds(
    shape: tuple[int, int, int, int], kernel: int, dilation: int, dtype: torch.dtype, method: str, rounds: int
) -> tuple[float, float]:
    """Return the seconds of one convolution forward, and forward and backward, on features that no cache holds."""
    name, layout = METHODS[method]
    conv = depthwise_conv(shape[1], (kernel, kernel), dilation)
    use_depthwise_kernel(conv, name)
    conv = conv.to("cuda", dtype)
    one = torch.empty(shape, dtype=dtype).nbytes
    count = max(2, 4 * torch.cuda.get_device_properties(0).L2_cache_size // one)
    inputs = [torch.randn(shape, device="cuda", dtype=dtype).to(memory_format=layout) for _ in range(count)]
    gradients = [torch.randn_like(x) for x in inputs]

    @torch.no_grad()
    def forward() -> list[Tensor]:
        return [conv(x) for x in inputs]

    def both() -> list[tuple[Tensor, ...]]:
        wanted = tuple(conv.parameters())
        return [
            torch.autograd.grad(conv(x), (x, *wanted), gradient) for x, gradient in zip(inputs, gradients, strict=True)
        ]

    once = seconds(replayed(forward), rounds) / count
    for x in inputs:
        x.requires_grad_()
    return once, seconds(replayed(both), rounds) / count


def measure_stages(args: argparse.Namespace) -> str:
    """Return the table of all convolutions."""
    dtype = DTYPES[args.precision] or torch.float32
    bandwidth = copy_bandwidth(args.rounds)
    rows: dict[tuple, list] = {}
    for size in SIZES:
        for found in convolutions(config(size).model, args.size):
            if found in rows:
                rows[found][0] += f", {size}"
                continue
            stage, channels, side, kernel, dilation = found
            shape = (args.batch, channels, side, side)
            one = args.batch * channels * side * side * dtype.itemsize
            cells = []
            for method in METHODS:
                times = convolution_seconds(shape, kernel, dilation, dtype, method, args.rounds)
                torch.cuda.empty_cache()
                for taken, tensors in zip(times, (2, 2 + 3), strict=True):
                    cells.append(f"{taken * 1e6:.0f} ({tensors * one / bandwidth / taken:.0%})")
            name = f"{kernel}x{kernel}, dilation {dilation}"
            rows[found] = [size, stage, name, f"{args.batch}x{channels}x{side}x{side}", *cells]
    header = ["network", "stage", "convolution", "N x C x H x W"]
    header += [f"{method}, {what}" for method in METHODS for what in ("forward", "forward + backward")]
    title = (
        f"{torch.cuda.get_device_name()}, {args.precision}, copy {bandwidth / 1e9:.0f} GB/s; microseconds (share of "
        "the roofline), as CUDA graphs, features in no cache\n\n"
    )
    return title + markdown_table(header, list(rows.values()))


def inference(cfg: Config, setting: str, image: Tensor) -> Callable[[], object]:
    """Return a function that computes the scores of ``image`` with the settings, which `INFERENCE` shows."""
    precision, *extras = setting.split("+")
    network = revert_sync_batchnorm(build_network(cfg, initialise=False)).eval()
    if "folded" in extras:
        network = folded(network)
    use_depthwise_kernel(network, "triton" if "triton" in extras else "cudnn")
    dtype = DTYPES[precision] or torch.float32
    layout = torch.channels_last if "channels_last" in extras else torch.contiguous_format
    bases = {module: module.fixed_bases for module in network.modules() if isinstance(module, Hamburger)}
    scores = Scores(network).requires_grad_(False).to("cuda", dtype).to(memory_format=layout)
    for module, kept in bases.items():
        module.fixed_bases = kept.cuda()  # NMF stays float32
    image = image.to(dtype, memory_format=layout)
    run: Callable[[Tensor], Tensor] = scores
    for mode in MODES:
        if mode in extras:
            run = torch.compile(scores, mode=mode)

    @torch.no_grad()
    def work() -> Tensor:
        return run(image)

    return replayed(work) if "graph" in extras else work


def measure_inference(cfg: Config, args: argparse.Namespace) -> str:
    """Return the table of inference."""
    rows = [[setting] for setting in INFERENCE]
    for batch in args.batches:
        image = torch.randn(batch, 3, args.size, args.size, device="cuda")
        first = 0.0
        for setting, row in zip(INFERENCE, rows, strict=True):
            torch.compiler.reset()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            taken = seconds(inference(cfg, setting, image), args.rounds) / batch
            first = first or taken
            peak = torch.cuda.max_memory_allocated() / 2**30
            row.append(f"{taken * 1e3:.2f} ({first / taken:.2f}), {peak:.1f} GiB")
    return markdown_table(["inference: ms per image (ratio), peak", *(f"batch {n}" for n in args.batches)], rows)


def measure_steps(cfg: Config, args: argparse.Namespace) -> str:
    """Return the table of training steps."""
    rows = [[setting] for setting in TRAINING]
    for batch in args.training_batches:
        first = 0.0
        for setting, row in zip(TRAINING, rows, strict=True):
            torch.compiler.reset()
            torch.cuda.empty_cache()
            own = copy.deepcopy(cfg)
            if "triton" in setting:
                own.model.backbone.depthwise_kernel = "triton"
            known = setting.replace("+triton", "")
            speed = measure_training(own, [known], args.size, batch, args.rounds)[known]
            first = first or speed.images_per_s
            row.append(f"{speed.images_per_s:.1f} ({speed.images_per_s / first:.2f}), {speed.peak_gib:.1f} GiB")
    return markdown_table(["training: images/s (ratio), peak", *(f"batch {n}" for n in args.training_batches)], rows)


def main() -> None:
    """Measure as the command line says."""
    args = parse_args()
    if not torch.cuda.is_available():
        raise ConfigError("the kernels are measured on a CUDA GPU, and this machine has none; run this tool on one")
    if importlib.util.find_spec("triton") is None:
        raise ConfigError("triton, which comes with PyTorch for CUDA on Linux, is not installed; pip install triton")
    torch.backends.cudnn.benchmark = True
    if args.what == "stages":
        sys.stdout.write(measure_stages(args) + "\n")
        return
    cfg = config("T")
    sys.stdout.write(f"D-SegNeXt-T, {args.size} px, {torch.cuda.get_device_name()}, torch {torch.__version__}\n\n")
    sys.stdout.write(measure_inference(cfg, args) + "\n\n")
    sys.stdout.flush()
    sys.stdout.write(measure_steps(cfg, args) + "\n")


if __name__ == "__main__":
    run_tool(main)
