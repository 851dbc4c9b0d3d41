"""A folder to upload: published weights, their ONNX file, the config, a model card and a STAC item."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import mmcv
import torch
from mmcv import Config

from ..download import local_file
from ..engine.publishing import published_meta
from ..errors import CheckpointError, ConfigError, lazy_import
from ..files import complete_file, sha256_of, write_text
from ..report.tables import markdown_table
from ..runtime.facts import NetworkFacts
from ..weights import shipped_file
from .exporting import export_checkpoint, trained_on
from .trained import load_trained

CARD, ITEM = "README.md", "item.json"
_EXTENSIONS = ("mlm/v1.5.0", "file/v2.1.0")
_SHA256_MULTIHASH = "1220"  # of the STAC extension for files: the function's number, then the bytes of the hash
# media type, roles, and of models what wrote them and runs them, by the end of a file's name
_ASSETS: dict[str, tuple[str, list[str], dict[str, str]]] = {
    ".safetensors": (
        "application/octet-stream; application=safetensors",
        ["mlm:model", "mlm:weights"],
        {"mlm:artifact_type": "safetensors.torch.save_file", "mlm:framework": "PyTorch"},
    ),
    ".onnx": (
        "application/octet-stream; framework=onnx; profile=onnx",
        ["mlm:model"],
        {"mlm:artifact_type": "torch.onnx.export", "mlm:framework": "ONNX"},
    ),
    ".py": ("text/x-python", ["metadata"], {}),
    ".json": ("application/json", ["metadata"], {}),
    ".md": ("text/markdown", ["metadata"], {}),
}
# what the Hub calls licences; it knows others as "other" with a name
_HUB_LICENCES = (
    "apache-2.0 mit bsd-2-clause bsd-3-clause cc0-1.0 cc-by-4.0 cc-by-sa-4.0 cc-by-nc-4.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 "
    "cc-by-nc-nd-4.0 odbl pddl unlicense mpl-2.0 epl-2.0"
).split()
_HUB_METRICS = {"mIoU": "mean_iou", "aAcc": "accuracy"}
_NOWHERE = "https://..."


def publish_folder(
    weights: str,
    folder: str,
    name: str | None = None,
    title: str | None = None,
    url: str | None = None,
    overwrite: bool = False,
    metrics: Mapping[str, float] | None = None,
) -> str:
    """Write the published ``weights`` and all that others need to find and use them into ``folder``.

    The folder appears complete or not at all. The weights stay as they are, byte for byte.

    Args:
        weights: a file of `publish_checkpoint`, or the name of weights of this package.
        folder: the new folder.
        name: of the files and the model; None takes the folder's.
        title: of the card; None makes one of the name.
        url: where the folder will be, for the commands of the card; None leaves that open.
        overwrite: replace a folder that this function wrote.
        metrics: scores of these weights, 0 to 1; None takes those in their meta data.

    Returns:
        The SHA-256 of the file of weights.

    Raises:
        ConfigError: the name cannot be one, or the folder exists and is not to be replaced.
        CheckpointError: the weights are not published, or something cannot be written.
        UserError: the ONNX file cannot be made.
    """
    folder = os.path.abspath(folder)
    name = name or os.path.basename(folder)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]+[A-Za-z0-9]", name):
        raise ConfigError(
            f"{name}: cannot be a model's name; give --name with a letter first, then letters, digits, . _ -"
        )
    there = os.path.lexists(folder)
    if there and not overwrite:
        raise ConfigError(f"{folder}: exists already; choose another folder or give --overwrite")
    if there and not os.path.isfile(os.path.join(folder, ITEM)):
        raise ConfigError(f"{folder}: has no {ITEM}, so it is not overwritten; choose another folder")
    meta = published_meta(weights)
    if not meta:
        raise CheckpointError(f"{weights}: is not published; tools/publish_checkpoint.py makes such a file")
    cfg, network, facts = load_trained(weights)
    with complete_file(folder, kind=CheckpointError) as draft:
        os.mkdir(draft)
        file = os.path.join(draft, f"{name}.safetensors")
        with complete_file(file) as partial:
            shutil.copyfile(local_file(shipped_file(weights)), partial)
        export_checkpoint(file, os.path.join(draft, f"{name}.onnx"), ["onnx"])
        write_text(os.path.join(draft, f"{name}.py"), meta["config"])
        scores = {
            key: float(value) for key, value in (metrics or meta.get("metrics") or {}).items() if math.isfinite(value)
        }
        model = _Model(
            name, title or f"{name}: roads in aerial images", url, cfg, network, facts, meta, scores, Path(draft)
        )
        write_text(os.path.join(draft, CARD), model.card())
        write_text(os.path.join(draft, ITEM), json.dumps(model.item(), indent=1) + "\n")
        if there:
            os.replace(folder, os.path.join(os.path.dirname(draft), "replaced"))
    return model.weights_sha256


@dataclass(frozen=True)
class _Model:
    """All that the card and the item say.

    Attributes:
        name: of the files.
        title: for people.
        url: of the folder, where it is known.
        cfg: config of the weights.
        network: segmentor with its weights.
        facts: of the network.
        meta: of the published weights.
        scores: by the names of tools/test.py, 0 to 1.
        folder: with the files that are described.
    """

    name: str
    title: str
    url: str | None
    cfg: Config
    network: Any
    facts: NetworkFacts
    meta: dict
    scores: dict[str, float]
    folder: Path

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the file of weights, as URLs state it."""
        return sha256_of(self.folder / f"{self.name}.safetensors")

    @cached_property
    def architecture(self) -> str:
        """Encoder and decoder."""
        backbone, head = self.cfg.model.backbone, self.cfg.model.decode_head
        return f"{backbone.get('name', backbone.type)} + {head.type}"

    @cached_property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(value.numel() for value in self.network.parameters())

    @cached_property
    def trained_on(self) -> list[str]:
        """Names of the folders of training data."""
        return trained_on(self.cfg)

    @cached_property
    def bands(self) -> list[str]:
        """Names of the bands as images are read."""
        numbers = self.facts.reading.bands
        if numbers is None:
            return ["red", "green", "blue"]
        return [f"band{number}" for number in numbers]

    @cached_property
    def mapping(self) -> dict[str, Any]:
        """What maps are made with, without what is not known."""
        facts = self.facts
        found = dict(
            gsd_m=facts.reading.gsd_m,
            gsd_range_m=facts.gsd_range_m,
            scales=facts.scales,
            threshold=facts.threshold,
            stride_px=facts.stride,
            iterations=self.meta.get("iterations"),
        )
        return {key: value for key, value in found.items() if value is not None}

    def item(self) -> dict[str, Any]:
        """Return the STAC item, version 1.1.0 with the extension MLM 1.5."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        licence = self.meta["licence"]
        bands = [dict(name=band) for band in self.bands]
        properties = {
            "title": self.title,
            "description": self._description(),
            "datetime": now,
            "license": licence if re.fullmatch(r"[\w.+-]+", licence) else "other",
            "bands": bands,
            **({"gsd": self.mapping["gsd_m"]} if "gsd_m" in self.mapping else {}),
            "mlm:name": self.name,
            "mlm:architecture": self.architecture,
            "mlm:tasks": ["semantic-segmentation"],
            "mlm:framework": "PyTorch",
            "mlm:framework_version": torch.__version__.partition("+")[0],
            "mlm:total_parameters": self.parameters,
            "mlm:memory_size": sum(value.nbytes for value in self.network.state_dict().values()),
            "mlm:accelerator": None,
            "mlm:accelerator_constrained": False,
            "mlm:hyperparameters": self.mapping,
            "mlm:input": [self._input()],
            "mlm:output": [self._output()],
        }
        return {
            "type": "Feature",
            "stac_version": "1.1.0",
            "stac_extensions": [f"https://stac-extensions.github.io/{name}/schema.json" for name in _EXTENSIONS],
            "id": self.name,
            # nobody said where on Earth it fails
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]],
            },
            "bbox": [-180, -90, 180, 90],
            "properties": properties,
            "links": [dict(rel="self", href=self._address(ITEM), type="application/geo+json")] if self.url else [],
            "assets": {asset["href"][2:]: asset for asset in self._assets(bands)},
        }

    def _description(self) -> str:
        found = ", ".join(self.facts.classes[1:])
        text = f"{self.architecture} with {self.parameters:,} parameters finds {found} in images from straight above."
        return f"{text} Trained on {', '.join(self.trained_on)}." if self.trained_on else text

    def _input(self) -> dict[str, Any]:
        """Return what the network takes: raw values less a mean, by a standard deviation, band by band."""
        facts, bands = self.facts, list(self.bands)
        mean, std = list(facts.mean), list(facts.std)
        low, high = facts.reading.low, facts.reading.high
        swapped = facts.bands == 3 and not facts.to_rgb
        if swapped:
            bands.reverse()
        clip = ""
        if low is not None and high is not None:
            if swapped:
                low, high = low[::-1], high[::-1]
            factors = [(b - a) / 255 for a, b in zip(low, high, strict=True)]
            mean = [a + factor * value for a, factor, value in zip(low, factors, mean, strict=True)]
            std = [factor * value for factor, value in zip(factors, std, strict=True)]
            limits = ", ".join(f"{band} {a:g} to {b:g}" for band, a, b in zip(bands, low, high, strict=True))
            clip = f"Raw values are clipped first: {limits}. "
        return {
            "name": "image",
            "description": f"{clip}Height and width are multiples of {facts.stride} px, by mirroring.",
            "bands": bands,
            "input": dict(
                shape=[-1, facts.bands, -1, -1], dim_order=["batch", "bands", "height", "width"], data_type="float32"
            ),
            "value_scaling": [dict(type="z-score", mean=m, stddev=s) for m, s in zip(mean, std, strict=True)],
            "resize_type": None,
            "pre_processing_function": None,
        }

    def _output(self) -> dict[str, Any]:
        facts = self.facts
        text = "Logit of road; a sigmoid makes it a probability."
        if facts.outputs > 1:
            text = "Logits; a softmax over the classes makes them probabilities."
        return {
            "name": "scores",
            "description": text,
            "tasks": ["semantic-segmentation"],
            "result": dict(
                shape=[-1, facts.outputs, -1, -1], dim_order=["batch", "class", "height", "width"], data_type="float32"
            ),
            "classification:classes": [
                dict(
                    value=value,
                    name=re.sub(r"[^\w-]", "_", name),
                    description=name,
                    color_hint=bytes(rgb).hex().upper(),
                )
                for value, (name, rgb) in enumerate(zip(facts.classes, facts.palette, strict=True))
            ],
            "post_processing_function": None,
        }

    def _assets(self, bands: list[dict]) -> Iterator[dict[str, Any]]:
        for path in sorted(self.folder.iterdir()):
            kind, roles, model = _ASSETS[path.suffix]
            asset: dict[str, Any] = dict(href=f"./{path.name}", type=kind, roles=roles, **model)
            if "mlm:model" in roles:
                asset["bands"] = bands
            if path.suffix == ".onnx":
                asset["description"] = f"{_signature(str(path))}; its metadata say how its input is made"
            yield asset | {
                "file:size": path.stat().st_size,
                "file:checksum": _SHA256_MULTIHASH + sha256_of(path),
            }

    def _address(self, file: str) -> str:
        return f"{(self.url or _NOWHERE).rstrip('/')}/{file}"

    def card(self) -> str:
        """Return the model card in the form of the Hub: its front matter, then what people want to know."""
        facts, licence = self.facts, self.meta["licence"]
        known = licence.lower() in _HUB_LICENCES
        front = dict(
            license=licence.lower() if known else "other",
            **({} if known else dict(license_name=re.sub(r"[^\w.-]+", "-", licence).lower())),
            library_name="mmseg_ext",
            pipeline_tag="image-segmentation",
            tags=["road-extraction", "semantic-segmentation", "remote-sensing", "open-pit-mine", "onnx", "stac"],
            **(dict(datasets=self.trained_on) if self.trained_on else {}),
            **self._results(),
        )
        rows = [
            ("network", f"{self.architecture}, {self.parameters / 1e6:.2f} million parameters"),
            ("classes", ", ".join(facts.classes)),
            ("trained on", ", ".join(self.trained_on) or "not known"),
            ("iterations", str(self.meta.get("iterations") or "not known")),
            ("bands", f"{', '.join(self.bands)}, {_depth(facts)}"),
            ("metres per pixel", _ground(facts)),
            ("sizes at which maps look at each tile", ", ".join(f"{scale:g}" for scale in facts.scales)),
            ("road from a probability of", f"{facts.threshold:g}" if facts.threshold else "the largest of all classes"),
            ("made with", f"mmseg_ext {self.meta['mmseg_ext_version']}, code {self.meta['git_revision']}"),
        ]
        scores = [(key, f"{100 * value:.2f}") for key, value in self.scores.items()]
        files = [
            (f"`{path.name}`", f"{path.stat().st_size:,}", f"`{sha256_of(path)}`")
            for path in sorted(self.folder.iterdir())
        ]
        weights = f"{self._address(f'{self.name}.safetensors')}#sha256={self.weights_sha256}"
        return f"""---
{mmcv.dump(front, file_format="yaml", sort_keys=False, allow_unicode=True).strip()}
---

