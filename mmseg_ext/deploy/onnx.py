"""ONNX: a network as a file, and that file in ONNX Runtime (CPU and CUDA) and TensorRT.

There are two forms. `export_onnx` writes the network alone, from normalised images to logits, for backends that we run.
`export_pixels` writes what is handed over: all that stands around a network is in the graph, so that pixels go in and
probabilities come out.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..runtime.facts import NetworkFacts
from ..runtime.onnx import PIXELS, PROBABILITIES, PROGRAM, open_session
from ..tiling import OVERLAP_PX, TILE_PX
from .exportable import exported_program
from .int8 import quantized

_OPSET, _IR_VERSION = 18, 9  # what ONNX Runtime 1.17 knows
_ONE_FILE_BYTES = 2**31  # protobuf's limit
_IMAGE, _SCORES = "image", "scores"
_CPU = torch.device("cpu")


def export_onnx(
    network: nn.Module,
    path: str,
    precision: str = "fp32",
    metadata: Mapping[str, str] | None = None,
    calibration: Sequence[np.ndarray] = (),
    target: str = "cpu",
) -> None:
    """Write ``network`` alone as an ONNX file; more than 2 GB of weights go to ``path`` + ``.data``.

    It runs anywhere, but is folded for the device type ``target``, ``cpu`` or ``cuda``.

    Raises:
        ConfigError: int8 without calibration images.
    """
    _save(_network_model(network, precision, calibration, target), path, metadata or {})


def export_pixels(
    network: nn.Module,
    path: str,
    precision: str,
    metadata: Mapping[str, str],
    calibration: Sequence[np.ndarray] = (),
    target: str = "cpu",
    program: str | None = None,
    tile_px: int = 512,
) -> None:
    """Write ``network`` as an ONNX file from pixels (N, B, H, W), float32, to probabilities (N, K, H, W).

    Pixels are the values of the raster in the bands of the training, red first; ``metadata`` has the facts that say
    how they become what the network takes. H and W are multiples of the stride.

    For a ``program``, one of `PROGRAMS`, the file has the form and the metadata that the program reads: one tile of
    ``tile_px`` rows and columns, values divided by the largest, all scales of the facts in one graph, and probabilities
    that 0.5 cuts where the facts' threshold does. More as `export_onnx`.

    Raises:
        ConfigError: int8 without calibration images.
        KeyError: ``metadata`` lacks facts.
    """
    facts = NetworkFacts.from_metadata(metadata)
    model = _network_model(network, precision, calibration, target)
    around = _Around(model.graph)
    if program is None:
        shape: list[int | str] = ["N", facts.bands, "H", "W"]
        found = around.look(around.eight_bits(PIXELS, facts), facts)
    else:
        shape = [1, facts.bands, tile_px, tile_px]
        metadata = {**metadata, **_metadata_for(program, facts, tile_px)}
        image = around.add("Mul", PIXELS, np.float32(largest_value(program, facts)))
        image = around.eight_bits(image, facts) if facts.reading.low is not None else around.add("Round", image)
        looks = [around.look(image, facts, tile_px, scale) for scale in facts.scales]
        found = around.weighted(around.add("Mean", *looks), threshold_weights(facts))
    around.finish(shape, [shape[0], len(facts.classes), *shape[2:]], found)
    _save(model, path, metadata)


def largest_value(program: str, facts: NetworkFacts) -> int:
    """Return what a ``program`` divides a raster by: Deepness always by 255, GeoDeep by the largest of its type."""
    return 65535 if program == "geodeep" and facts.reading.low is not None else 255


def threshold_weights(facts: NetworkFacts) -> np.ndarray:
    """Return float32 (1, K, 1, 1): with these weights road is the likelier class from the facts' threshold on."""
    weights = np.ones((1, len(facts.classes), 1, 1), np.float32)
    if facts.threshold is not None and len(facts.classes) == 2:
        weights[:] = facts.threshold
        weights[0, facts.road_labels[0]] = 1 - facts.threshold
    return weights


def _network_model(network: nn.Module, precision: str, calibration: Sequence[np.ndarray], target: str) -> Any:
    """Return ``network`` alone as an ``onnx.ModelProto``: `_IMAGE`, normalised, to `_SCORES`, which are logits."""
    import onnx

    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's exporter uses what PyTorch deprecates
        program = torch.onnx.export(
            exported_program(network, precision, target),
            dynamo=True,
            opset_version=_OPSET,
            input_names=[_IMAGE],
            output_names=[_SCORES],
            verbose=False,
        )
    assert program is not None
    model: Any = program.model_proto
    del model.graph.value_info[:]  # sizes of inner tensors, in names that only PyTorch knows
    for tensor in (*model.graph.input, *model.graph.output):
        for axis, name in ((0, "N"), (2, "H"), (3, "W")):
            tensor.type.tensor_type.shape.dim[axis].dim_param = name
    if precision == "int8":
        model = quantized(model, network, calibration)
    for part in (model.graph, *model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]  # PyTorch's modules; IR version 9 has no such place
        part.doc_string = ""
    model.ir_version = _IR_VERSION
    onnx.checker.check_model(model)
    return model


