"""torch's matrix products."""
# pyright: reportMissingImports=false

import time
from collections.abc import Sequence
from typing import Any

import torch


class Product:
    """A product of two drawn float32 arrays, or of many pairs of them."""

    def __init__(self, left: Sequence[int], right: Sequence[int]) -> None:
        """Draws both."""
        self.left, self.right = torch.randn(*left), torch.randn(*right)
        self.facts: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """One product."""
        began = time.perf_counter()
        with torch.inference_mode():
            torch.matmul(self.left, self.right)
        return {"seconds": time.perf_counter() - began}
