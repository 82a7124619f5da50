"""What a command says beside its results."""

import sys


def to_stderr(text: str) -> None:
    """One line, at once."""
    print(text, file=sys.stderr, flush=True)


def to_nobody(text: str) -> None:
    """Discards the text, for quiet runs."""
