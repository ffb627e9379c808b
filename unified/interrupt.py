"""Ctrl-C of a program: at any moment one line, and exit status 130.

Python calls handlers of signals between its own steps, so what compiles for a minute in one call
would hear nothing for so long: a thread listens instead.
"""

import os
import signal
import sys
import threading
from typing import Any

STATUS = 130  # 128 + SIGINT, as shells have it


def end_at_once(program: str) -> None:
    """From now on Ctrl-C ends this process, wherever no other handler of SIGINT is set. A process
    that ignores it, as one in the background does, goes on ignoring it."""
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        return
    ending = threading.Lock()

    def end() -> None:
        if not ending.acquire(blocking=False):
            return
        shown = "\x1b[?25h\n" if sys.stderr.isatty() else ""  # a bar hides the cursor
        os.write(2, f"{shown}{program}: interrupted\n".encode())
        os._exit(STATUS)

    def handler(number: int, _: Any) -> None:
        end()

    def listen() -> None:
        while number := os.read(read, 1):
            if number[0] == signal.SIGINT and signal.getsignal(signal.SIGINT) is handler:
                end()

    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, handler)
    threading.Thread(target=listen, name="interrupt", daemon=True).start()
