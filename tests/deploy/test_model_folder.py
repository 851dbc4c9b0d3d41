"""A folder to upload: that its files say the same, in the forms of the Hub and of STAC, and its weights run by URL."""

import hashlib
import json
import os
import re

import numpy as np
import onnx
import pytest
import torch
from file_server import serving
from huggingface_hub import ModelCard
from mmcv import Config
from onnx import TensorProto, helper

from mmseg_ext.deploy import model_folder
from mmseg_ext.deploy.facts import normalized
from mmseg_ext.deploy.model_folder import publish_folder
from mmseg_ext.deploy.trained import TrainedNetwork
from mmseg_ext.engine import build_network, load_config, publish_checkpoint
from mmseg_ext.errors import CheckpointError, ConfigError
from mmseg_ext.files import CACHE_VARIABLE

SCORES = {"mIoU": 0.5, "IoU.road": 0.25, "mAcc": float("nan")}


@pytest.fixture(scope="module")
def weights(one_config, tmp_path_factory):
    """Published weights of a tiny network for raw values of 16 bits."""
    folder = tmp_path_factory.mktemp("weights")
    cfg = load_config(str(one_config))
    torch.manual_seed(0)
    image = dict(bands=[3, 2, 1], low=[100.0, 0.0, 0.0], high=[355.0, 510.0, 51.0], gsd_m=0.25)
    meta = dict(config=cfg.pretty_text, iter=4, image=image)
    torch.save(dict(state_dict=build_network(cfg).state_dict(), meta=meta), folder / "latest.pth")
    path = str(folder / "w.safetensors")
    mapping = dict(threshold=0.3, scales=[0.5, 1], gsd_range_m=[0.1, 1])
    publish_checkpoint(str(folder / "latest.pth"), path, cfg, "Our own 1.0", metrics=SCORES, mapping=mapping)
    return path


def write_small_onnx(_, out, formats):
    """Stand in for the export, which takes its time and is tested elsewhere: write a file with that signature."""
    assert formats == ["onnx"]
    axes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, "H", "W"]) for name in ("image", "scores")]
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["scores"])], "g", axes[:1], axes[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), out)


@pytest.fixture(scope="module")
def published(weights, tmp_path_factory):
    """The folder, with the name and the address that it was given."""
    folder = tmp_path_factory.mktemp("to") / "my_mine"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_folder, "export_checkpoint", write_small_onnx)
        digest = publish_folder(weights, str(folder), url="https://example.org/models/")
    assert digest == sha256(folder / "my_mine.safetensors") == sha256(weights)
    return folder


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def item_of(folder):
    return json.loads((folder / "item.json").read_text())


def test_the_folder_has_every_file_and_the_item_knows_them(published):
    names = set(os.listdir(published))
    assert names >= {f"my_mine.{kind}" for kind in ("safetensors", "onnx", "py")} | {"README.md", "item.json"}
    assets = item_of(published)["assets"]
    assert assets.keys() == names - {"item.json"}
    for name, asset in assets.items():
        assert asset["href"] == f"./{name}" and asset["file:size"] == (published / name).stat().st_size
        assert asset["file:checksum"] == "1220" + sha256(published / name)  # a multihash: sha2-256, 32 bytes
    assert Config.fromfile(str(published / "my_mine.py")).model.backbone.type == "MSCAN"
    signature = "image float32 (N, 3, H, W) -> scores float32 (N, 3, H, W); its metadata say how its input is made"
    assert assets["my_mine.onnx"]["description"] == signature


