"""What `train.py` keeps beside the state in a checkpoint, as plain JSON.

`inputs`: the position in the data of every process that saved it; `window`: (sum, count) by metric
since the last log line; `hurried`: (`max_minutes`, the step to end with) once that was brought
forward, or None; `seconds`: of `max_minutes`, those that are over. Runs of old lack the last two.
"""

import math
from collections.abc import Mapping
from typing import Any


def check(host: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `host`. Raises ValueError, naming the field that is none of the above."""
    is_right = {
        "inputs": lambda value: isinstance(value, list) and len(value) > 0,
        "window": lambda value: isinstance(value, dict) and all(map(_is_pair, value.values())),
        "hurried": lambda value: value is None or _is_pair(value),
        "seconds": lambda value: _is_number(value) and value >= 0,
    }
    host = {"hurried": None, "seconds": 0.0, **host}
    for field, fits in is_right.items():
        if field not in host:
            raise ValueError(f"host/metadata lacks {field}")
        if not fits(host[field]):
            raise ValueError(f"host/metadata: {field}={str(host[field])[:40]} is none of a run")
    return host


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))
