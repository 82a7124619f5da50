"""LoRA factors of one task, and the balanced form that makes bases independent of their gauge."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from share_jax.core.pack import groups, pack
from share_jax.errors import InputError, line
from share_jax.finite import all_finite
from share_jax.linalg import product, transpose, working


@dataclass(frozen=True)
class Factors:
    """One LoRA pair of one target: the update is `scale * lora_a @ lora_b`. Any float dtype; upcast when used.

    Raises:
        InputError: the two factors do not multiply, are not float matrices, or hold a NaN or an infinity.
    """

    lora_a: Float[np.ndarray | Array, "..."]  # (d_in, r), checked below
    lora_b: Float[np.ndarray | Array, "..."]  # (r, d_out)
    scale: float | int = 1.0

    def __post_init__(self) -> None:
        """Checks shapes and values, once, at the door."""
        a, b = np.shape(self.lora_a), np.shape(self.lora_b)
        if len(a) != 2 or len(b) != 2 or a[1] != b[0]:
            got, mend = (
                f"shapes {a} and {b}",
                "pass lora_a (d_in, r) and lora_b (r, d_out); PEFT stores both transposed",
            )
            raise InputError(line("factors", got=got, expected="factors that multiply", mend=mend))
        for name, x in (("lora_a", self.lora_a), ("lora_b", self.lora_b), ("scale", self.scale)):
            if not all_finite(np.asarray(x)):
                mend = "train that adapter again or leave it out"
                raise InputError(line(name, got="a NaN or an infinity", expected="finite numbers", mend=mend))

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


def lora_scale(alpha: float | int, rank: int, *, use_rslora: bool = False) -> float:
    """`alpha / r`, or `alpha / sqrt(r)` for rank-stabilised LoRA (Kalajdzievski 2023, equation 5).

    Raises:
        InputError: the rank is below 1.

    >>> lora_scale(8, 4), lora_scale(8, 4, use_rslora=True)
    (2.0, 4.0)
    """
    if rank < 1:
        raise InputError(line("rank", got=rank, expected="a whole number of at least 1", mend="pass rank=4"))
    return alpha / (rank**0.5 if use_rslora else rank)


@jax.jit
def balanced(
    a: Float[Array, "*batch d_in r"], b: Float[Array, "*batch d_out r"]
) -> tuple[Float[Array, "*batch d_in m"], Float[Array, "*batch d_out m"]]:
    """Balanced factors of `a @ b.T`: with its thin SVD U S V.T, (U sqrt(S), V sqrt(S)), largest column first.

    m = min(r, d_in, d_out). The (d_in, d_out) product is never formed: QR of both sides, then the SVD of the (r, r)
    core R_a @ R_b.T. Any pair (a G, b G^-T) gives the same result, up to a common sign per column.
    """
    # one QR for both sides, zero rows appended to the shorter: two independent batched LAPACK calls in one program
    # can wait for each other's threads for ever on a machine with few cores
    rows = max(a.shape[-2], b.shape[-2])
    q, r = jnp.linalg.qr(jnp.stack([_padded(working(a), rows), _padded(working(b), rows)]))
    (qa, qb), (ra, rb) = (q[0, ..., : a.shape[-2], :], q[1, ..., : b.shape[-2], :]), r
    # a power of two takes the size out of the core, so that tiny and huge updates lose nothing to underflow
    size = jnp.max(jnp.abs(ra), axis=(-2, -1), keepdims=True)
    unit = jnp.where(size > 0, size, 1)
    u, s, vt = jnp.linalg.svd(product(ra / unit, transpose(rb)), full_matrices=False)
    root = (jnp.sqrt(s) * jnp.sqrt(unit[..., 0]))[..., None, :]
    m = min(a.shape[-1], a.shape[-2], b.shape[-2])
    return (product(qa, u) * root)[..., :m], (product(qb, transpose(vt)) * root)[..., :m]


def _padded(x: Float[Array, "*batch d r"], rows: int) -> Float[Array, "*batch rows r"]:
    return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, rows - x.shape[-2]), (0, 0)])


def balance(adapter: Adapter, *, rank: int | None = None) -> dict[str, Factors]:
    """The same updates in balanced factors, scale 1: `lora_a = U sqrt(S)`, `lora_b = sqrt(S) V.T`.

    `rank` keeps only that many columns, the best approximation of that rank (Eckart and Young 1936).

    Raises:
        InputError: `rank` is below 1.
    """
    if rank is not None and rank < 1:
        raise InputError(line("rank", got=rank, expected="at least 1, or None for no cut", mend="pass rank=8"))
    out: dict[str, Factors] = {}
    for targets in groups({name: f.shape for name, f in adapter.items()}).values():
        packed = pack([adapter], targets)
        a, b = (np.asarray(x)[:, 0] for x in balanced(jnp.asarray(packed.a), jnp.asarray(packed.b)))
        for i, name in enumerate(targets):
            keep = min(adapter[name].rank, *adapter[name].shape, rank or adapter[name].rank)
            out[name] = Factors(a[i, :, :keep], b[i, :, :keep].T)
    return {name: out[name] for name in adapter}