def test_the_item_says_what_the_network_takes_and_gives(published, weights):
    item = item_of(published)
    said, facts = item["properties"], TrainedNetwork.load(weights).facts
    assert (item["id"], said["mlm:name"], said["gsd"], said["license"]) == ("my_mine", "my_mine", 0.25, "other")
    assert said["mlm:architecture"] == "MSCAN + LightHamHead" and said["mlm:tasks"] == ["semantic-segmentation"]
    parameters = sum(value.numel() for value in build_network(load_config(str(published / "my_mine.py"))).parameters())
    assert said["mlm:total_parameters"] == parameters
    assert said["mlm:hyperparameters"] == dict(
        gsd_m=0.25, gsd_range_m=[0.1, 1], scales=[0.5, 1], threshold=0.3, stride_px=facts.stride, iterations=4
    )
    (taken,), (given,) = said["mlm:input"], said["mlm:output"]
    assert taken["bands"] == ["band3", "band2", "band1"] == [band["name"] for band in said["bands"]]
    assert taken["input"]["shape"] == [-1, 3, -1, -1] and given["result"]["shape"] == [-1, 2, -1, -1]
    raw = np.array([[[100, 510, 51], [355, 0, 20]]], np.float64)  # (1, 2, bands)
    scaled = np.array([[[0, 255, 255], [255, 0, 100]]], np.uint8)
    found = np.stack([(raw[..., i] - s["mean"]) / s["stddev"] for i, s in enumerate(taken["value_scaling"])], 2)
    assert np.allclose(found, normalized(facts, scaled, ""), atol=1e-4)
    assert taken["description"].startswith(
        "Raw values are clipped first: band3 100 to 355, band2 0 to 510, band1 0 to 51."
    )
    assert [(c["value"], c["name"], c["color_hint"]) for c in given["classification:classes"]] == [
        (0, "background", "000000"),
        (1, "road", "800000"),
    ]


def test_the_item_is_valid_stac(published):
    """The schema of STAC 1.1 as pystac has it, and MLM 1.5 as the classes of its own package have it."""
    pytest.importorskip("stac_model", reason="make install brings stac-model, which checks the extension MLM")
    import pystac
    from jsonschema import Draft7Validator
    from pystac.validation.local_validator import get_local_schema_cache
    from referencing import Registry, Resource
    from stac_model.schema import MLModelProperties

    item, schemas = item_of(published), get_local_schema_cache()
    registry = Registry().with_resources([(uri, Resource.from_contents(schema)) for uri, schema in schemas.items()])
    core = schemas["https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"]
    assert [error.message for error in Draft7Validator(core, registry=registry).iter_errors(item)] == []
    assert pystac.Item.from_dict(item).get_self_href() == "https://example.org/models/item.json"
    properties = MLModelProperties(**item["properties"])
    again = json.loads(properties.model_dump_json(by_alias=True, exclude_none=True))
    assert again["mlm:input"][0]["value_scaling"] == item["properties"]["mlm:input"][0]["value_scaling"]


def test_the_item_keeps_what_the_schema_of_mlm_asks_beyond_those_classes(published):
    """By hand from the JSON schema of MLM 1.5.0 and of the extension for files 2.1.0, which stand only on the web."""
    item = item_of(published)
    assert item["stac_extensions"] == [
        f"https://stac-extensions.github.io/{name}/schema.json" for name in ("mlm/v1.5.0", "file/v2.1.0")
    ]
    said, assets = item["properties"], item["assets"].values()
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", said["mlm:name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?", said["mlm:framework_version"])
    known = "name architecture tasks framework framework_version memory_size total_parameters accelerator"
    known = {f"mlm:{key}" for key in (*known.split(), "accelerator_constrained", "input", "output", "hyperparameters")}
    assert {key for key in said if key.startswith("mlm:")} <= known
    assert all("bands" in part["input"]["dim_order"] for part in said["mlm:input"]) and len(said["bands"]) > 0
    assert all(re.fullmatch("[a-z-_]+", name) for name in said["mlm:output"][0]["result"]["dim_order"])
    assert all(re.fullmatch("[0-9a-zA-Z_.-]+", name) for name in said["mlm:hyperparameters"])
    models = [asset for asset in assets if "mlm:model" in asset["roles"]]
    assert {asset["mlm:framework"] for asset in models} == {"PyTorch", "ONNX"}
    for asset in assets:  # what wrote a model is said of models, and of nothing else
        assert ("mlm:artifact_type" in asset) == (asset in models)
        assert not asset.keys() & {"mlm:name", "mlm:input", "mlm:output", "mlm:hyperparameters"}
        assert re.fullmatch("[a-f0-9]+", asset["file:checksum"])


