"""The parameters of a run of `train.py`: read from its newest checkpoint, without the optimizer.

A run is a folder with `config.json` and `checkpoints/`, written by `unified.training.checkpoint`.
"""

import os
import sys
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from unified.interop.release import CONFIG, Params, PathLike, flatten, load_config, unflatten

CHECKPOINTS = "checkpoints"


def is_run(path: PathLike) -> bool:
    return (epath.Path(path) / CHECKPOINTS).exists()


def load(path: PathLike) -> tuple[Params, dict[str, Any]]:
    """`(params, config)` as of `release.load`; the moving average where the run kept one.

    The run may still be going on: only a finished checkpoint is read, and nothing is written.
    Raises FileNotFoundError if there is none yet, ValueError for a damaged one.
    """
    folder = epath.Path(path)
    at = lambda step: (folder / CHECKPOINTS / str(step) / "state").resolve()
    steps = ocp.utils.checkpoint_steps(folder / CHECKPOINTS)
    steps = [step for step in steps if (at(step) / "_METADATA").exists()]  # not a torn copy
    if not steps or not (folder / CONFIG).exists():
        raise FileNotFoundError(f"{os.fspath(path)!r} has no finished checkpoint yet")
    config, newest = load_config(folder), max(steps)
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None  # threads, once one has failed
    try:
        return read(at(newest)), config
    except (KeyError, OSError, ValueError) as error:
        older = sorted(steps)[:-1]
        use = f"delete it to use {older[-1]}" if older else "there is no older one"
        raise ValueError(
            f"{os.fspath(folder / CHECKPOINTS / str(newest))!r} is damaged: {use}"
        ) from error
    finally:
        sys.unraisablehook = hook


def read(state: epath.Path) -> Params:
    """The parameters of a saved state, averaged where they are. Raises ValueError for metadata that
    cannot be read, and what Orbax does for arrays."""
    reader = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    metadata = reader.metadata(state).item_metadata
    if metadata is None:
        raise ValueError(f"no metadata in {state}")
    saved = metadata.tree
    averaged = flatten(saved["ema"] or {})
    chosen = {name: ("ema" if name in averaged else "params") for name in flatten(saved["params"])}
    wanted: dict[str, Any] = {"ema": {}, "params": {}}
    for name, part in chosen.items():
        wanted[part][name] = flatten(saved[part])[name]
    item = {
        part: jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), unflatten(x))
        for part, x in wanted.items()
        if x
    }
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
    args = ocp.args.PyTreeRestore(item=item, restore_args=as_numpy, partial_restore=True)
    found = reader.restore(state, args=args)
    return unflatten({k: leaf for part in found.values() for k, leaf in flatten(part).items()})
