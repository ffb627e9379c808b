"""One run, one folder: a lock that says who holds it, and ends with the process that does.

The operating system holds the lock (`flock`) and lets go of it however the process ends, and not
while it merely stands still; so on one machine the answer is certain. Other machines may share the
folder over a network that does not share locks: the holder touches its file every few seconds, and
whoever finds a file left by another machine watches it for a while before it takes over.
"""

import contextlib
import datetime
import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from unified.training import processes

NAME = "run.lock"
BEAT = 5.0  # seconds between signs of life
PATIENCE = 20.0  # seconds without one, after which a holder elsewhere is taken for dead


class Lock:
    """A context manager that holds `folder`, which it makes, for this run and no other.

    Of several processes the first holds it for all. `taken_over` is the line to show where a run
    before was killed. Raises ValueError, naming the run, where one is alive in the folder, and
    OSError for a folder that cannot be written. A folder made in vain goes again.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / NAME
        self.taken_over = ""
        self._held: int | None = None
        self._made: list[Path] = []
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Lock":
        error: OSError | ValueError | None = None
        if processes.is_first():
            try:
                self._take()
            except OSError as found:
                why = found.strerror or found
                error = OSError(f"--workdir {self.folder} cannot be written: {why}")
            except ValueError as found:
                error = found
        if refused := processes.gather_json(str(error) if error else "")[0]:
            self._leave()
            raise error or ValueError(refused)
        return self

    def __exit__(self, *_: Any) -> None:
        self._leave()
        if self._thread:
            self._thread.join()

    def _take(self) -> None:
        self._make_folder()
        while True:
            held = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                certain = self._flock(held)
                if os.path.samestat(os.fstat(held), os.stat(self.path)):
                    break
            except FileNotFoundError:  # its holder has just ended, and taken the file with it
                pass
            except BaseException:
                os.close(held)
                raise
            os.close(held)
        self._held = held
        if before := _read(self.path):
            if not (certain and before.get("host") == socket.gethostname()):
                self._watch(before)
            self.taken_over = f"takes over from a run that was killed: {_named(before)}"
        me = {"host": socket.gethostname(), "process": os.getpid(), "started": _now()}
        os.ftruncate(held, 0)
        os.pwrite(held, (json.dumps(me) + "\n").encode(), 0)
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)
        self._thread.start()

    def _flock(self, held: int) -> bool:
        """Whether the lock is certain: some file systems have none. Raises ValueError if held."""
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(self._alive(_read(self.path))) from None
        except OSError:
            return False
        return True

    def _watch(self, before: dict[str, Any]) -> None:
        """Raises ValueError if the holder gives a sign of life."""
        seen, until = _touched(self.path), time.monotonic() + PATIENCE
        while time.monotonic() < until:
            time.sleep(min(BEAT, PATIENCE) / 5)
            if _touched(self.path) != seen:
                self._leave(unlink=False)
                raise ValueError(self._alive(before))

    def _alive(self, run: dict[str, Any]) -> str:
        return f"a run is alive in {self.folder}: {_named(run)}; end it, or take another --workdir"

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def _make_folder(self) -> None:
        self._made = [p for p in (self.folder, *self.folder.parents) if not p.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)

    def _leave(self, *, unlink: bool = True) -> None:
        self._ended.set()
        if self._held is not None:
            with contextlib.suppress(OSError):
                if unlink and os.path.samestat(os.fstat(self._held), os.stat(self.path)):
                    self.path.unlink()
            os.close(self._held)
            self._held = None
        for folder in self._made:
            with contextlib.suppress(OSError):  # it is of use now
                folder.rmdir()


def _read(path: Path) -> dict[str, Any]:
    """What a holder says of itself; {"host": "?"} of a file that is none of ours."""
    with contextlib.suppress(OSError, ValueError):
        if not (text := path.read_text()):
            return {}
        if isinstance(found := json.loads(text), dict):
            return found
    return {"host": "?"}


def _touched(path: Path) -> int:
    """When the file was last written: opened anew, since a network's file system keeps what it
    knows of one that is open."""
    with path.open() as file:
        return os.fstat(file.fileno()).st_mtime_ns


def _named(run: dict[str, Any]) -> str:
    process, host, started = (run.get(key, "?") for key in ("process", "host", "started"))
    return f"process {process} on {host}, since {started}"


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
