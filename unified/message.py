"""How a mistake is told: in one line that a terminal can show, whatever stands in it."""

import sys

MOST = 800  # characters


def one_line(message: object, most: int = MOST) -> str:
    """The text of a message or an error: line breaks, control characters and halves of characters
    escaped, the middle left out beyond `most` characters. Names and records of others stand in
    messages."""
    text = str(message)
    if len(text) > most:
        text = f"{text[: most // 2]} ... {text[-most // 2 :]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def told(program: str, error: Exception, known: tuple[type[Exception], ...]) -> int:
    """The exit status after a mistake of the user, in a line; what is none of the `known` says of
    which type it is, and `python -X dev` shows where."""
    if sys.flags.dev_mode:
        raise error
    said = "; ".join(filter(None, map(str.strip, str(error).splitlines())))
    if not isinstance(error, known):
        said = f"{type(error).__name__}: {said} (`python -X dev {program} ...` shows where)"
    print(f"{program}: error: {one_line(said, 2000)}", file=sys.stderr)
    return 2


def is_unicode(text: str) -> bool:
    """Whether a text holds no half characters (surrogates), which Python makes of names and
    arguments that are no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
