"""Where the last run stopped: its state, and the place in the data."""

import dataclasses
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from unified.interop import release
from unified.training import host as beside
from unified.training.checkpoint import Checkpoints, Restored
from unified.training.config import STATE, changes
from unified.training.misfit import Misfit
from unified.training.setup import Setup


def restore(
    checkpoints: Checkpoints, setup: Setup, config: ConfigDict, workdir: Path
) -> Restored | None:
    """The newest checkpoint, if there is one. Raises ValueError where a config that has changed
    asks for another state, naming the fields."""
    try:
        if restored := checkpoints.restore(setup.abstract):
            with checkpoints.reading(restored.step):
                return dataclasses.replace(restored, host=beside.check(restored.host))
        return None
    except Misfit as error:
        changed = changes(config, workdir / release.CONFIG).items()
        fields = [
            f"{name.removeprefix('config.')}={old}, not {new}"
            for name, (old, new) in changed
            if name.split(".")[1] in STATE and None not in (old, new)
        ]
        trained = "; ".join(fields) or "another config"
        raise ValueError(
            f"{error}; it was trained with {trained}: set it back, or take another --workdir"
        ) from None


def go_on(inputs: Any, states: list[Any], checkpoints: Checkpoints, step: int) -> None:
    """Sets the place in the data, from those of the processes that saved it. Raises ValueError."""
    try:
        inputs.set_state(states[0] if len(states) == 1 else inputs.merge_states(states))
    except (AttributeError, LookupError, TypeError) as error:  # it is no state of an input
        with checkpoints.reading(step):
            raise ValueError(f"host/metadata: inputs are none of a run: {error!r}") from None
