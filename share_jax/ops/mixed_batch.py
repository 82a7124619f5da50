"""Whether a batch of different tasks goes through the Pallas kernel of `share_jax.ops.mixed_batch_pallas`.

Pallas is imported when a kernel runs, not before.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

WIDEST = 8192
"""Largest d_in: A's block is whole, and takes 128 columns of a TPU core's fast memory, twice: 8 MiB of 16."""


@dataclass(frozen=True)
class Kernel:
    """The Pallas kernel of a TPU, and whether it is interpreted on whatever device there is.

    Attributes:
        interpret: True for a test on a CPU, where it is slow.
    """

    interpret: bool = False


_ASKED: ContextVar[Kernel | None] = ContextVar("asked", default=None)


@contextmanager
def mixed_kernel(kernel: Kernel | None = None) -> Iterator[None]:
    """Layers traced in this context compute mixed batches with the Pallas kernel if it supports their sizes.

    It is for one device: XLA cannot divide a kernel over a mesh.

    Args:
        kernel: that of a TPU when None; where the default backend is another, nothing changes.

    Example:
        >>> import share_jax
        >>> layer, x = share_jax.SharedLoRADense(3, num_tasks=3), jnp.ones((2, 4))
        >>> variables = layer.init(jax.random.key(0), x, task_id=0)
        >>> with mixed_kernel():  # the Pallas kernel on a TPU; elsewhere nothing changes
        ...     print(layer.apply(variables, x, jnp.array([2, 0])).shape)
        (2, 3)
    """
    present = Kernel() if jax.default_backend() == "tpu" else None
    token = _ASKED.set(kernel or present)
    try:
        yield
    finally:
        _ASKED.reset(token)


@contextmanager
def plain_products() -> Iterator[None]:
    """Layers traced in this context take no kernel of their own: their program can be read."""
    token = _ASKED.set(None)
    try:
        yield
    finally:
        _ASKED.reset(token)


def kernel_taken(rank: int, d_in: int, d_out: int, dtype: DTypeLike) -> Kernel | None:
    """The kernel that a batch of different tasks takes at these sizes, or None for the plain path.

    None outside `mixed_kernel`: which is faster has not been measured on a TPU. None for what it is not
    written for: types other than float32 and bfloat16, ranks above the 128 columns of a matrix unit, and inputs so
    wide that A fills a TPU's fast memory.

    Args:
        rank: r.
        d_in: of the kernel.
        d_out: of the kernel.
        dtype: the layer computes in.
    """
    fits = 0 < rank <= 128 and 0 < d_in <= WIDEST and d_out > 0
    return _ASKED.get() if fits and dtype in (jnp.float32, jnp.bfloat16) else None
