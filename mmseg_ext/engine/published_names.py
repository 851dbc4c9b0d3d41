"""Type names and arguments of configs published with the paper, in the terms of this package."""

from __future__ import annotations

import copy
from typing import Any

# type name of a published config -> what builds the same network here
_TYPES: dict[str, dict[str, Any]] = {
    "DCAN": dict(type="MSCAN", gating_unit=dict(type="HDMSCA", kernel_size=5, dilations=(1, 2, 5, 9))),
    "LinkNet34": dict(type="LinkNet34"),
    "DinkNet34": dict(type="DLinkNet34"),
    "NL34_LinkNet": dict(type="NLLinkNet34"),
    "Dunet": dict(type="DUNet"),
    "UNet2": dict(type="SevenLevelUNet"),
    "SimpleHead": dict(type="FCNHead", num_convs=0, concat_input=False),
}
# arguments of the published Hamburger -> ours; the others describe what is fixed here
_HAM_ARGUMENTS = {"MD_R": "rank", "MD_S": "groups", "TRAIN_STEPS": "train_steps", "EVAL_STEPS": "eval_steps"}


def with_our_names(model: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a config's ``model`` in which published type names and arguments are ours."""
    model = copy.deepcopy(model)
    for part in ("backbone", "decode_head"):
        if isinstance(model.get(part), dict):
            ours = _TYPES.get(model[part].get("type"), {})
            model[part].update(copy.deepcopy(ours))
    head = model.get("decode_head")
    if isinstance(head, dict) and head.get("type") == "LightHamHead" and "ham_kwargs" in head:
        theirs = head.pop("ham_kwargs") or {}
        head["ham_cfg"] = {ours: theirs[name] for name, ours in _HAM_ARGUMENTS.items() if name in theirs}
    return model
