import pytest
import torch
import torchvision
from torch import nn

from mmseg_ext.engine.weights import load_fitting, load_pretrained, load_start_weights, load_weights
from mmseg_ext.errors import CheckpointError
from mmseg_ext.models import MSCAN, DUNet, LinkNet34, SevenLevelUNet


def small(width=4, extra=False):
    layers = [nn.Conv2d(3, width, 1), nn.BatchNorm2d(width)]
    return nn.Sequential(*layers, *([nn.Conv2d(width, 1, 1)] if extra else []))


def state_file(path, network, **more):
    torch.save(dict(state_dict=network.state_dict(), meta=dict(iter=3), **more), path)
    return str(path)


class Segmentor(nn.Module):
    def __init__(self, classes=2, width=100):
        super().__init__()
        self.backbone, self.decode_head = nn.Linear(100, width), nn.Linear(width, classes)


def test_start_weights_may_lack_the_head_but_not_the_backbone(tmp_path):
    network, source = Segmentor(5), Segmentor(2)
    load_start_weights(network, state_file(tmp_path / "two.pth", source))
    assert torch.equal(network.backbone.weight, source.backbone.weight)
    other = state_file(tmp_path / "other.pth", Segmentor(5, width=60))
    with pytest.raises(CheckpointError, match="fills only 0% of the backbone; give the right config; 1 loaded"):
        load_start_weights(network, other)
    load_start_weights(network, other, min_share=0)
    network.backbone = nn.Linear(99, 1)  # the bias alone is 1 % of it, the weight 99 %
    state = {"backbone.weight": torch.zeros(1, 99), "backbone.bias": torch.zeros(2)}
    torch.save(dict(state_dict=state), tmp_path / "most.pth")
    with pytest.raises(CheckpointError, match="fills only 99% .* anyway: --cfg-options min_loaded_share=0"):
        load_start_weights(network, str(tmp_path / "most.pth"), min_share=0.995)


