"""What holds for the settings of more than one step."""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError


def check_not_negative(settings: object, *names: str) -> None:
    """Refuse settings that are below 0 or no finite number; None is left alone.

    Raises:
        ConfigError: names the first of them.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and not 0 <= value < np.inf:
            raise ConfigError(f"{name.replace('_', ' ')} of {value:g}: give 0 or more")