def _save(model: Any, path: str, metadata: Mapping[str, str]) -> None:
    """Write ``model`` with its ``metadata``; a large one in two files."""
    import onnx

    onnx.helper.set_model_props(model, dict(metadata))
    large = model.ByteSize() >= _ONE_FILE_BYTES
    onnx.save(model, path, save_as_external_data=large, location=f"{path.rpartition('/')[2]}.data" if large else None)


class _Around:
    """A ``graph`` of ONNX that gets nodes before and behind the network in it; the network may run several times."""

    def __init__(self, graph: Any) -> None:
        self.graph, self.network = graph, list(graph.node)
        self.kept = {constant.name for constant in graph.initializer}
        del graph.node[:]

    def add(self, kind: str, *inputs: str | np.ndarray | np.float32, **attributes: Any) -> str:
        """Append a node, arrays among the ``inputs`` as constants; return the name of its output."""
        import onnx

        names = []
        for value in inputs:
            if isinstance(value, str):
                names.append(value)
                continue
            names.append(f"around_constant_{len(self.graph.initializer)}")
            self.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), names[-1]))
        output = f"around_{len(self.graph.node)}"
        self.graph.node.append(onnx.helper.make_node(kind, names, [output], output, **attributes))
        return output

    def eight_bits(self, raw: str, facts: NetworkFacts) -> str:
        """Return values of the raster as the 8 bits that `ImageReading.scale` makes of them."""
        black, white = facts.reading.low, facts.reading.high
        if black is None or white is None:
            return raw
        low, high = (np.reshape(np.asarray(limits, np.float32), (1, -1, 1, 1)) for limits in (black, white))
        known = self.add("Where", self.add("IsNaN", raw), np.float32(0), raw)
        step = np.maximum(high - low, np.float32(1e-12)) / np.float32(255)
        scaled = self.add("Div", self.add("Sub", known, low), step)
        return self.add("Clip", self.add("Round", scaled), np.float32(0), np.float32(255))

    def look(self, image: str, facts: NetworkFacts, side: int = 0, scale: float = 1.0) -> str:
        """Return the probabilities of an 8-bit image; of one of ``side`` rows and columns, shown at a ``scale``.

        The image is resized and mirrored to the network's stride as `predict_at_scales` and `NetworkFacts.padded` do.
        """
        down = up = None
        if side and (scale != 1 or side % facts.stride):
            shown = max(1, round(side * scale))
            # rows of a resized image are sums of those of the image, whose weights are what becomes of one row
            rows = np.eye(side, dtype=np.float32)
            down = cv2.resize(rows, (side, shown), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
            up = cv2.resize(np.eye(shown, dtype=np.float32), (shown, side))
            missing = -shown % facts.stride
            down = np.pad(down, ((0, missing), (0, 0)), mode="reflect")
            up = np.pad(up, ((0, 0), (0, missing)))
            image = self._resized(image, down)
            # OpenCV rounds halves up where it halves an image, else to the even number
            halved = 2 * shown == side
            image = self.add("Floor", self.add("Add", image, np.float32(0.5))) if halved else self.add("Round", image)
        if facts.bands == 3 and not facts.to_rgb:
            image = self.add("Gather", image, np.array([2, 1, 0]), axis=1)
        mean, std = (np.reshape(np.asarray(values, np.float32), (1, -1, 1, 1)) for values in (facts.mean, facts.std))
        scores = self._scores(self.add("Div", self.add("Sub", image, mean), std))
        if facts.outputs == 1:
            road = self.add("Sigmoid", scores)
            found = self.add("Concat", self.add("Sub", np.float32(1), road), road, axis=1)
        else:
            found = self.add("Softmax", scores, axis=1)
        return found if up is None else self._resized(found, up)

    def _resized(self, image: str, rows: np.ndarray) -> str:
        weights = self.add("Identity", rows)
        return self.add("MatMul", self.add("MatMul", weights, image), self.add("Transpose", weights, perm=[1, 0]))

    def _scores(self, image: str) -> str:
        """Return the logits of a normalised image: the nodes of the network once more, with the same weights."""
        names = {_IMAGE: image}
        prefix = f"look_{len(self.graph.node)}/"
        for node in self.network:
            copied = self.graph.node.add()
            copied.CopyFrom(node)
            copied.name = f"{prefix}{node.name}"
            for i, name in enumerate(node.input):
                copied.input[i] = names.get(name, name)
            for i, name in enumerate(node.output):
                copied.output[i] = names[name] = f"{prefix}{name}" if name else ""
        return names[_SCORES]

    def weighted(self, probabilities: str, weights: np.ndarray) -> str:
        """Return the probabilities times ``weights``, adding up to 1 again."""
        weighted = self.add("Mul", probabilities, weights)
        return self.add("Div", weighted, self.add("ReduceSum", weighted, np.array([1]), keepdims=1))

    def finish(self, given: Sequence[int | str], returned: Sequence[int | str], found: str) -> None:
        """Make `PIXELS` of shape ``given`` the input, and what was ``found``, of shape ``returned``, the output."""
        import onnx

        self.add("Identity", found)
        self.graph.node[-1].output[0] = PROBABILITIES
        for tensors, name, shape in ((self.graph.input, PIXELS, given), (self.graph.output, PROBABILITIES, returned)):
            del tensors[:]
            tensors.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))


