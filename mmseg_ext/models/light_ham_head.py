"""LightHamHead, the decoder of SegNeXt and D-SegNeXt, with its Hamburger and the matrix factorisation in that.

Papers: SegNeXt (arXiv 2209.08575, Fig. 3); Hamburger, global context by matrix decomposition (Geng et al., ICLR 2021,
arXiv 2109.04553); non-negative matrix factorisation (NMF) by multiplicative updates (Lee and Seung, NIPS 2000).

Shapes: features of the stages, each (B, C_i, H_i, W_i), give logits (B, num_classes, H, W) of the first one's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmseg.models.builder import HEADS
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.ops import resize
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_EPS = 1e-6


def _update(factor: Tensor, other: Tensor, numerator: Tensor) -> Tensor:
    """Return one of the two factors after one multiplicative update; ``numerator`` is the matrix times ``other``."""
    return factor * numerator / (factor @ (other.transpose(1, 2) @ other) + _EPS)


def _update_backward(
    grad: Tensor, factor: Tensor, other: Tensor, numerator: Tensor, updated: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `_update` for ``factor``, ``other`` and ``numerator``."""
    gram = other.transpose(1, 2) @ other
    ratio = grad / (factor @ gram).add_(_EPS)
    grad_denominator = (ratio * updated).neg_()
    grad_gram = factor.transpose(1, 2) @ grad_denominator
    grad_factor = torch.baddbmm(ratio * numerator, grad_denominator, gram)
    return grad_factor, other @ (grad_gram + grad_gram.transpose(1, 2)), ratio * factor


