"""What Orbax and TensorStore say of errors that they raise as well, or after all is over."""

import functools
import logging
import sys
from typing import Any


@functools.cache
def hush() -> None:
    """From now on, what Orbax logs of errors that it raises as well goes unheard, and so does what
    the threads of TensorStore say of a loop that has ended: the first failure ends it, and they
    come late."""
    raised, unraisable = sys.excepthook, sys.unraisablehook

    def is_late(error: BaseException | None) -> bool:
        return isinstance(error, RuntimeError) and "Event loop is closed" in str(error)

    def hear(kind: Any, error: BaseException, trace: Any) -> None:
        if not is_late(error):
            raised(kind, error, trace)

    def hear_unraisable(args: Any) -> None:
        if not is_late(args.exc_value) and "async_serialize" not in repr(args.object):
            unraisable(args)

    sys.excepthook, sys.unraisablehook = hear, hear_unraisable
    logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
    # The first failure is raised; asyncio speaks of its siblings whenever they are collected.
    late = "exception was never retrieved"
    logging.getLogger("asyncio").addFilter(lambda record: late not in record.getMessage())
