"""LoRA factors of one task: the record that every room takes adapters as."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from share_jax.errors import InputError, message
from share_jax.linalg.finite import all_finite


@dataclass(frozen=True)
class Factors:
    """One LoRA pair of one target: the update is `scale * lora_a @ lora_b`. Any float dtype; upcast when used.

    Raises:
        InputError: the two factors do not multiply, are not float matrices, or hold a NaN or an infinity.

    Example:
        >>> factors = Factors(np.ones((6, 2)), np.ones((2, 4)), scale=0.5)
        >>> factors.rank, factors.shape
        (2, (6, 4))
        >>> Factors(np.ones((2, 6)), np.ones((4, 2)))
        Traceback (most recent call last):
        share_jax.errors.InputError: factors: got shapes (2, 6) and (4, 2), expected factors that multiply; ...
    """

    lora_a: np.ndarray | Any  # (d_in, r), checked below
    lora_b: np.ndarray | Any  # (r, d_out)
    scale: float | int = 1.0

    def __post_init__(self) -> None:
        """Checks shapes and values, once, at the door."""
        for name in ("lora_a", "lora_b"):
            dtype = getattr(getattr(self, name), "dtype", None)
            if dtype is None or getattr(dtype, "kind", "f") in "cOSU":
                got = type(getattr(self, name)).__name__ if dtype is None else f"dtype {dtype}"
                raise InputError(
                    message(name, got=got, expected="an array of floats", fix="pass np.asarray(..., float)")
                )
        a, b = np.shape(self.lora_a), np.shape(self.lora_b)
        if len(a) != 2 or len(b) != 2 or a[1] != b[0] or not (a[0] and b[1]):
            got, fix = (
                f"shapes {a} and {b}",
                "pass lora_a (d_in, r) and lora_b (r, d_out); PEFT stores both transposed",
            )
            raise InputError(message("factors", got=got, expected="factors that multiply", fix=fix))
        if not isinstance(self.scale, Real) and getattr(self.scale, "ndim", None) != 0:
            got, fix = f"{type(self.scale).__name__} {self.scale!r}", "pass alpha / rank"
            raise InputError(message("scale", got=got, expected="a number", fix=fix))
        for name in ("lora_a", "lora_b", "scale"):
            if not all_finite(np.asarray(getattr(self, name))):
                fix = "train that adapter again or leave it out"
                raise InputError(message(name, got="a NaN or an infinity", expected="finite numbers", fix=fix))

    @property
    def rank(self) -> int:
        """Columns of `lora_a`."""
        return self.lora_a.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """(d_in, d_out) of the update."""
        return self.lora_a.shape[0], self.lora_b.shape[1]


Adapter = Mapping[str, Factors]
"""One task's adapter: target name -> factors. Targets and ranks may differ between tasks and between targets."""


def nbytes(adapter: Adapter) -> int:
    """Of all its factors."""
    return sum(factors.lora_a.nbytes + factors.lora_b.nbytes for factors in adapter.values())