def factorise(rows: Tensor, bases: Tensor, steps: int, kept: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """Return bases (N, D, R) and coefficients (N, P, R) of ``rows`` (N, P, D): D channels at P positions.

    ``kept`` takes in what the backward pass needs: for every step the coefficients, their numerator, the bases and
    their numerator (none for the last), then the last coefficients.
    """
    coefficients = torch.softmax(rows @ bases, dim=-1)
    for step in range(steps + 1):
        numerator = rows @ bases
        if kept is not None:
            kept += [coefficients, numerator, bases]
        coefficients = _update(coefficients, bases, numerator)
        if step < steps:
            numerator = rows.transpose(1, 2) @ coefficients
            if kept is not None:
                kept += [numerator]
            bases = _update(bases, coefficients, numerator)
    if kept is not None:
        kept += [coefficients]
    return bases, coefficients


class _Reconstruction(torch.autograd.Function):
    """`nmf_reconstruct` with a backward pass that keeps half of what autograd would.

    The products with the small Gram matrices are computed anew, and the gradients of ``x`` from all steps are summed
    by one product of matrices.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bases: Tensor, steps: int) -> Tensor:
        kept: list[Tensor] = []
        bases, coefficients = factorise(x.to(bases.dtype).transpose(1, 2), bases, steps, kept)
        # x as it came: the layer before keeps it anyway
        ctx.save_for_backward(x, *kept)
        ctx.steps = steps
        return bases @ coefficients.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        given, *kept, last = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            coefficients, numerators, bases, bases_numerators = [*kept[::4], last], kept[1::4], kept[2::4], kept[3::4]
            x = given.to(grad.dtype)
            grad_coefficients = grad.transpose(1, 2) @ bases[-1]
            grad_bases = grad @ coefficients[-1]
            lefts, rights = [], []  # the gradient of x is the sum of left @ right'
            for step in range(ctx.steps, -1, -1):
                grad_coefficients, from_gram, grad_numerator = _update_backward(
                    grad_coefficients, coefficients[step], bases[step], numerators[step], coefficients[step + 1]
                )
                if step == 0:
                    start = coefficients[0]
                    inner = (grad_coefficients * start).sum(-1, keepdim=True)
                    grad_numerator += start * (grad_coefficients - inner)
                lefts.append(bases[step])
                rights.append(grad_numerator)
                if step or ctx.needs_input_grad[1]:
                    grad_bases = torch.baddbmm(grad_bases + from_gram, x, grad_numerator)
                if step:
                    grad_bases, from_gram, grad_numerator = _update_backward(
                        grad_bases, bases[step - 1], coefficients[step], bases_numerators[step - 1], bases[step]
                    )
                    grad_coefficients += torch.baddbmm(from_gram, x.transpose(1, 2), grad_numerator)
                    lefts.append(grad_numerator)
                    rights.append(coefficients[step])
            grad_x = torch.cat(lefts, dim=2) @ torch.cat(rights, dim=2).transpose(1, 2)
        return grad_x.to(given.dtype), grad_bases if ctx.needs_input_grad[1] else None, None


def nmf_reconstruct(x: Tensor, bases: Tensor, steps: int) -> Tensor:
    """Return the low-rank approximation of ``x``, computed in float32 under any autocast.

    The first coefficients are softmax(x' bases); each step updates the coefficients, then the bases; one more update
    of the coefficients closes. Gradients flow through all steps, but have no gradients themselves.

    Args:
        x: non-negative matrices (N, D, P): D channels at P positions.
        bases: start bases (1 or N, D, R).
        steps: number of updates.

    Returns:
        The product of bases and coefficients, (N, D, P), float32.
    """
    with torch.autocast(x.device.type, enabled=False):
        bases = bases.float().expand(len(x), -1, -1)
        if torch.is_grad_enabled() and (x.requires_grad or bases.requires_grad):
            return _Reconstruction.apply(x, bases, steps)
        bases, coefficients = factorise(x.float().transpose(1, 2), bases, steps)
        return bases @ coefficients.transpose(1, 2)


class Hamburger(nn.Module):
    """1x1 conv, ReLU, low-rank reconstruction by NMF, 1x1 conv with norm, residual, ReLU.

    NMF starts from bases that are drawn, not learned; they are in no state dict. In training they come
    from torch's global generator. In evaluation they are fixed by ``seed`` and the same for every image,
    so an image's result depends on nothing but the image and the weights; ``random_bases=True`` restores
    the paper's behaviour, where every forward draws new ones.

    Args:
        rank: number of bases R.
        groups: S, the channels are decomposed in S groups of D = C / S.
        train_steps: multiplicative updates in training mode.
        eval_steps: multiplicative updates in evaluation mode.
        random_bases: draw new bases at every evaluation forward too.
        fixed_in_training: use the fixed bases in training too; a step then does not depend on how images are grouped.
        seed: seed of the fixed bases.
        norm_cfg: norm layer after the last 1x1 convolution.
    """

    fixed_bases: Tensor

    def __init__(
        self,
        channels: int,
        rank: int = 64,
        groups: int = 1,
        train_steps: int = 6,
        eval_steps: int = 7,
        random_bases: bool = False,
        fixed_in_training: bool = False,
        seed: int = 0,
        norm_cfg: dict | None = None,
    ) -> None:
        super().__init__()
        self.rank, self.groups = rank, groups
        self.train_steps, self.eval_steps = train_steps, eval_steps
        self.random_bases = random_bases
        self.fixed_in_training = fixed_in_training
        self.ham_in = ConvModule(channels, channels, 1, norm_cfg=None, act_cfg=None)
        self.ham_out = ConvModule(channels, channels, 1, norm_cfg=norm_cfg, act_cfg=None)
        drawn = np.random.default_rng(seed).random((1, channels // groups, rank))
        bases = F.normalize(torch.from_numpy(drawn.astype(np.float32)), dim=1)
        self.register_buffer("fixed_bases", bases, persistent=False)

    def start_bases(self, count: int, device: torch.device) -> Tensor:
        """Return the bases (1 or count, D, R) that the NMF of ``count`` matrices starts from."""
        draw = not self.fixed_in_training if self.training else self.random_bases
        if not draw:
            return self.fixed_bases
        return F.normalize(torch.rand((count, *self.fixed_bases.shape[1:]), device=device), dim=1)

    def forward(self, x: Tensor, bases: Tensor | None = None) -> Tensor:
        """Return the reconstruction added to ``x``.

        Args:
            x: features (B, C, H, W).
            bases: non-negative start bases (1 or B*S, D, R), L2-normalised over D; drawn when None.

        Returns:
            Features (B, C, H, W), not negative.
        """
        batch, channels, height, width = x.shape
        inner = F.relu(self.ham_in(x))
        matrices = inner.reshape(batch * self.groups, channels // self.groups, height * width)
        bases = self.start_bases(len(matrices), x.device) if bases is None else bases
        steps = self.train_steps if self.training else self.eval_steps
        rebuilt = nmf_reconstruct(matrices, bases, steps).to(inner.dtype)
        return F.relu(x + self.ham_out(rebuilt.reshape(x.shape)))


@HEADS.register_module()
class LightHamHead(BaseDecodeHead):
    """Joins several stages at the resolution of the first and adds global context with Hamburger.

    Args:
        ham_channels: width C of the Hamburger.
        ham_cfg: further arguments of `Hamburger` (rank, groups, steps, random_bases, seed).
        **kwargs: arguments of MMSegmentation's ``BaseDecodeHead``; ``in_channels`` and ``in_index``
            name the stages, ``channels`` is the width of the classifier's input.
    """

    def __init__(self, ham_channels: int = 512, ham_cfg: dict | None = None, **kwargs) -> None:
        super().__init__(input_transform="multiple_select", **kwargs)
        conv_cfg = dict(conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.squeeze = ConvModule(sum(self.in_channels), ham_channels, 1, **conv_cfg)
        self.hamburger = Hamburger(ham_channels, norm_cfg=self.norm_cfg, **(ham_cfg or {}))
        self.align = ConvModule(ham_channels, self.channels, 1, **conv_cfg)

    def forward(self, inputs: Sequence[Tensor], bases: Tensor | None = None) -> Tensor:
        """Return class scores at the resolution of the first selected stage.

        Args:
            inputs: features of all backbone stages, each (B, C_i, H_i, W_i).
            bases: start bases of the NMF (1 or B*S, D, R); drawn or fixed by the head when None.

        Returns:
            Logits (B, num_classes, H, W).
        """
        first, *others = self._transform_inputs(inputs)
        resized = [resize(x, size=first.shape[2:], mode="bilinear", align_corners=self.align_corners) for x in others]
        x = self.squeeze(torch.cat([first, *resized], dim=1))
        return self.cls_seg(self.align(self.hamburger(x, bases)))
