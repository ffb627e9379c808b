"""Ctrl-C: one line and status 130, whatever the program is doing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUSY = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 10**8)"  # one call, for minutes
SLEEPING = "import time; time.sleep(60)"
HANDLED = "signal.signal(signal.SIGINT, lambda *_: print('kept', flush=True)); time.sleep(1)"


def interrupted(code, *, ignored=False):
    """Status, output and errors of a program that is interrupted once it says so."""
    handler = "SIG_IGN" if ignored else "default_int_handler"  # whatever the tests were started by
    program = (
        f"import signal, time; signal.signal(signal.SIGINT, signal.{handler}); "
        "from unified import interrupt; interrupt.end_at_once('program'); "
        f"print('begins', flush=True); {code}"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begins\n"
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    out, said = process.communicate(timeout=20)
    return process.returncode, out, said


@pytest.mark.parametrize("code", [BUSY, SLEEPING])
def test_a_program_ends_at_once_with_a_line(code):
    assert interrupted(code) == (130, "", "program: interrupted\n")


def test_another_handler_stays_in_charge():
    assert interrupted(HANDLED) == (0, "kept\n", "")


def test_a_program_in_the_background_goes_on():
    assert interrupted("time.sleep(1); print('done')", ignored=True) == (0, "done\n", "")