def test_the_card_is_one_that_the_hub_reads(published, weights):
    card = ModelCard.load(str(published / "README.md"))
    data = card.data.to_dict()
    assert (data["license"], data["license_name"], data["library_name"]) == ("other", "our-own-1.0", "mmseg_ext")
    assert (data["pipeline_tag"], data["datasets"]) == ("image-segmentation", ["data"])
    results = {result.metric_name: (result.metric_type, result.metric_value) for result in card.data.eval_results}
    assert results == {"mIoU": ("mean_iou", 0.5), "IoU.road": ("iou_road", 0.25)}  # no NaN
    assert {result.dataset_name for result in card.data.eval_results} == {"data"}
    address = f"https://example.org/models/my_mine.safetensors#sha256={sha256(weights)}"
    assert f"dsegnext predict {address} flights/*.tif --out maps\n" in card.text
    for line in ("| metres per pixel | 0.25; training showed 0.1 to 1 |", "| IoU.road | 25.00 |", "| iterations | 4 |"):
        assert line in card.text
    for name in ("my_mine.onnx", "my_mine.py"):
        assert f"`{name}` | {(published / name).stat().st_size:,} | `{sha256(published / name)}` |" in card.text


def test_the_weights_run_from_their_url(published, weights, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    with serving(published) as server:
        fetched = TrainedNetwork.load(server.url("my_mine.safetensors"))
        assert server.requests == [None]
        wrong = server.url("my_mine.safetensors")[:-64] + "0" * 64
        with pytest.raises(CheckpointError, match=r"my_mine.safetensors: is another file, with SHA-256"):
            TrainedNetwork.load(wrong)
    local = TrainedNetwork.load(weights)
    assert fetched.facts == local.facts
    assert np.array_equal(fetched.predict([image]), local.predict([image]))


def test_a_folder_is_replaced_only_when_asked_and_only_one_of_ours(published, weights, tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    monkeypatch.setattr(model_folder, "export_checkpoint", write_small_onnx)
    publish_folder(weights, str(folder), name="first")
    with pytest.raises(ConfigError, match=r"mine: exists already; choose another folder or give --overwrite"):
        publish_folder(weights, str(folder))
    publish_folder(weights, str(folder), name="second", title="Roads", overwrite=True)
    assert not (folder / "first.onnx").exists() and "\n# Roads\n" in (folder / "README.md").read_text()
    assert "https://.../second.safetensors#sha256=" in (folder / "README.md").read_text()
    assert item_of(folder)["links"] == []

    def fail(*_):
        raise ConfigError("no export")

    monkeypatch.setattr(model_folder, "export_checkpoint", fail)
    before = sorted(os.listdir(folder))
    for target in (folder, tmp_path / "new"):
        with pytest.raises(ConfigError, match="no export"):
            publish_folder(weights, str(target), overwrite=True)
    assert sorted(os.listdir(folder)) == before and os.listdir(tmp_path) == ["mine"]
    (tmp_path / "notes").mkdir()
    with pytest.raises(ConfigError, match=r"notes: has no item.json, so it is not overwritten"):
        publish_folder(weights, str(tmp_path / "notes"), overwrite=True)


def test_what_is_no_name_and_what_is_not_published(weights, tmp_path):
    with pytest.raises(ConfigError, match="2 mines: cannot be a model's name; give --name with a letter first"):
        publish_folder(weights, str(tmp_path / "2 mines"))
    plain = os.path.join(os.path.dirname(weights), "latest.pth")
    with pytest.raises(CheckpointError, match=r"latest.pth: is not published; tools/publish_checkpoint.py makes such"):
        publish_folder(plain, str(tmp_path / "mine"))
    assert os.listdir(tmp_path) == []
