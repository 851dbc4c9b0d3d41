"""Hamburger: global context by matrix decomposition (Geng et al., ICLR 2021, arXiv 2109.04553)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from torch import Tensor, nn

from .nmf import nmf_reconstruct


class Hamburger(nn.Module):
    """1x1 conv, ReLU, low-rank reconstruction by NMF, 1x1 conv with norm, residual, ReLU.

    NMF starts from bases that are drawn, not learned; they are in no state dict. In training they come
    from torch's global generator. In evaluation they are fixed by ``seed`` and the same for every image,
    so an image's result depends on nothing but the image and the weights; ``random_bases=True`` restores
    the paper's behaviour, where every forward draws new ones.

    Args:
        channels: number of channels C.
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

    def _draw_bases(self, count: int, device: torch.device) -> Tensor:
        shape = (count, *self.fixed_bases.shape[1:])
        return F.normalize(torch.rand(shape, device=device), dim=1)

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
        if bases is None:
            draw = not self.fixed_in_training if self.training else self.random_bases
            bases = self._draw_bases(len(matrices), x.device) if draw else self.fixed_bases
        steps = self.train_steps if self.training else self.eval_steps
        rebuilt = nmf_reconstruct(matrices, bases, steps).to(inner.dtype)
        return F.relu(x + self.ham_out(rebuilt.reshape(x.shape)))
