"""The encoders of SegNeXt and D-SegNeXt as classifiers in timm's registry, with the sizes of our configs.

``timm.create_model("dsegnext_tiny", num_classes=10)`` works once `mmseg_ext.pretrain` is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import timm
from mmcv import Config
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from ..engine.checkpoint import read_checkpoint
from ..engine.config import CONFIG_ROOT
from ..engine.weights import load_fitting
from ..errors import CheckpointError, ConfigError
from ..models.mscan import IMAGENET_CLASSES, MSCAN

# name in timm -> config below myconfigs/_base_/models that owns the sizes
CLASSIFIERS = {
    f"{family}_{size}": f"{family}_{size[0]}.py"
    for family in ("segnext", "dsegnext")
    for size in ("tiny", "small", "base", "large")
}
# what a segmentation config says of its encoder and a classifier decides itself: plain BN, no start weights
_NOT_FOR_CLASSIFIERS = ("type", "norm_cfg", "init_cfg")

_DEFAULT_CFG = dict(
    num_classes=IMAGENET_CLASSES,
    input_size=(3, 224, 224),
    pool_size=(7, 7),
    crop_pct=0.9,
    interpolation="bicubic",
    mean=IMAGENET_DEFAULT_MEAN,
    std=IMAGENET_DEFAULT_STD,
    first_conv="patch_embed1.proj.0",
    classifier="head",
)
default_cfgs = generate_default_cfgs({name: _DEFAULT_CFG for name in CLASSIFIERS})


class Classifier(MSCAN):
    """MSCAN whose last stage is averaged over space and classified by a linear layer ``head``.

    Its keys are those of published encoder files, so these load strictly, and its own weights load into the
    encoder of a segmentor. Images (B, in_chans, H, W) give logits (B, num_classes).

    Args:
        num_classes: number of classes; 0 returns the averaged features (B, C) instead of logits.
        in_chans: bands of the image.
        global_pool: ``avg``; another is a `ConfigError`.
        encoder: arguments of `MSCAN`.
    """

    def __init__(
        self, num_classes: int = IMAGENET_CLASSES, in_chans: int = 3, global_pool: str = "avg", **encoder: Any
    ):
        super().__init__(in_channels=in_chans, **encoder)
        self.num_features = self.head_hidden_size = self.embed_dims[-1]
        stages = enumerate(self.embed_dims)
        self.feature_info = [dict(num_chs=n, reduction=4 * 2**i, module=f"norm{i + 1}") for i, n in stages]
        self.head: nn.Module
        self.reset_classifier(num_classes, global_pool)
        self.init_weights()

    def get_classifier(self) -> nn.Module:
        """Return the linear layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str = "avg") -> None:
        """Replace the linear layer by a fresh one."""
        if global_pool != "avg":
            raise ConfigError(f"global_pool='{global_pool}': these classifiers average; leave it out")
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    @staticmethod
    def adapt_published_keys(state_dict: dict, prefix: str = "") -> None:
        """Bring published keys into this implementation's form, in place; the classifier is kept."""
        head = {key: value for key, value in state_dict.items() if key.startswith(f"{prefix}head.")}
        MSCAN.adapt_published_keys(state_dict, prefix)
        state_dict.update(head)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last stage (B, C, H/32, W/32)."""
        return super().forward(x)[-1]

    def forward_intermediates(self, x: Tensor, indices: Any = None, **_: object) -> list[Tensor]:
        """Return the stages ``indices``, for timm's ``features_only=True``."""
        features = super().forward(x)
        return [features[i] for i in (range(len(features)) if indices is None else indices)]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits, or the averaged features (B, C), of the last stage."""
        x = x.mean((2, 3))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Return the logits of an image batch."""
        return self.forward_head(self.forward_features(x))


def _entrypoint(name: str, config: str) -> Callable[..., nn.Module]:
    def build(pretrained: bool = False, pretrained_cfg: Any = None, **options: Any) -> nn.Module:
        if pretrained:
            raise CheckpointError(
                f"{name}: no weights can be downloaded; give a file: create_model('{name}', checkpoint_path=FILE)"
            )
        cfg = Config.fromfile(str(CONFIG_ROOT / "_base_" / "models" / config))
        cfg.merge_from_dict({f"model.backbone.{key}": value for key, value in options.items()})
        encoder = {key: value for key, value in cfg.model.backbone.items() if key not in _NOT_FOR_CLASSIFIERS}
        feature_cfg = dict(out_indices=(0, 1, 2, 3), feature_cls="getter")
        return build_model_with_cfg(
            Classifier, name, pretrained, pretrained_cfg=pretrained_cfg, feature_cfg=feature_cfg, **encoder
        )

    build.__name__ = build.__qualname__ = name
    return build


for _name, _config in CLASSIFIERS.items():
    globals()[_name] = register_model(_entrypoint(_name, _config))


def check_name(name: str) -> None:
    """Raise a `ConfigError` that offers the closest names, where `CLASSIFIERS` lacks ``name``."""
    if name not in CLASSIFIERS:
        near = get_close_matches(name, CLASSIFIERS, n=3, cutoff=0.0)
        raise ConfigError(f"model '{name}' is unknown; did you mean {', '.join(near)}?")


def create_classifier(name: str, num_classes: int, options: dict | None = None, **more: Any) -> Classifier:
    """Return the classifier ``name`` of `CLASSIFIERS` with its first weights.

    ``options`` and ``more`` are arguments of `MSCAN` that differ from the config, dotted keys allowed.

    Raises:
        ConfigError: an unknown name (the closest are offered) or an argument that does not fit.
    """
    check_name(name)
    try:
        return timm.create_model(name, num_classes=num_classes, **{**more, **(options or {})})
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError) as error:
        raise ConfigError(f"{name}: a model option does not fit: {' '.join(str(error).split())}") from error


def load_classifier(model: Classifier, name: str, path: str) -> dict:
    """Load ``path`` into ``model``, which must fit completely, and return the checkpoint.

    Raises:
        CheckpointError: the file is damaged, or of another model or number of classes.
    """
    checkpoint = read_checkpoint(path)
    found = (checkpoint.get("meta") or {}).get("architecture", name)
    if found != name:
        raise CheckpointError(f"{path}: holds {found}, not {name}; give --model {found} or another file")
    classes = checkpoint["state_dict"].get("head.bias")
    if classes is not None and len(classes) != model.num_classes:
        raise CheckpointError(
            f"{path}: classifies {len(classes)} classes, the data has {model.num_classes}; give the data it is for"
        )
    fit = load_fitting(model, checkpoint["state_dict"])
    if not fit.complete:
        raise CheckpointError(f"{path}: does not fit {name}: {fit.summary()}; give the model it was trained with")
    return checkpoint
