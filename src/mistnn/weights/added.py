"""Fields that configurations have gained since format 1 of the model folder, so that older folders can be read.

A folder made before a field existed is read with the value that does what was done then. So a new field of a stored
configuration class gets a line here; one for which no value repeats what was done raises the format instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

ADDED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "MistConfig": {
            "scales": [1.0],
            "background": False,
            "threshold": 0.0,
            "preparation": {"zoom": 1.0, "ground": "black"},
        },
        "LiftedStepConfig": {"scale_step": 1.0, "objects_only": False, "spread": 0.0},
        "SupervisedStepConfig": {"precision": "float32", "spread": 0.0},
        "ScenesConfig": {"warp": 0.0},
        "BackboneConfig": {"digest": None},
        "SpairConfig": {"background_side": 0},
    }
)
"""Class -> field -> its value in JSON where the field is missing."""


def is_added(name: str, value: Any) -> bool:
    """Whether a value is what a field of this name stands for where it is missing.

    Args:
        name: of the field.
        value: in JSON; tuples are lists there.
    """
    plain = list(value) if isinstance(value, tuple) else value
    return any(name in fields and fields[name] == plain for fields in ADDED.values())
