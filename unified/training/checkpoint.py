"""Checkpoints of a run: written in the background, the newest and the best kept, whole or absent.

Beside the state lies `host`, plain JSON: the position of the input, what the log has gathered and
the seconds used.
Orbax writes to a temporary name and renames, so an interrupted save is never taken for one.
"""

import contextlib
import dataclasses
import json
import logging
import math
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from unified.training.nearest import nearest
from unified.training.step import TrainState
from unified.training.tree import Tree, path_name

COMMITTED = "_CHECKPOINT_METADATA"  # written last
ITEMS: dict[str, Any] = {
    "state": ocp.StandardCheckpointHandler,
    "host": ocp.JsonCheckpointHandler,
}


@dataclasses.dataclass(frozen=True)
class Restored:
    step: int
    state: TrainState
    host: dict[str, Any]


class Misfit(ValueError):
    """A checkpoint holds another state than the one that is wanted."""


class Checkpoints:
    """Reads and writes `folder`; the newest `keep` are kept, and the best.

    `best` names the metric (of validation) that is lowest there. `every` is the caller's, who also
    makes the folder, before the first save.
    """

    def __init__(self, folder: str | Path, *, keep: int = 2, best: str = "", every: int = 1):
        policies: list[Any] = [LatestN(keep)]
        tracked: dict[str, Any] = {}
        if best:
            value = lambda metrics: (metrics or {}).get(best, math.inf)
            policies.append(
                BestN(
                    get_metric_fn=value, reverse=True, n=1, keep_checkpoints_without_metrics=False
                )
            )
            tracked = {"best_fn": value, "best_mode": "min"}  # Orbax writes metrics only with these
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,
            create=False,
            **tracked,
        )
        self.folder, self._best = Path(folder).absolute(), best
        handlers = {name: make() for name, make in ITEMS.items()}  # unknown items are warned of
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)
        self._set_torn_aside()

    @property
    def steps(self) -> list[int]:
        """Of the complete checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    @property
    def latest(self) -> int | None:
        return self.steps[-1] if self.steps else None

    @property
    def newest(self) -> str:
        """Where the newest one lies, in words."""
        return "none" if self.latest is None else str(self.folder / str(self.latest))

    def save(
        self, step: int, state: TrainState, host: Mapping[str, Any], metrics: Mapping[str, float]
    ) -> None:
        """Copies the state off the devices, then returns; the rest happens in the background."""
        if step in self._manager.all_steps():
            return
        if self._best and metrics and self._best not in metrics:
            raise ValueError(f"checkpoint.best: {self._best!r}; {nearest(self._best, metrics)}")
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), host=ocp.args.JsonSave(dict(host))
        )
        self._manager.save(step, args=items, metrics=dict(metrics))

    def restore(self, abstract: TrainState, step: int | None = None) -> Restored | None:
        """The newest checkpoint (or that of `step`), laid out as `abstract` says; None if none.

        The number of devices may differ from when it was written. Raises Misfit, naming an array,
        where the state does, and ValueError for a checkpoint that cannot be read.
        """
        step = self.latest if step is None else step
        if step is None:
            return None
        with self._reading(step):
            saved = self._manager.item_metadata(step)["state"].tree
        if misfit := difference(saved, abstract):
            raise Misfit(f"{self.folder / str(step)} does not fit: {misfit}")
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), host=ocp.args.JsonRestore()
        )
        with self._reading(step):
            found = self._manager.restore(step, args=items)
        return Restored(step, found["state"], found["host"])

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Says in a line what Orbax and TensorStore say in pages, and what to do.

        Arrays are read together: once one has failed, the threads of the others have nobody to
        report to, and say so on stderr. From then on they go unheard.
        """
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            yield
            sys.unraisablehook = hook
        except Exception as error:  # Orbax raises no less general one
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            why = textwrap.shorten(str(cause), 120, placeholder="...")
            older = [other for other in self.steps if other < step]
            instead = f"go on from {older[-1]}" if older else "begin anew"
            raise ValueError(
                f"{self.folder / str(step)} cannot be read ({why}): if it is damaged, delete it to "
                f"{instead}"
            ) from error

    def _set_torn_aside(self) -> None:
        """Renames what has the name of a checkpoint but was never completed (a copy cut short)."""
        for step in self._manager.all_steps():
            path = self.folder / str(step)
            whole = all((path / item).is_dir() for item in ITEMS)
            if whole and is_committed(path):
                continue
            logging.warning("%s is not complete; renamed to %s.torn", path, step)
            if jax.process_index() == 0:
                path.rename(path.with_name(f"{step}.torn"))
        self._manager.reload()

    def wait(self) -> None:
        """Until everything saved so far is on disk."""
        self._manager.wait_until_finished()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: Any) -> None:
        self.wait()
        self._manager.close()


def is_committed(path: Path) -> bool:
    """Whether Orbax has finished this checkpoint; says nothing of its arrays."""
    try:
        return bool(json.loads((path / COMMITTED).read_text())["commit_timestamp_nsecs"])
    except (KeyError, OSError, ValueError):
        return False


def difference(saved: Mapping[str, Any], wanted: TrainState) -> str:
    """The first array whose shape in a checkpoint is not the wanted one, in words; or nothing."""
    have, want = shapes({**saved, "key": None}), shapes(dataclasses.replace(wanted, key=None))
    for name in [*want, *have]:
        if have.get(name) != want.get(name):
            there, here = (found.get(name, "absent") for found in (have, want))
            return f"{name} is {there} there and {here} here"
    return ""


def shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_name(path): tuple(leaf.shape) for path, leaf in leaves}