def _metadata_for(program: str, facts: NetworkFacts, tile_px: int) -> dict[str, str]:
    """Return the entries that Deepness and GeoDeep read, as JSON; `PROGRAM` is ours."""
    metres = facts.reading.gsd_m
    entries = dict(
        model_type="Segmentor",
        class_names={str(label): name for label, name in enumerate(facts.classes)},
        **({} if metres is None else {"resolution": round(100 * metres, 4)}),
        tile_size=tile_px,
        tiles_overlap=round(100 * OVERLAP_PX / TILE_PX),
        standardization_mean=[0.0] * facts.bands,  # the graph normalises, as GeoDeep does not
        standardization_std=[1.0] * facts.bands,
        seg_thresh=0.5 if len(facts.classes) == 2 else 0.0,
        seg_small_segment=0,
    )
    return {name: json.dumps(value) for name, value in {PROGRAM: program, **entries}.items()}


class OnnxRuntimeSession:
    """A file of ours in ONNX Runtime, with its ``metadata``; on a GPU, images and scores stay there.

    Of a file of `export_pixels`, the pixels are computed back from the normalised images, and scores are the logarithms
    of the probabilities. ``preferred`` are providers to take before CUDA, on a GPU.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        ConfigError: it is too old, or a provider for the GPU does not start.
    """

    def __init__(self, path: str, device: torch.device = _CPU, preferred: Sequence[tuple[str, dict]] = ()) -> None:
        self.device = device
        on_gpu: list[tuple[str, dict]] = []
        if device.type == "cuda":
            on_gpu = [*preferred, ("CUDAExecutionProvider", {"device_id": device.index or 0})]
        self.session = open_session(path, torch.get_num_threads(), on_gpu)
        started = self.session.get_providers()  # without those whose libraries it cannot load
        if missing := [name for name, _ in on_gpu if name not in started]:
            raise ConfigError(
                f"ONNX Runtime cannot start its {missing[0]}: libraries are missing, or of another version than it was "
                "built for (its documentation names them); take --backend torch"
            )
        self.metadata: dict[str, str] = dict(self.session.get_modelmeta().custom_metadata_map)
        (output,) = self.session.get_outputs()
        self.channels, self.names = output.shape[1], (_IMAGE, _SCORES)
        self.facts: NetworkFacts | None = None
        if output.name == PROBABILITIES:
            self.names, self.facts = (PIXELS, PROBABILITIES), NetworkFacts.from_metadata(self.metadata)

    def __call__(self, image: Tensor) -> Tensor:
        """Return logits (N, K, H, W), float32, of normalised images (N, C, H, W)."""
        if self.facts is None:
            return self._run(image.contiguous())
        found = self._run(_pixels(image, self.facts)).clamp(min=torch.finfo(torch.float32).tiny)
        return (found[:, 1:] / found[:, :1]).log() if self.facts.outputs == 1 else found.log()

    def _run(self, image: Tensor) -> Tensor:
        given, returned = self.names
        if self.device.type == "cpu":
            return torch.from_numpy(self.session.run([returned], {given: image.numpy()})[0])
        scores = torch.empty((len(image), self.channels, *image.shape[2:]), device=self.device)
        binding = self.session.io_binding()
        for bind, name, tensor in ((binding.bind_input, given, image), (binding.bind_output, returned, scores)):
            bind(name, "cuda", self.device.index or 0, np.float32, tuple(tensor.shape), tensor.data_ptr())
        torch.cuda.current_stream(self.device).synchronize()  # ONNX Runtime has its own stream
        self.session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return scores


def _pixels(image: Tensor, facts: NetworkFacts) -> Tensor:
    """Return the pixels of normalised images (N, B, H, W)."""

    def band_values(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=image.device).reshape(-1, 1, 1)

    pixels = image * band_values(facts.std) + band_values(facts.mean)
    if facts.bands == 3 and not facts.to_rgb:
        pixels = pixels.flip(1)
    if facts.reading.low is not None and facts.reading.high is not None:
        low, high = band_values(facts.reading.low), band_values(facts.reading.high)
        pixels = low + pixels * (high - low) / 255
    return pixels.contiguous()


class TensorRTSession(OnnxRuntimeSession):
    """The ONNX file at ``path`` in TensorRT, through ONNX Runtime's provider, in ``precision``."""

    def __init__(self, path: str, device: torch.device, precision: str) -> None:
        types = {} if precision == "fp32" else {f"trt_{precision}_enable": True}  # an older one does not know bf16
        super().__init__(path, device, [("TensorrtExecutionProvider", {"device_id": device.index or 0, **types})])
