"""Checkpoints of a run: written in the background, the newest and the best kept, whole or absent.

Beside the state lies `host`, plain JSON: the position of the input, what the log has gathered and
the seconds used.
Orbax writes to a temporary name and renames, so an interrupted save is never taken for one.
"""

import dataclasses
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from unified.training.nearest import nearest
from unified.training.step import TrainState
from unified.training.tree import Tree, path_name

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
        where the state does.
        """
        step = self.latest if step is None else step
        if step is None:
            return None
        saved = self._manager.item_metadata(step)["state"].tree
        if found := difference(saved, abstract):
            raise Misfit(f"{self.folder / str(step)} does not fit: {found}")
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), host=ocp.args.JsonRestore()
        )
        found = self._manager.restore(step, args=items)
        return Restored(step, found["state"], found["host"])

    def _set_torn_aside(self) -> None:
        """Renames what has the name of a checkpoint but was never completed (a copy cut short)."""
        for step in self._manager.all_steps():
            path = self.folder / str(step)
            whole = all((path / item).is_dir() for item in ITEMS)
            if whole and self._manager.metadata(step).commit_timestamp_nsecs:
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
