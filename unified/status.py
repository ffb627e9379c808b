"""What a command is doing, on one line of standard error; warnings of a program, a line each."""

import logging
import time
from typing import IO

from unified.message import one_line

PHASES = logging.getLogger("unified.inference")


class Status(logging.Handler):
    """`NAME: loading the model (2.1 s), compiling (10.3 s), drawing (1.2 s)`, as it happens.

    Phases are records of INFO. A warning has a line of its own; a mistake ends the line that is
    there, so that it is told in one line whenever it comes.
    """

    def __init__(self, name: str, stream: IO[str] | None):
        super().__init__(logging.INFO)
        self.name_, self.stream = name, stream
        self.began: float | None = None  # of the phase that runs

    def __enter__(self) -> "Status":
        logging.getLogger().addHandler(self)
        logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells more than a user asks
        self.level = PHASES.level
        PHASES.setLevel(logging.INFO)
        logging.captureWarnings(True)
        return self

    def __exit__(self, *error: object) -> None:
        logging.captureWarnings(False)
        PHASES.setLevel(self.level)
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        text = one_line(record.getMessage())
        if record.levelno > logging.INFO:
            self.close_line()
            self._write(f"{self.name_}: {text}\n")
        else:
            self.phase(text)

    def phase(self, text: str) -> None:
        before, self.began = self._ended(","), time.perf_counter()  # Ctrl-C may end the next line
        self._write(f"{before or self.name_ + ':'} {text}")

    def fail(self, error: object, kind: str = "error: ") -> None:
        """Ends the line with a mistake."""
        self._write(f"{self._ended(':') or self.name_ + ':'} {kind}{one_line(error)}\n")

    def close_line(self) -> None:
        if ended := self._ended(""):
            self._write(f"{ended}\n")

    def _ended(self, mark: str) -> str:
        """The seconds of the phase that runs, if one does."""
        began, self.began = self.began, None
        return f" ({time.perf_counter() - began:.1f} s){mark}" if began else ""

    def _write(self, text: str) -> None:
        try:
            if self.stream:
                self.stream.write(text)
                self.stream.flush()
        except (OSError, ValueError):  # nobody reads it; it may even be closed
            self.stream = None


class Warnings(logging.Handler):
    """Warnings of this package as lines of a program: `warning  ...`."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.logger = logging.getLogger("unified")

    def __enter__(self) -> "Warnings":
        self.logger.addHandler(self)
        self.logger.propagate = False  # else the root says them once more
        return self

    def __exit__(self, *error: object) -> None:
        self.logger.propagate = True
        self.logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        print(f"warning  {one_line(record.getMessage())}", flush=True)
