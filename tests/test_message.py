"""A message is one line, whatever stands in it."""

import pytest

from unified.message import MOST, one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("half \ud800", r"half \ud800"),
        ("right to left \u202e", r"right to left \u202e"),
        ("ein Bär, 熊, 🐻", "ein Bär, 熊, 🐻"),
        (ValueError("x\ny"), r"x\ny"),
    ],
)
def test_what_a_terminal_would_act_on_is_escaped(text, shown):
    assert one_line(text) == shown


def test_of_what_is_long_both_ends_are_shown():
    assert one_line("x" * MOST) == "x" * MOST
    shown = one_line(f"begin {'x' * 10**7} end")
    assert shown.startswith("begin xx") and " ... " in shown and shown.endswith("xx end")
    assert len(shown) < 2 * MOST
