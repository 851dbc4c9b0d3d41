"""The LinkNet and the UNet family: padding, shared parts, first weights."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmseg_ext.models import DLinkNet34, DUNet, LinkNet34, NLLinkNet34, SevenLevelUNet
from mmseg_ext.models.linknet import DilatedCenter, NonLocalBlock, initialise_convs, pad_to_multiple

DIVISORS = {LinkNet34: 32, DLinkNet34: 32, NLLinkNet34: 32, SevenLevelUNet: 128, DUNet: 8}


@pytest.mark.parametrize("network", DIVISORS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 47), (130, 64)])
def test_sizes_that_do_not_fit_are_padded_and_cropped_back(network, height, width):
    torch.manual_seed(0)
    network, divisor = network().eval(), DIVISORS[network]
    image = torch.randn(1, 3, height, width)
    padded = F.pad(image, (0, -width % divisor, 0, -height % divisor))
    with torch.no_grad():
        (feature,), (whole,) = network(image), network(padded)
    assert feature.shape[2:] == (height, width if width % divisor or type(network) is not LinkNet34 else width - 1)
    torch.testing.assert_close(feature, whole[:, :, :height, :width], atol=1e-5, rtol=1e-5)


def test_a_multiple_is_not_padded():
    image = torch.randn(1, 3, 64, 96)
    assert pad_to_multiple(image, 32) is image
    assert pad_to_multiple(image, 128).shape == (1, 3, 128, 128)


def test_the_dilated_centre_sums_every_step_of_the_chain():
    torch.manual_seed(0)
    center = DilatedCenter(4, 4, (1, 2, 4), add_input=True)
    x = torch.randn(2, 4, 16, 16)
    chain = [x]
    for conv in (center.dilate1, center.dilate2, center.dilate3):
        chain.append(conv(chain[-1]).relu())
    torch.testing.assert_close(center(x), sum(chain))
    center.add_input = False
    torch.testing.assert_close(center(x), sum(chain[1:]))
    assert [conv.dilation[0] for conv in center.children()] == [1, 2, 4]


def test_the_non_local_block_is_attention_over_pooled_positions():
    torch.manual_seed(0)
    block = NonLocalBlock(6, dict(type="BN")).eval()
    x = torch.randn(2, 6, 4, 8)
    assert torch.equal(block(x), x)
    nn.init.ones_(block.W[1].weight)
    expected = torch.empty(2, 3, 4, 8)
    keys, values = (F.max_pool2d(branch[0](x), 2).flatten(2) for branch in (block.phi, block.g))
    for b in range(2):
        for i in range(4):
            for j in range(8):
                weights = torch.softmax(block.theta(x)[b, :, i, j] @ keys[b], dim=0)
                expected[b, :, i, j] = values[b] @ weights
    torch.testing.assert_close(block(x), x + block.W(expected), atol=1e-5, rtol=1e-5)


def test_first_weights_keep_the_size_of_the_signal():
    layers = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1))
    torch.manual_seed(0)
    initialise_convs(layers)
    assert layers[0].weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.03)
    assert layers[1].weight.std().item() == pytest.approx(math.sqrt(2 / (4 * 64)), rel=0.03)
    assert not layers[0].bias.any()
    x = torch.randn(4, 64, 32, 32)
    for layer in layers:  # half of what is normal passes a ReLU, so the mean square stays
        y = layer(x.relu())[:, :, 4:-4, 4:-4]
        assert y.square().mean().item() == pytest.approx(x.square().mean().item(), rel=0.1)


def test_a_new_network_of_every_kind_starts_where_it_should():
    network = NLLinkNet34()
    network.init_weights()
    assert not network.nonlocal3.W[1].weight.any()
    assert torch.equal(network.encoder1[0].bn1.weight, torch.ones(64))
    for kind in (SevenLevelUNet, DUNet):
        torch.manual_seed(0)
        network = kind()
        network.init_weights()
        (feature,) = network(torch.randn(2, 3, 128, 128))
        assert 0.05 < feature.std().item() < 20


def test_attention_in_half_precision_has_scores_beyond_its_numbers():
    torch.manual_seed(0)
    block = NonLocalBlock(128, dict(type="BN")).eval()
    torch.nn.init.ones_(block.W[1].weight)
    x = 100 * torch.randn(1, 128, 8, 8)
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.float16):
            found = block(x)
            rounded = block.theta(x), block.phi(x), block.g(x)
        query, key, value = (part.float().flatten(2) for part in rounded)
        scores = query.transpose(1, 2) @ key
        assert scores.abs().max() > torch.finfo(torch.float16).max
        attended = value @ torch.softmax(scores, -1).transpose(1, 2)
        wanted = x + block.W(attended.reshape(1, -1, 8, 8))
    assert (found - wanted).abs().max() < 0.01 * (wanted - x).abs().max()
