"""Checkpoints of a run: written in the background, the newest and the best kept, whole or absent.

Beside the state lies `host`, plain JSON: the position of the input, what the log has gathered, the
seconds used, and the checksums of it all, which are compared when it is read.
Orbax writes to a temporary name and renames, so an interrupted save is never taken for one.
"""

import contextlib
import dataclasses
import gc
import hashlib
import itertools
import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from unified import checksum
from unified.interop.run import CHECKSUMS, HOST, STATE, check_files, check_step, is_complete, reason
from unified.training import processes
from unified.training.misfit import Misfit, difference
from unified.training.nearest import nearest
from unified.training.quiet import hush
from unified.training.step import TrainState

log = logging.getLogger(__name__)

ITEMS: dict[str, Any] = {STATE: ocp.StandardCheckpointHandler, HOST: ocp.JsonCheckpointHandler}


@dataclasses.dataclass(frozen=True)
class Restored:
    step: int
    state: TrainState
    host: dict[str, Any]


class Unsaved(RuntimeError):
    """Two saves in a row have failed; the message is of the second."""


class Checkpoints:
    """Reads and writes `folder`; the newest `keep` are kept, and the best.

    `best` names the metric (of validation) that is lowest there. `every` is the caller's, who also
    makes the folder, before the first save. A save that fails is told to `tell`; the second in a
    row raises Unsaved, from the save that follows it, or from `wait`.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        keep: int = 2,
        best: str = "",
        every: int = 1,
        tell: Callable[[str], None] = logging.warning,
    ):
        self.folder, self.tell = Path(folder).absolute(), tell
        self._keep, self._best = keep, best
        self._saving: int | None = None  # the step whose save is under way
        self._failed = 0  # saves in a row
        hush()
        self._manager = self._open()
        self._set_torn_aside()

    def _open(self) -> ocp.CheckpointManager:
        """Raises ValueError for a folder that Orbax cannot read."""
        if os.path.lexists(self.folder) and not self.folder.is_dir():
            raise ValueError(f"{self.folder} is not a folder: move it away")
        policies: list[Any] = [LatestN(self._keep)]
        tracked: dict[str, Any] = {}
        if self._best:
            value = lambda metrics: (metrics or {}).get(self._best, math.inf)
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
        handlers = {name: make() for name, make in ITEMS.items()}  # unknown items are warned of
        try:
            return ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)
        except Exception as error:  # Orbax raises no less general one
            raise ValueError(
                f"{self.folder} cannot be read ({reason(error)}): take out what is no checkpoint"
            ) from error

    @property
    def steps(self) -> list[int]:
        """Of the complete checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    @property
    def latest(self) -> int | None:
        return self.steps[-1] if self.steps else None

    @property
    def newest(self) -> str:
        """Where the newest complete one lies, in words."""
        there = [str(self.folder / str(step)) for step in self.steps if self._is_complete(step)]
        return there[-1] if there else "none"

    def save(
        self, step: int, state: TrainState, host: Mapping[str, Any], metrics: Mapping[str, float]
    ) -> None:
        """Copies the state off the devices, then returns; the rest happens in the background.

        Waits for the save before, if it is not on disk yet. Raises Unsaved.
        """
        self.wait()
        if step in self.steps:
            return
        if self._best and metrics and self._best not in metrics:
            raise ValueError(f"checkpoint.best: {self._best!r}; {nearest(self._best, metrics)}")
        host = json.loads(json.dumps(dict(host)))  # the run changes it while it is being written
        said = checksum.checksums(state) | {HOST: _digest(host)}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), host=ocp.args.JsonSave({**host, CHECKSUMS: said})
        )
        with self._writing(step):
            if processes.is_first():
                self.folder.mkdir(exist_ok=True)  # raises if the folder of the run is gone
            self._manager.save(step, args=items, metrics=dict(metrics))
            self._saving = step

    def wait(self) -> bool:
        """Waits until everything saved so far is on disk; whether it is. Raises Unsaved."""
        if self._saving is not None:
            step, self._saving = self._saving, None
            with self._writing(step):
                self._manager.wait_until_finished()
                if not is_complete(epath.Path(self.folder / str(step))):
                    raise OSError(f"{self.folder / str(step)} is not there")
                self._failed = 0
        return not self._failed

    @contextlib.contextmanager
    def _writing(self, step: int) -> Iterator[None]:
        """Makes of what Orbax raises in here, on any process, a line; or Unsaved."""
        why = ""
        try:
            yield
        except Exception as error:  # it has none less general
            why = reason(error)
        if not (why := next(filter(None, processes.gather_json(why)), "")):
            return
        self._failed += 1
        self._saving = None
        self._begin_anew(step)
        line = f"step {step} could not be saved ({why}); the last good checkpoint: {self.newest}"
        if self._failed > 1:
            raise Unsaved(line)
        self.tell(f"{line}. The run goes on until the next save fails too")

    def _begin_anew(self, step: int) -> None:
        """Takes away what a failed save has left: on the disk, and what still points to its arrays
        and would complain at the end of the program."""
        with contextlib.suppress(Exception):
            self._manager.close()
        if processes.is_first():
            for left in self.folder.glob(f"{step}.*tmp*"):
                shutil.rmtree(left, ignore_errors=True)
        self._manager = self._open()
        gc.collect()

    def restore(
        self, abstract: TrainState, step: int | None = None, *, verify: bool = True
    ) -> Restored | None:
        """The newest checkpoint (or that of `step`), laid out as `abstract` says; None if none.

        The number of devices may differ from when it was written. Raises Misfit, naming an array,
        where the state does, and ValueError for a checkpoint that cannot be read, holds another
        step, or (`verify`) what has other checksums.
        """
        step = self.latest if step is None else step
        if step is None:
            return None
        with self.reading(step):
            check_files(self.folder / str(step))
            if (metadata := self._manager.item_metadata(step)[STATE]) is None:
                raise ValueError(f"{STATE} holds no arrays")
            saved = metadata.tree
            misfit = difference(saved, abstract)
        if misfit:
            raise Misfit(f"{self.folder / str(step)} does not fit: {misfit}")
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), host=ocp.args.JsonRestore()
        )
        with self.reading(step):
            found = self._manager.restore(step, args=items)
            check_step(int(found[STATE].step), step)
            host = dict(_object(found[HOST]))
            said = host.pop(CHECKSUMS, None)
            if said is not None and verify:
                _verify(found[STATE], host, said)
        return Restored(step, found[STATE], host)

    @contextlib.contextmanager
    def reading(self, step: int) -> Iterator[None]:
        """Says in a line what Orbax and TensorStore say in pages, and what to do.

        Arrays are read together: once one has failed, the threads of the others have nobody to
        report to, and say so on stderr. From then on they go unheard.
        """
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            yield
            sys.unraisablehook = hook
        except Exception as error:  # Orbax raises no less general one
            older = [other for other in self.steps if other < step]
            instead = f"go on from {older[-1]}" if older else "begin anew"
            raise ValueError(
                f"{self.folder / str(step)} cannot be read ({reason(error)}): if it is damaged, "
                f"delete it to {instead}"
            ) from error

    def _set_torn_aside(self) -> None:
        """Renames what has the name of a checkpoint but was never completed (a copy cut short)."""
        for step in self._manager.all_steps():
            if self._is_complete(step):
                continue
            path = self.folder / str(step)
            names = (f"{step}.torn{number or ''}" for number in itertools.count())
            aside = next(
                path.with_name(name) for name in names if not (self.folder / name).exists()
            )
            log.warning("%s is not complete; renamed to %s", path, aside.name)
            if jax.process_index() == 0:
                path.rename(aside)
        self._manager.reload()

    def _is_complete(self, step: int) -> bool:
        return is_complete(epath.Path(self.folder / str(step)))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: Any) -> None:
        try:
            self.wait()
        finally:
            self._manager.close()


def _object(host: Any) -> Mapping[str, Any]:
    if not isinstance(host, Mapping):
        raise ValueError(f"{HOST}/metadata holds no fields")
    return host


def _digest(host: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(host), sort_keys=True).encode()).hexdigest()[:16]


def _verify(state: TrainState, host: Mapping[str, Any], said: Any) -> None:
    """Raises ValueError, naming what is not as it was saved."""
    wanted = dict(_object(said))
    names = ["host/metadata"] if wanted.pop(HOST, None) != _digest(host) else []
    if names := names + checksum.damaged(state, wanted):
        raise ValueError(f"not as they were saved: {checksum.several(names)}")
