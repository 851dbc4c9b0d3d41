"""ONNX files of a network of one convolution, made without PyTorch's exporter, and what the network computes."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from scipy.ndimage import correlate
from scipy.special import expit, softmax

from mmseg_ext.deploy import onnx as deploy_onnx
from mmseg_ext.imagery import ImageReading
from mmseg_ext.runtime.facts import NetworkFacts

CLASSES = ("background", "road")


def small_facts(count=3, outputs=2, to_rgb=True, threshold=None, scales=(1.0,), **reading):
    """Facts of a network whose stride is 8."""
    mean, std = np.linspace(90, 140, count), np.linspace(40, 70, count)
    look = CLASSES, ((0, 0, 0), (128, 0, 0))
    return NetworkFacts(
        *look, tuple(mean), tuple(std), to_rgb, ImageReading(**reading), 8, outputs, threshold, "0" * 64, scales
    )


def small_weights(facts):
    """Weights (K, B, 3, 3) that look at places and bands differently."""
    return np.random.default_rng(3).normal(0, 0.4, (facts.outputs, facts.bands, 3, 3)).astype(np.float32)


def network_model(facts, given="image", returned="scores", shape=("N", "H", "W"), dtype=TensorProto.FLOAT):
    """The network alone: a convolution with zeros around the image."""
    count, *sides = shape
    image = helper.make_tensor_value_info(given, dtype, [count, facts.bands, *sides])
    scores = helper.make_tensor_value_info(returned, TensorProto.FLOAT, [count, facts.outputs, *sides])
    nodes = [] if dtype == TensorProto.FLOAT else [helper.make_node("Cast", [given], ["float"], to=TensorProto.FLOAT)]
    nodes.append(helper.make_node("Conv", ["float" if nodes else given, "weights"], [returned], "conv", pads=[1] * 4))
    weights = numpy_helper.from_array(small_weights(facts), "weights")
    graph = helper.make_graph(nodes, "small", [image], [scores], [weights])
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])


def export_small(path, facts, monkeypatch, **options):
    """Write the file that `export_pixels` makes of the network; return its path."""
    monkeypatch.setattr(deploy_onnx, "_network_model", lambda *given: network_model(facts))
    deploy_onnx.export_pixels(None, str(path), "fp32", {**facts.as_metadata(), "precision": '"fp32"'}, **options)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    return str(path)


class SmallNetwork:
    """The same in NumPy, after the definition: a `MapModel` that shares no code with the files."""

    def __init__(self, facts):
        self.facts, self.weights = facts, small_weights(facts)

    def predict(self, images):
        found = []
        for image in images:
            height, width, bands = image.shape
            padded = np.pad(image, ((0, -height % 8), (0, -width % 8), (0, 0)), mode="reflect").astype(float)
            if bands == 3 and not self.facts.to_rgb:
                padded = padded[..., ::-1]
            normalized = (padded - self.facts.mean) / self.facts.std
            scores = [
                sum(correlate(normalized[..., b], kernel[b], mode="constant") for b in range(bands))
                for kernel in self.weights.astype(float)
            ]
            scores = np.stack(scores)[:, :height, :width]
            road = expit(scores)
            found.append(np.concatenate([1 - road, road]) if len(scores) == 1 else softmax(scores, axis=0))
        return np.stack(found).astype(np.float32)
