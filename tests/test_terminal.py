"""What a program prints, and to whom."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = """
import sys
from unified.terminal import Terminal
terminal = Terminal()
for i in range(20_000):
    terminal.print(f"line {i} [/b]")
print("ended", file=sys.stderr)
"""


def test_a_pipe_that_nobody_reads_ends_no_program():
    command = f"{sys.executable} -c '{CODE}' | head -1"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("line 0 [/b]\n", "ended\n")
