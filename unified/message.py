"""How a mistake is told: in one line that a terminal can show, whatever stands in it."""

MOST = 800  # characters


def one_line(message: object) -> str:
    """The text of a message or an error: line breaks, control characters and halves of characters
    escaped, cut where it is long. Files, records and folders of others end up in messages."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(message)[: MOST + 1])
    return text if len(text) <= MOST else f"{text[:MOST]}..."
