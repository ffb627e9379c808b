"""Rows of a batch made by several processes, because Python keeps to one core of each.

A row depends on its own examples alone (`rows.py`), so the processes share out the rows: the
batches are those of one process, and a run can go on with another number of them.
"""

import collections
import multiprocessing
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

import jax
import numpy as np

from unified.data.rows import BadRecordsError, Packed, Prefetch, bad_records, merge_states

Make = Callable[..., Any]  # (rows=...) -> RowIterator; it is sent to the processes


class Workers(Iterator[Packed]):
    """What `make(rows=rows)` would give, endless, made by at most `num` processes.

    Each makes `prefetch` batches of its rows ahead. They start at the first batch. Raises what they
    raise, ValueError when `make` cannot be sent to them, BadRecordsError when all together have met
    more than `max_bad_records`, and RuntimeError when one has been killed.
    """

    def __init__(
        self, make: Make, rows: Sequence[int], num: int, *, prefetch: int, max_bad_records: int
    ):
        self._make, self._prefetch, self._max_bad_records = make, prefetch, max_bad_records
        self._rows = list(rows)
        self._shares = [part.tolist() for part in np.array_split(rows, min(num, len(rows)))]
        self._state: Mapping[str, Any] | None = None
        self._running: list[tuple[Connection, BaseProcess]] = []
        # Before multiprocessing waits for the processes, which ignore the signal that it sends.
        Finalize(self, _end, args=(self._running,), exitpriority=1)

    def __next__(self) -> Packed:
        if not self._running:
            self._start()
        parts, states = zip(*map(self._receive, self._running), strict=True)
        self._state = merge_states(states)
        if len(bad := bad_records(self._state)) > self._max_bad_records:
            raise BadRecordsError(
                f"{len(bad)} bad records, and max_bad_records is {self._max_bad_records}; one is "
                f"{max(bad)}, and all were logged with their reasons"
            )
        return Packed(
            jax.tree.map(lambda *arrays: np.concatenate(arrays), *(p.batch for p in parts)),
            np.sum([p.used for p in parts], axis=0),
            sum((p.tasks for p in parts), collections.Counter()),
        )

    def get_state(self) -> dict[str, Any]:
        """The place in the data after the last batch; as of a `RowIterator` of all rows, but that a
        bad record is listed by every process that met it."""
        if self._state is None:
            self._state = self._make(rows=self._rows).get_state()
        return dict(self._state)

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.close()
        self._state = state

    def close(self) -> None:
        """Ends the processes."""
        _end(self._running)

    def _start(self) -> None:
        try:
            for rows in self._shares:
                self._running.append(self._spawn(rows))
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            _end(self._running)
            raise ValueError(
                f"data.workers={len(self._shares)}: sources and tokenizer must pickle, to be sent "
                f"to processes: {error}"
            ) from error
        except BaseException:
            _end(self._running)
            raise

    def _spawn(self, rows: Sequence[int]) -> tuple[Connection, BaseProcess]:
        context = multiprocessing.get_context("spawn")  # a fork would lack our threads
        ours, theirs = context.Pipe(duplex=False)
        args = (theirs, self._make, rows, self._state, self._prefetch)
        process = context.Process(target=_work, args=args, name=f"rows {rows}", daemon=True)
        process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        return ours, process

    def _receive(self, worker: tuple[Connection, BaseProcess]) -> tuple[Packed, dict[str, Any]]:
        connection, process = worker
        try:
            found = connection.recv()
        except (EOFError, OSError):
            process.join()
            killed = process.exitcode == -signal.SIGKILL
            why = "killed, perhaps for lack of memory" if killed else "its message is above"
            raise RuntimeError(
                f"the process that makes {process.name} of the input has ended with exit code "
                f"{process.exitcode} ({why})"
            ) from None
        if isinstance(found, BaseException):
            raise found
        return found


def _end(running: list[tuple[Connection, BaseProcess]]) -> None:
    """Processes hold nothing that could be lost. Ending is `kill`: they ignore signals."""
    for connection, process in running:
        connection.close()
        process.kill()
    while running:
        running.pop()[1].join()


def _work(
    connection: Connection, make: Make, rows: Sequence[int], state: Any, prefetch: int
) -> None:
    """Sends a batch and the place after it, again and again, until no one listens."""
    for number in (signal.SIGINT, signal.SIGTERM):  # it is for the run to end, and to end this
        signal.signal(number, signal.SIG_IGN)
    jax.config.update("jax_platforms", "cpu")
    try:
        batches = Prefetch(make(rows=rows), prefetch)
        if state is not None:
            batches.set_state(state)
        while _is_heard(connection, (next(batches), batches.get_state())):
            pass
    except Exception as error:
        _is_heard(connection, _portable(error))


def _is_heard(connection: Connection, message: Any) -> bool:
    """Sends it, if there is still someone who listens."""
    try:
        connection.send(message)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def _portable(error: Exception) -> Exception:
    """The error with a note of where it was raised, or one that says the same and can be sent."""
    note = f"raised in a process of data.workers:\n{traceback.format_exc()}"
    error.add_note(note)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
        error.add_note(note)
    return error
