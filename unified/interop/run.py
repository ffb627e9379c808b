"""The parameters of a run of `train.py`: read from its newest checkpoint, without the optimizer.

A run is a folder with `config.json` and `checkpoints/`, written by `unified.training.checkpoint`.
"""

import json
import logging
import os
import re
import sys
import textwrap
from typing import Any

import jax
import numpy as np
from etils import epath

from unified import checksum
from unified.interop.release import CONFIG, Params, PathLike, flatten, load_config, unflatten

CHECKPOINTS = "checkpoints"
STATE, HOST = "state", "host"  # the items of a checkpoint: arrays, and JSON
CHECKSUMS = "checksums"  # of the arrays, by path, among the fields of the latter
COMMITTED = "_CHECKPOINT_METADATA"  # written last

log = logging.getLogger(__name__)


def is_run(path: PathLike) -> bool:
    return (epath.Path(path) / CHECKPOINTS).exists()


def load(path: PathLike, *, verify: bool = True) -> tuple[Params, dict[str, Any]]:
    """`(params, config)` as of `release.load`; the moving average where the run kept one.

    The run may still be going on: only a finished checkpoint is read, and nothing is written.
    Raises FileNotFoundError if there is none yet, ValueError for a damaged one: `verify` compares
    the parameters with their checksums, if there are any.
    """
    from orbax.checkpoint.utils import checkpoint_steps  # slow to import, and releases need none

    folder = epath.Path(path)
    at = lambda step: (folder / CHECKPOINTS / str(step)).resolve()
    found = sorted(checkpoint_steps(folder / CHECKPOINTS))
    steps = [step for step in found if is_complete(at(step))]
    if not steps or not (folder / CONFIG).exists():
        raise FileNotFoundError(f"{os.fspath(path)!r} has no finished checkpoint yet")
    config, newest = load_config(folder), steps[-1]
    if torn := [step for step in found if step > newest]:
        log.warning("%s is not complete: %d is read instead", at(torn[-1]), newest)
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None  # threads, once one has failed
    try:
        return read(at(newest), newest, verify=verify), config
    except Exception as error:  # Orbax raises no less general one
        use = f"delete it to use {steps[-2]}" if steps[1:] else "there is no older one"
        place = os.fspath(folder / CHECKPOINTS / str(newest))
        raise ValueError(f"{place!r} is damaged: {use} ({reason(error)})") from error
    finally:
        sys.unraisablehook = hook


def is_complete(checkpoint: epath.Path) -> bool:
    """Whether Orbax has finished this checkpoint; says nothing of its arrays."""
    try:
        committed = json.loads((checkpoint / COMMITTED).read_text())["commit_timestamp_nsecs"]
    except (KeyError, OSError, TypeError, ValueError):
        return False
    return bool(committed) and all((checkpoint / item).is_dir() for item in (STATE, HOST))


def read(checkpoint: epath.Path, step: int, *, verify: bool = True) -> Params:
    """The parameters of a checkpoint of `step`, averaged where they are. Raises ValueError for
    another step, other parameters than were saved, metadata that cannot be read, and what Orbax
    does for arrays."""
    import orbax.checkpoint as ocp

    check_files(checkpoint)
    state = checkpoint / STATE
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
    wanted = {part: unflatten(leaves) for part, leaves in wanted.items() if leaves}
    wanted["step"] = saved["step"]
    item = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), wanted)
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
    args = ocp.args.PyTreeRestore(item=item, restore_args=as_numpy, partial_restore=True)
    found = reader.restore(state, args=args)
    check_step(int(found.pop("step")), step)
    if verify:
        verified(found, json.loads((checkpoint / HOST / "metadata").read_text()))
    return unflatten({k: leaf for part in found.values() for k, leaf in flatten(part).items()})


def check_files(checkpoint: PathLike) -> None:
    """Raises ValueError for what is no file where a checkpoint has one: a pipe would wait for ever,
    a device never end."""
    for folder, _, names in os.walk(os.fspath(checkpoint)):
        for name in names:
            if not os.path.isfile(path := os.path.join(folder, name)):
                raise ValueError(f"{os.path.relpath(path, checkpoint)} is not a file")


def check_step(found: int, step: int) -> None:
    """Raises ValueError where a checkpoint holds another step than its name says."""
    if found != step:
        raise ValueError(f"it holds step {found}: has it been renamed?")


def verified(found: Any, host: Any) -> None:
    """Raises ValueError, naming them, for arrays that are not those of the checksums in `host`; of
    a checkpoint that has none, nothing is known."""
    if not isinstance(host, dict):
        raise ValueError(f"{HOST}/metadata holds no fields")
    if CHECKSUMS not in host:
        return
    if not isinstance(saved := host[CHECKSUMS], dict) or not saved:
        raise ValueError(f"{HOST}/metadata holds no checksums where it says so")
    names = checksum.damaged(found, {name: saved.get(name, "") for name in flatten(found)})
    if names:
        raise ValueError(f"not as they were saved: {checksum.several(names)}")


def reason(error: BaseException) -> str:
    """What the first cause of an error says, in a line: Orbax and TensorStore say it in pages."""
    while error.__cause__ is not None:
        error = error.__cause__
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(code[1]))
    kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
    return textwrap.shorten(f"{kind}{error}", 160, placeholder="...")
