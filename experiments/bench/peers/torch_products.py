"""torch's matrix products."""
# pyright: reportMissingImports=false

import time
from collections.abc import Sequence
from typing import Any

import torch


class Product:
    """A product of two drawn float32 arrays, or of many pairs of them, so many times in a row."""

    def __init__(self, left: Sequence[int], right: Sequence[int], times: int = 1) -> None:
        """Draws both."""
        self.left, self.right, self.times = torch.randn(*left), torch.randn(*right), times
        self.facts: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """The products."""
        began = time.perf_counter()
        with torch.inference_mode():
            for _ in range(self.times):
                torch.matmul(self.left, self.right)
        return {"seconds": time.perf_counter() - began}
