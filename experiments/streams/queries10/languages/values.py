"""What several languages write alike."""

from experiments.streams.queries10.query import Value


def quoted(value: Value, quote: str = '"') -> str:
    """A word in quotes, a number as it is."""
    return f"{quote}{value}{quote}" if isinstance(value, str) else str(value)