# {self.title}

{self._description()} Licence: {licence}.

## Use it

With the package mmseg_ext; the file is fetched once, and refused if it is another:

```bash
dsegnext predict {weights} flights/*.tif --out maps
```

`{self.name}.onnx` runs in ONNX Runtime without that package; its metadata say how images are read and what comes out.
`{ITEM}` says the same to catalogues (STAC with the extension MLM).

## What it is

{markdown_table(("", ""), rows)}

## Scores

{markdown_table(("score", "%"), scores) + self._where() if scores else "No scores are recorded in these weights."}

## Files

{markdown_table(("file", "bytes", "SHA-256"), files)}
"""

    def _where(self) -> str:
        return f"\n\nMeasured with `dsegnext test` on {self._test_set()}."

    def _test_set(self) -> str:
        return os.path.basename(os.path.normpath(self.cfg.data.test.get("data_root") or "unknown"))

    def _results(self) -> dict[str, Any]:
        """Return the scores as the Hub's tables want them; nothing where there are none."""
        if not self.scores:
            return {}
        kinds = {key: _HUB_METRICS.get(key, re.sub(r"\W+", "_", key).lower()) for key in self.scores}
        dataset = self._test_set()
        result = dict(
            task=dict(type="image-segmentation"),
            dataset=dict(name=dataset, type=re.sub(r"[^\w.-]+", "-", dataset).lower()),
            metrics=[dict(type=kinds[key], value=round(value, 6), name=key) for key, value in self.scores.items()],
        )
        return {"metrics": list(dict.fromkeys(kinds.values())), "model-index": [dict(name=self.name, results=[result])]}


def _depth(facts: NetworkFacts) -> str:
    low, high = facts.reading.low, facts.reading.high
    if low is None or high is None:
        return "8 bits"
    return "raw values " + ", ".join(f"{a:g} to {b:g}" for a, b in zip(low, high, strict=True))


def _ground(facts: NetworkFacts) -> str:
    gsd_m, limits = facts.reading.gsd_m, facts.gsd_range_m
    text = "not known" if gsd_m is None else f"{gsd_m:g}"
    return text if limits is None else f"{text}; training showed {limits[0]:g} to {limits[1]:g}"


def _signature(path: str) -> str:
    """Return what an ONNX file takes and gives: ``image float32 (N, 3, H, W) -> scores float32 (N, 2, H, W)``."""
    onnx = lazy_import("onnx", "deploy", "describing an ONNX file")
    graph = onnx.load(path, load_external_data=False).graph

    def said(value: Any) -> str:
        tensor = value.type.tensor_type
        sizes = ", ".join(size.dim_param or str(size.dim_value) for size in tensor.shape.dim)
        return f"{value.name} {onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)} ({sizes})"

    return f"{', '.join(map(said, graph.input))} -> {', '.join(map(said, graph.output))}"
