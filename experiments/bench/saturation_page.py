"""The page that `experiments.bench.saturation` writes."""

from pathlib import Path
from typing import Any


def write_page(content: dict[str, Any], path: Path) -> None:
    """Not yet."""
