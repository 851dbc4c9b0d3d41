"""Encoders whose first stages stay as they were loaded."""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.runner import BaseModule

from ..errors import ConfigError


class FreezableEncoder(BaseModule):
    """A backbone that can freeze its first stages: no gradient, batch norms in evaluation mode, no drop path."""

    _frozen_names: Sequence[str] = ()

    def freeze(self, stages: Sequence[Sequence[str]], count: int) -> None:
        """Freeze the first ``count`` of ``stages``, each of which is given by its modules' names; below 1: none.

        Raises:
            ConfigError: there are fewer stages.
        """
        if not isinstance(count, int) or count > len(stages):
            raise ConfigError(f"frozen_stages={count!r}: the encoder has {len(stages)} stages; give 0 to {len(stages)}")
        self._frozen_names = [name for stage in stages[: max(count, 0)] for name in stage]
        for name in self._frozen_names:
            getattr(self, name).requires_grad_(False)

    def train(self, mode: bool = True) -> FreezableEncoder:
        """Switch to training, or evaluation; frozen stages stay in evaluation mode."""
        super().train(mode)
        for name in self._frozen_names:
            getattr(self, name).eval()
        return self
