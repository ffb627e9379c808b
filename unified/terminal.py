"""What a program prints: paths and texts of users, in which brackets are no markup."""

import os
import sys
from typing import Any

from rich.console import Console


class Terminal(Console):
    """A console that goes silent, and not down, when nobody reads it any more (`| head`)."""

    def __init__(self, **options: Any):
        super().__init__(soft_wrap=True, markup=False, emoji=False, highlight=False, **options)

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
