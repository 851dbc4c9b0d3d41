#!/usr/bin/env python
"""Choose temperature and threshold of weights on the validation images of their config (data.val).

Example: python tools/calibrate.py work_dirs/my_mine/best.pth --cfg-options data.val.data_root=data/MyMine
"""

import argparse
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from mmseg_ext.cli import log_to_stderr
from mmseg_ext.deploy.options import BackendSettings, add_backend_options, backend_settings
from mmseg_ext.errors import ConfigError, run_tool
from mmseg_ext.options import add_config_options, add_numbers
from mmseg_ext.weights import is_onnx

if TYPE_CHECKING:
    from mmseg_ext.runtime.facts import MapModel


def main() -> None:
    """Calibrate as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="weights of a network with two classes, or its .onnx")
    parser.add_argument("--config", help="its config (default: the one inside the checkpoint)")
    text = "look at each image in these sizes and average (default: the checkpoint's, else 1)"
    add_numbers(parser, "--scales", "0.5,0.75,1", text, kind=float)
    add_backend_options(parser, "torch")
    add_config_options(parser)
    args = parser.parse_args()

    from mmseg.datasets import build_dataset

    from mmseg_ext.deploy.trained import TrainedNetwork
    from mmseg_ext.engine import config_for
    from mmseg_ext.engine.config import config_mistakes
    from mmseg_ext.mapping.calibration import calibrate
    from mmseg_ext.runtime.onnx import OnnxNetwork

    log_to_stderr(logging.WARNING)
    network: MapModel
    if is_onnx(args.checkpoint):
        if args.config is None or backend_settings(args) != BackendSettings():
            raise ConfigError(
                f"{args.checkpoint}: an ONNX file runs as it is and has no config; give --config, for data.val, and no "
                "--backend, --precision or --exported"
            )
        network = OnnxNetwork.load(args.checkpoint)
    else:
        network = TrainedNetwork.load(args.checkpoint, args.config, args.cfg_options, backend_settings(args))
    cfg = config_for(args.config, args.checkpoint, args.cfg_options)
    with config_mistakes(cfg):
        dataset = build_dataset(cfg.data.val, dict(test_mode=True))
    if len(network.facts.classes) != 2:
        raise ConfigError(f"{args.checkpoint}: has {len(network.facts.classes)} classes; only two can be calibrated")

    def images() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for index in tqdm(range(len(dataset)), desc="calibrating", unit="image", disable=None):
            image, valid = network.facts.reading.read(dataset.image_path(index))
            labels = dataset.get_gt_seg_map_by_idx(index)
            yield image, labels if valid is None else np.where(valid, labels, 255)

    scales = list(args.scales or network.facts.scales)
    found = calibrate(network, images(), scales)
    sys.stdout.write(
        f"{found.images} images at scales {', '.join(f'{scale:g}' for scale in scales)}: road IoU "
        f"{100 * found.iou:.1f} from {found.threshold:g} on, {100 * found.iou_half:.1f} from 0.5 on; calibration error "
        f"{100 * found.error[1]:.1f} %, {100 * found.error[0]:.1f} % without the temperature\n"
        f"to publish: --temperature {found.temperature:.3f} --threshold {found.threshold:g} "
        f"--scales {','.join(f'{scale:g}' for scale in scales)}\n"
    )


if __name__ == "__main__":
    run_tool(main)
