"""A published checkpoint: weights without training state, and everything needed to use them, in one file."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import torch
from mmcv import Config

from .. import __version__
from ..errors import CheckpointError, ConfigError
from ..files import sha256_of, write_text
from ..imagery.voc import ROAD_CLASSES, ROAD_PALETTE
from .checkpoint import SCHEMA_VERSION, read_checkpoint, weights_sha256, write_safetensors
from .config import config_mistakes, step_arguments
from .weights import build_network, load_weights

_OF_ONE_RUN = ("work_dir", "load_from", "resume_from")


def git_revision() -> str:
    """Return the commit of this code, ending in ``-dirty`` after local changes; ``unknown`` without git."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def publish_checkpoint(
    checkpoint: str,
    dest: str,
    cfg: Config,
    licence: str,
    metrics: dict[str, float] | None = None,
    gsd_m: float | None = None,
    temperature: float = 1.0,
    half: bool = False,
    mapping: dict | None = None,
) -> dict:
    """Write the weights of ``checkpoint`` as safetensors with meta data, and the meta data as JSON beside it.

    With the meta data, which include the config, the file can be evaluated without any other.

    Args:
        checkpoint: a training checkpoint or weights of the network of ``cfg``.
        dest: the new file, ``.safetensors``; the meta data go to the same name with ``.json`` too.
        cfg: the config that the weights were trained with.
        licence: under which others may use the weights, an SPDX identifier for example.
        metrics: scores of these weights, 0 to 1.
        gsd_m: ground sampling distance of the training images in metres per pixel.
        temperature: what the scores are divided by, for good: the last layer of the network takes it in.
        half: store float16, in half the bytes.
        mapping: ``threshold``, ``scales`` and ``gsd_range_m`` of maps, as in a config.

    Returns:
        The meta data, as in the JSON file.

    Raises:
        CheckpointError: the weights cannot be read, do not fit ``cfg``, or a file cannot be written.
        ConfigError: ``dest`` has another suffix, exists already, or ``cfg`` states no normalisation.
    """
    if not dest.endswith(".safetensors"):
        raise ConfigError(f"{dest}: the published file is a safetensors file; its name must end in .safetensors")
    sidecar = f"{dest.removesuffix('.safetensors')}.json"
    for path in (dest, sidecar):
        if os.path.exists(path):
            raise ConfigError(f"{path}: exists already; a published file is not overwritten: choose another name")
    cfg = _portable(cfg)
    if mapping:
        cfg.mapping = {**(cfg.get("mapping") or {}), **mapping}
    with config_mistakes(cfg):
        network = build_network(cfg, initialise=False)
    origin = load_weights(network, checkpoint)
    try:
        normalize = step_arguments(cfg.data.test, "Normalize")
    except KeyError:
        raise ConfigError(f"{cfg.filename}: data.test has no Normalize, so mean and std are unknown; add it") from None
    test = cfg.data.test
    if temperature != 1:
        _divide_scores(network, temperature, len(normalize["mean"]))
    weights = network.state_dict()
    if half:
        weights = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    meta = dict(
        schema_version=SCHEMA_VERSION,
        config=cfg.pretty_text,
        CLASSES=list(test.get("classes", origin.get("CLASSES", ROAD_CLASSES))),
        PALETTE=[list(colour) for colour in test.get("palette", origin.get("PALETTE", ROAD_PALETTE))],
        mean=list(normalize["mean"]),
        std=list(normalize["std"]),
        gsd_m=gsd_m or (origin.get("image") or {}).get("gsd_m"),
        image=origin.get("image"),
        metrics=metrics or {},
        licence=licence,
        iterations=origin.get("iter"),
        git_revision=git_revision(),
        mmseg_ext_version=__version__,
        weights_sha256=weights_sha256(weights),
    )
    write_safetensors(weights, meta, dest)
    try:
        meta |= {"file": os.path.basename(dest), "file_sha256": sha256_of(dest)}
        write_text(sidecar, json.dumps(meta, indent=1) + "\n", kind=CheckpointError)
    except BaseException:
        os.remove(dest)  # both or none
        raise
    return meta


def published_meta(path: str) -> dict:
    """Return the meta data of the weights at ``path``, empty where `publish_checkpoint` did not write the file."""
    meta = read_checkpoint(path).get("meta") or {}
    return meta if "schema_version" in meta else {}


@torch.no_grad()
def _divide_scores(network: Any, temperature: float, bands: int) -> None:
    """Divide the scores of ``network``, which takes some bands, by a temperature; its last layer does it.

    Raises:
        ConfigError: the temperature is not above 0, or the scores do not come from that layer.
    """
    if not 0 < temperature < float("inf"):
        raise ConfigError(
            f"--temperature {temperature:g}: give a number above 0, such as what tools/calibrate.py prints"
        )
    network.eval()
    image = torch.randn(1, bands, 128, 128, generator=torch.Generator().manual_seed(0))
    before = network.encode_decode(image, [{}])
    last = network.decode_head.conv_seg
    for values in (last.weight, last.bias):
        values /= temperature
    if not torch.allclose(network.encode_decode(image, [{}]) * temperature, before, rtol=1e-3, atol=1e-4):
        raise ConfigError(f"--temperature: {type(network.decode_head).__name__} has another last layer than conv_seg")


def _portable(cfg: Config) -> Config:
    """Return a copy of ``cfg`` without what belongs to one run on one machine."""
    content = copy.deepcopy(cfg._cfg_dict.to_dict())
    for key in _OF_ONE_RUN:
        if key in content:
            content[key] = None
    content["model"]["backbone"]["init_cfg"] = None
    return Config(content)