def test_a_web_page_that_answers_a_download_is_named_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def answer(address, path, progress):
        with open(path, "w") as file:
            file.write("<!doctype html><title>Sign in</title>")

    monkeypatch.setattr(torch.hub, "download_url_to_file", answer)
    with pytest.raises(CheckpointError, match="^https://host/a.pth: is a web page.*save it as .*a.pth$"):
        load_pretrained(MSCAN(), "https://host/a.pth")
    assert not list((tmp_path / "hub" / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("network", "source", "pairs"),
    [
        (
            LinkNet34,
            torchvision.models.resnet34,
            {
                "firstconv.weight": "conv1.weight",
                "firstbn.bias": "bn1.bias",
                "encoder4.2.bn2.bias": "layer4.2.bn2.bias",
            },
        ),
        (
            DUNet,
            torchvision.models.vgg13,
            {"conv1.bias": "features.0.bias", "conv4.weight": "features.7.weight", "conv6.bias": "features.12.bias"},
        ),
    ],
)
def test_torchvision_encoders_fill_the_encoder(network, source, pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    network, source = network(), source(weights=None)
    enum = torchvision.models.get_weight(f"{network.imagenet_weights}.IMAGENET1K_V1")
    theirs = {key: value for key, value in source.state_dict().items() if not key.startswith("classifier.")}
    for value in theirs.values():
        value.copy_(torch.rand(value.shape))
    asked = []

    def download(address, path, progress):
        asked.append(address)
        torch.save(theirs, path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    load_pretrained(network, f"torchvision://{enum}")
    assert asked == [enum.url]
    own = network.state_dict()
    for ours, name in pairs.items():
        assert torch.equal(own[ours], theirs[name])
    fit = load_fitting(network, theirs, counted=network.encoder_prefixes)
    assert fit.share == 1
    assert fit.unexpected == []


@pytest.mark.parametrize(
    ("network", "source", "words"),
    [
        (
            LinkNet34,
            "VGG13_Weights.IMAGENET1K_V1",
            "take torchvision://ResNet34_Weights.IMAGENET1K_V1; to train",
        ),
        (LinkNet34, "ResNet34_Weights.IMAGENET2K", "no weights for LinkNet34; take torchvision://ResNet34_Weights"),
        (SevenLevelUNet, "ResNet34_Weights.DEFAULT", "SevenLevelUNet has no encoder in torchvision; to train without"),
    ],
)
def test_unknown_torchvision_weights_are_named(network, source, words):
    with pytest.raises(CheckpointError, match=words):
        load_pretrained(network(), f"torchvision://{source}")


def test_weights_of_another_size_say_which_config_they_fit(build, tmp_path):
    linknet = build("linknets/dlinknet34.1024x1024.DP.20k.py").state_dict()
    torch.save(dict(state_dict=linknet), tmp_path / "dlinknet.pth")
    tiny = build("dsegnext/tiny/Dsegnext.tiny.1024x1024.OPM.20k.py")
    expected = "the weights fit the model of myconfigs/linknets/dlinknet34.1024x1024.OPM.20k.py"
    with pytest.raises(CheckpointError, match=expected):
        load_weights(tiny, str(tmp_path / "dlinknet.pth"))
    with pytest.raises(CheckpointError, match=expected):
        load_start_weights(tiny, str(tmp_path / "dlinknet.pth"))
    encoder = build("dsegnext/small/dsegnext.small.1024x1024.OPM.20k.py").backbone.state_dict()
    head = {"head.weight": torch.zeros(1000, 512), "head.bias": torch.zeros(1000)}
    torch.save(dict(state_dict={**encoder, **head}), tmp_path / "small.pth")
    with pytest.raises(CheckpointError, match="the weights fit the model of myconfigs/dsegnext/small/dsegnext.small."):
        load_pretrained(tiny.backbone, str(tmp_path / "small.pth"))


def test_a_segmentation_checkpoint_is_an_encoder_too(build, tmp_path):
    source = build("segnext/tiny/segnext.tiny.1024x1024.OPM.20k.py")
    for parameter in source.parameters():
        nn.init.normal_(parameter)
    torch.save(dict(state_dict=source.state_dict()), tmp_path / "whole.pth")
    target = build("segnext/tiny/segnext.tiny.1024x1024.OPM.20k.py").backbone
    load_pretrained(target, str(tmp_path / "whole.pth"))
    own = source.backbone.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in target.state_dict().items())


def test_what_does_not_fit_is_named(tmp_path):
    path = state_file(tmp_path / "wide.pth", small(8, extra=True))
    network = small(4)
    with pytest.raises(CheckpointError) as error:
        load_weights(network, path)
    line = str(error.value)
    assert "\n" not in line
    assert "2 unexpected (2.weight, 2.bias)" in line
    assert "6 reshaped (0.weight: (8, 3, 1, 1) in the file, (4, 3, 1, 1) in the network" in line
    with pytest.raises(CheckpointError, match=r"2 missing \(2.weight, 2.bias\)"):
        load_weights(small(4, extra=True), state_file(tmp_path / "short.pth", small(4)))


def test_fit_counts():
    fit = load_fitting(small(4, extra=True), small(4).state_dict())
    assert (len(fit.loaded), fit.missing, fit.unexpected, fit.reshaped) == (7, ["2.weight", "2.bias"], [], [])
    assert fit.share == pytest.approx((12 + 4 + 4 * 4 + 1) / (12 + 4 + 4 * 4 + 1 + 5))
    assert not fit.complete
    counted = load_fitting(small(4, extra=True), small(4).state_dict(), counted=("1.", "2."))
    assert counted.share == pytest.approx((4 * 4 + 1) / (4 * 4 + 1 + 5))


SIZE = dict(embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), mlp_ratios=(2, 2, 2, 2))


def test_authors_encoder_files_load_into_the_backbone(tmp_path):
    source, target = MSCAN(**SIZE), MSCAN(**SIZE)
    source.init_weights()
    state = {**source.state_dict(), "head.weight": torch.zeros(1000, 32), "head.bias": torch.zeros(1000)}
    torch.save(dict(state_dict=state, epoch=300), tmp_path / "encoder.pth")
    load_pretrained(target, str(tmp_path / "encoder.pth"))
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )


def test_missing_encoder_says_where_to_get_it_and_how_to_do_without():
    with pytest.raises(CheckpointError) as error:
        load_pretrained(MSCAN(**SIZE), "pretrained/AttentionModuleK5D1259Cat_tiny.pth")
    line = str(error.value)
    assert line.startswith("pretrained/AttentionModuleK5D1259Cat_tiny.pth: no such pretrained encoder; get it from")
    assert line.endswith("--cfg-options model.backbone.init_cfg=None optimizer.lr=6e-4")
    assert "\n" not in line


def test_unreachable_address_says_so_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(CheckpointError) as error:
        load_pretrained(MSCAN(**SIZE), "http://127.0.0.1:9/mscan.pth")
    line = str(error.value)
    assert line.startswith("http://127.0.0.1:9/mscan.pth: cannot be downloaded")
    assert str(tmp_path / "hub" / "checkpoints" / "mscan.pth") in line
    assert "init_cfg=None" in line
    assert "\n" not in line


def test_encoder_of_another_size_is_refused(tmp_path):
    torch.save(dict(state_dict=MSCAN(**{**SIZE, "embed_dims": (16, 16, 24, 48)}).state_dict()), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="of the encoder"):
        load_pretrained(MSCAN(**SIZE), str(tmp_path / "other.pth"))
    load_pretrained(MSCAN(**SIZE), str(tmp_path / "other.pth"), min_share=0)
