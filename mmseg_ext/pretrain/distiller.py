"""A student encoder that learns to give the features of a teacher, stage by stage.

Regression onto hidden layers is FitNets' (Romero et al., arXiv 1412.6550); here the layers are the last of each
resolution, their channels are normalised as in Heo et al. (arXiv 1904.01866), and the loss is smooth L1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from .soft_labels import SoftLabels

STRIDES = (4, 8, 16, 32)
_LEAST_STD = 1e-5  # of a channel that is constant


def by_stride(features: Tensor | Sequence[Tensor], width: int, name: str) -> dict[int, Tensor]:
    """Return the last of ``features`` (B, C, H / s, W / s) at each stride s of `STRIDES`.

    Args:
        features: what a network gives.
        width: of its image in px, a multiple of the largest stride.
        name: of the network, for the message.

    Raises:
        ConfigError: there is none at one of the strides.
    """
    if isinstance(features, Tensor):
        features = [features]
    found = {width // feature.shape[-1]: feature for feature in features if feature.ndim == 4}
    if not set(STRIDES) <= found.keys():
        have = ", ".join(map(str, sorted(found))) or "none"
        raise ConfigError(
            f"{name}: gives features at strides {have}, not at all of {', '.join(map(str, STRIDES))}; "
            "take a network of four stages"
        )
    return {stride: found[stride] for stride in STRIDES}


class Distiller(nn.Module):
    """The student with a 1x1 convolution behind each stage, and the teacher, whose features it shall give.

    The teacher's channels are brought to mean 0 and variance 1 by statistics that `measure` takes once, before the
    first step: those of a batch would rest on a few pixels at stride 32, and the target of a crop would depend on the
    crops beside it. The teacher is no part of the state dict.

    Args:
        student: encoder to train; features at the `STRIDES`.
        teacher: frozen network, with features at these strides as well, on the device to train on.
        student_norm: mean and standard deviation of each band (RGB, 0 to 255) that the student sees normalised.
        teacher_norm: those of the teacher.
        crop_size: side of the crops, px.
        soft_labels: the student's decode head, and what it learns; None: features are all.

    Raises:
        ConfigError: a network lacks features at a stride, or takes no such images.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        student_norm: tuple[Sequence[float], Sequence[float]],
        teacher_norm: tuple[Sequence[float], Sequence[float]],
        crop_size: int,
        soft_labels: SoftLabels | None = None,
    ) -> None:
        super().__init__()
        self.student, self.soft_labels = student, soft_labels
        self._teacher = (teacher.eval().requires_grad_(False),)
        for name, values in zip(("student", "teacher"), (student_norm, teacher_norm), strict=True):
            for what, numbers in zip(("mean", "std"), values, strict=True):
                self.register_buffer(f"{name}_{what}", torch.tensor(numbers).view(1, -1, 1, 1), persistent=False)
        widths = [self._widths(network, crop_size) for network in (student, teacher)]
        self.projections = nn.ModuleDict(
            {str(stride): nn.Conv2d(widths[0][stride], widths[1][stride], 1) for stride in STRIDES}
        )
        for stride, width in widths[1].items():
            self.register_buffer(f"target_mean_{stride}", torch.zeros(width))
            self.register_buffer(f"target_std_{stride}", torch.ones(width))

    @staticmethod
    @torch.no_grad()
    def _widths(network: nn.Module, crop_size: int) -> dict[int, int]:
        """Return the channels of ``network`` at each stride, tried on an empty image."""
        name = getattr(network, "name", type(network).__name__)
        was_training = network.training
        image = torch.zeros(1, 3, crop_size, crop_size, device=next(network.parameters()).device)
        try:
            features = by_stride(network.eval()(image), crop_size, name)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"{name}: takes no crops of {crop_size} px in three bands ({error})") from None
        network.train(was_training)
        return {stride: feature.shape[1] for stride, feature in features.items()}

    def _normalised(self, image: Tensor, name: str) -> Tensor:
        return (image.float() - getattr(self, f"{name}_mean")) / getattr(self, f"{name}_std")

    @torch.no_grad()
    def _raw_targets(self, image: Tensor) -> dict[int, Tensor]:
        features = by_stride(self._teacher[0](self._normalised(image, "teacher")), image.shape[-1], "teacher")
        return {stride: feature.float() for stride, feature in features.items()}

    def targets(self, image: Tensor) -> dict[int, Tensor]:
        """Return the teacher's normalised features of ``image``, uint8 (B, 3, H, W), by stride."""
        return {
            stride: (feature - self._of_channel("mean", stride)) / self._of_channel("std", stride)
            for stride, feature in self._raw_targets(image).items()
        }

    def _of_channel(self, what: str, stride: int) -> Tensor:
        return getattr(self, f"target_{what}_{stride}").view(1, -1, 1, 1)

    def answers(self, image: Tensor) -> dict[int, Tensor]:
        """Return the student's features of ``image``, uint8 (B, 3, H, W), as it puts them to the teacher, by stride."""
        return self._projected(self.student(self._normalised(image, "student")), image.shape[-1])

    def _projected(self, features: Tensor | Sequence[Tensor], width: int) -> dict[int, Tensor]:
        found = by_stride(features, width, "student")
        return {stride: self.projections[str(stride)](feature).float() for stride, feature in found.items()}

    def forward(self, img: Tensor, img_metas: object = None) -> dict[str, Tensor]:
        """Return the loss of each stride, and that of the soft labels if there are any, for ``img``, uint8."""
        features, targets = self.student(self._normalised(img, "student")), self.targets(img)
        answers = self._projected(features, img.shape[-1])
        losses = {f"loss_{stride}": F.smooth_l1_loss(answers[stride], targets[stride]) for stride in STRIDES}
        if self.soft_labels is not None:
            losses["loss_soft"] = self.soft_labels(features, img)
        return losses

    @torch.no_grad()
    def measure(self, images: Iterable[Tensor]) -> None:
        """Take mean and standard deviation of the teacher's channels over batches of ``images``, uint8."""
        count = dict.fromkeys(STRIDES, 0)
        total = {stride: getattr(self, f"target_mean_{stride}").double().zero_() for stride in STRIDES}
        squares = {stride: value.clone() for stride, value in total.items()}
        for image in images:
            for stride, feature in self._raw_targets(image).items():
                values = feature.double().transpose(0, 1).flatten(1)
                count[stride] += values.shape[1]
                total[stride] += values.sum(1)
                squares[stride] += values.square().sum(1)
        for stride in STRIDES:
            mean = total[stride] / count[stride]
            std = (squares[stride] / count[stride] - mean.square()).clamp(min=0).sqrt()
            getattr(self, f"target_mean_{stride}").copy_(mean)
            getattr(self, f"target_std_{stride}").copy_(std.clamp(min=_LEAST_STD))

    @torch.no_grad()
    def explained_variance(self, images: Iterable[Tensor]) -> dict[int, float]:
        """Return by stride which share of the targets' variance over ``images`` the student explains.

        1 is the teacher itself, 0 what the mean of each channel explains. The student is evaluated as it is used, and
        is in training again afterwards.
        """
        self.eval()
        pairs = [(self.answers(image), self.targets(image)) for image in images]
        self.train()
        explained = {}
        for stride in STRIDES:
            answer, target = (
                torch.cat([pair[i][stride].transpose(0, 1).flatten(1) for pair in pairs], dim=1) for i in (0, 1)
            )
            error = (answer - target).square().sum()
            explained[stride] = 1 - (error / (target - target.mean(1, keepdim=True)).square().sum()).item()
        return explained
