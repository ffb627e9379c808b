"""How a mistake is told: in one line that a terminal can show, whatever stands in it."""

MOST = 800  # characters


def one_line(message: object, most: int = MOST) -> str:
    """The text of a message or an error: line breaks, control characters and halves of characters
    escaped, the middle left out beyond `most` characters. Names and records of others stand in
    messages."""
    text = str(message)
    if len(text) > most:
        text = f"{text[: most // 2]} ... {text[-most // 2 :]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
