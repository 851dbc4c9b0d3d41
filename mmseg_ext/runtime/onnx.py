"""An ONNX file as a network that maps, in ONNX Runtime alone: our own, and others' where one says what they are."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from ..download import local_file
from ..errors import ConfigError, UserError, require
from ..files import sha256_of
from ..imagery.reading import ImageReading
from ..imagery.voc import ROAD_PALETTE, road_labels
from .facts import NetworkFacts

MIN_VERSION = "1.17"  # knows IR version 9, which exported files have
# names of the input and the output of exported files, and the entry that says which program a file is for
PIXELS, PROBABILITIES, PROGRAM = "pixels", "probabilities", "program"
_NUMPY = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}
_STRIDE = 32  # of a network that says nothing
_SURE = 1e-3
logger = logging.getLogger(__name__)


def default_threads() -> int:
    """Return the threads that PyTorch would take: OMP_NUM_THREADS, else one for each core of this process."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    if not hasattr(os, "sched_getaffinity"):  # Windows, macOS
        return os.cpu_count() or 1
    processors, cores = os.sched_getaffinity(0), set()
    for number in processors:
        try:
            with open(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list", encoding="ascii") as file:
                cores.add(file.read())
        except OSError:
            return len(processors)
    return len(cores)


def open_session(path: str, threads: int, gpu: Sequence[tuple[str, dict]] = ()) -> Any:
    """Return an `onnxruntime.InferenceSession` of the file at ``path``, on the providers ``gpu`` before the CPU.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        ConfigError: it is too old.
    """
    require(["onnxruntime"], "deploy", "reading and running ONNX files")
    import onnxruntime

    if _numbers(onnxruntime.__version__) < _numbers(MIN_VERSION):
        raise ConfigError(
            f"{path}: needs ONNX Runtime {MIN_VERSION} or newer, here is {onnxruntime.__version__}; "
            "pip install -U onnxruntime"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # threads that wait busily between images take the processor from PyTorch's
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # tiny numbers, of which the NMF makes many, take a hundred times the time of others
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return onnxruntime.InferenceSession(path, options, providers=[*gpu, "CPUExecutionProvider"])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def raw_pixels(reading: ImageReading, images: np.ndarray) -> np.ndarray:
    """Return float32 (N, B, H, W) of uint8 ``images`` (N, H, W, B): values that ``reading`` makes these 8 bits of."""
    pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
    if reading.low is None or reading.high is None:
        return pixels
    low, high = (np.array(limits, np.float32).reshape(-1, 1, 1) for limits in (reading.low, reading.high))
    return low + pixels * (high - low) / 255


@dataclass(frozen=True)
class OnnxNetwork:
    """An ONNX file, ready to predict on the CPU; a `MapModel`.

    Attributes:
        path: of the file.
        session: of ONNX Runtime.
        facts: what the file says, or what was said of it.
        precision: ``fp32``, ``fp16`` or ``int8``.
        threads: that compute.
        logits: whether the outputs are logits; those of our files are probabilities.
    """

    path: str
    session: Any
    facts: NetworkFacts
    precision: str
    threads: int
    logits: bool = False

    @classmethod
    def load(
        cls, path: str, bands: Sequence[int] | None = None, classes: Sequence[str] | None = None, threads: int = 0
    ) -> OnnxNetwork:
        """Return the network in the file at ``path``, or at a URL with a hash (`local_file`).

        ``bands`` (numbers from 1, red first) and the names of the ``classes`` are for a file that does not say what it
        is; what is assumed of it is logged. With 0 ``threads`` it takes `default_threads`.

        Raises:
            ConfigError: the file is missing, damaged, no network that maps, or does not say what one must know.
            MissingExtraError: ONNX Runtime is not installed.
        """
        path = local_file(path)
        if not os.path.isfile(path):
            raise ConfigError(f"{path}: no such file; make it with tools/export.py")
        threads = threads or default_threads()
        session = _readable_session(path, threads)
        metadata = session.get_modelmeta().custom_metadata_map
        if PROGRAM in metadata:
            program = json.loads(metadata[PROGRAM])
            raise ConfigError(f"{path}: was exported for {program}; give the checkpoint, or one exported without --for")
        if not metadata.keys() & {"classes", "mean"}:
            return _foreign(path, session, bands, classes, threads)
        if classes is not None:
            raise ConfigError(f"{path}: says itself that its classes are {metadata['classes']}; leave --classes out")
        if [output.name for output in session.get_outputs()] != [PROBABILITIES]:
            raise ConfigError(f"{path}: was exported by an earlier version, for normalised images; export it again")
        try:
            facts, precision = NetworkFacts.from_metadata(metadata), json.loads(metadata["precision"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: what it says of itself is incomplete ({error}); export it again") from None
        return cls(path, session, facts, precision, threads)

    @cached_property
    def execution(self) -> dict[str, Any]:
        """All that the last bits of a prediction depend on besides weights and image; the order is part of map keys."""
        digest = sha256_of(*filter(os.path.isfile, [self.path, f"{self.path}.data"]))
        return dict(backend="onnxruntime", precision=self.precision, exported_sha256=digest, threads=self.threads)

    @property
    def software(self) -> dict[str, str]:
        """Versions of what computes."""
        import onnxruntime

        return dict(onnxruntime=onnxruntime.__version__)

    def predict(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return probabilities (N, classes, h, w) of images (h, w, B), as `MapModel` says.

        Raises:
            ConfigError: the number of bands is not the network's, or it takes images of another size.
        """
        height, width, bands = images[0].shape
        if bands != self.facts.bands:
            raise ConfigError(f"{self.path}: takes {self.facts.bands} bands, but the image to predict has {bands}")
        padded = np.stack([self.facts.padded(image) for image in images])
        (given,) = self.session.get_inputs()
        side = given.shape[2]
        if isinstance(side, int) and padded.shape[1:3] != (side, side):
            raise ConfigError(f"{self.path}: takes images of {side} x {side} px only; give --tile {side}")
        pixels = raw_pixels(self.facts.reading, padded).astype(_NUMPY[given.type])
        parts = [pixels[i : i + 1] for i in range(len(pixels))] if given.shape[0] == 1 else [pixels]
        found = np.concatenate([self.session.run(None, {given.name: part})[0] for part in parts])
        found = found[:, :, :height, :width]
        return _probabilities(found, self.logits) if self.logits or found.shape[1] == 1 else found


def _probabilities(outputs: np.ndarray, logits: bool) -> np.ndarray:
    """Return outputs (N, K, h, w) as probabilities (N, K, h, w); of a single output as 1 - p and p."""
    if outputs.shape[1] == 1:
        road = expit(outputs) if logits else outputs
        return np.concatenate([1 - road, road], axis=1)
    return softmax(outputs, axis=1)


def _readable_session(path: str, threads: int) -> Any:
    """Return `open_session` of a file of the user's; whatever is wrong with the file is a ConfigError."""
    try:
        return open_session(path, threads)
    except UserError:
        raise
    except Exception as error:  # ONNX Runtime has a kind of its own for each
        reason = " ".join(str(error).split())
        if re.search("(?i)model ir version|opset", reason):
            raise ConfigError(f"{path}: is newer than this ONNX Runtime; pip install -U onnxruntime") from None
        raise ConfigError(
            f"{path}: is no ONNX file, or is truncated or damaged; download or export it again ({reason[:120]})"
        ) from None


def _foreign(
    path: str, session: Any, bands: Sequence[int] | None, classes: Sequence[str] | None, threads: int
) -> OnnxNetwork:
    """Return a file that says nothing of itself as what one says of it; log what is assumed."""
    if bands is None or classes is None:
        raise ConfigError(
            f"{path}: does not say what it was trained with; export it with tools/export.py, or say it: "
            "--bands 1,2,3 --classes background,road"
        )
    inputs, outputs = session.get_inputs(), session.get_outputs()
    has = ", ".join(f"{one.name} {one.type} {list(one.shape)}" for one in (*inputs, *outputs))
    wrong = ConfigError(
        f"{path}: is no network from {len(bands)} bands to {len(classes)} classes: it has {has}; needed are an image "
        f"(1, {len(bands)}, H, W), float32 or uint8, and scores (1, {len(classes)}, H, W)"
    )
    shape = inputs[0].shape if len(inputs) == len(outputs) == 1 and inputs[0].type in _NUMPY else []
    if len(shape) != 4 or shape[1] != len(bands):
        raise wrong
    stride = shape[2] if isinstance(shape[2], int) else _STRIDE
    count = len(bands)
    look = tuple(ROAD_PALETTE[label in road_labels(classes)] for label in range(len(classes)))
    reading, plain = ImageReading(tuple(bands)), ((0.0,) * count, (1.0,) * count, True)
    facts = NetworkFacts(tuple(classes), look, *plain, reading, stride, len(classes), None, sha256_of(path))
    network = OnnxNetwork(path, session, facts, "fp32", threads)
    side = stride if isinstance(shape[2], int) else 2 * stride
    try:
        found = network.predict([np.random.default_rng(0).integers(0, 256, (side, side, count), np.uint8)])
    except Exception:  # ONNX Runtime has a kind of its own for each
        raise wrong from None
    if found.shape != (1, len(classes), side, side):
        raise wrong
    logits = found.min() < -_SURE or found.max() > 1 + _SURE or np.abs(found.sum(axis=1) - 1).max() > _SURE
    logger.warning(
        "%s: does not say what it was trained with; taken: bands %s as values from 0 to 255, %s as outputs, images of "
        "any metres per pixel, and sides that are multiples of %d px",
        path,
        ", ".join(map(str, bands)),
        "logits" if logits else "probabilities",
        stride,
    )
    return replace(network, logits=bool(logits))
