"""Form 2, `share`: delta_t = (basis_a @ coeff_a[t]) @ (basis_b @ coeff_b[t]).T, one orthonormal subspace per kernel.

The fast form is two matrix products that all tasks share, with one small core per task between them:
x @ basis_a, then (k, kp), then basis_b.T. A batch of different tasks costs no more than a batch of one.

Source: "Shared LoRA Subspaces for almost Strict Continual Learning", Kaushik et al. 2026 (arXiv 2602.06043).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from share_jax.annotations import Float
from share_jax.number_checks import positive_number, whole_number
from share_jax.ops.products import up_product
from share_jax.parameterizations.base import LeafSpec
from share_jax.typing import AnyArray, Array, Leaves, PRNGKey


@dataclass(frozen=True)
class Share:
    """A frozen pair of bases per kernel, and a pair of coefficient matrices per task: training coefficients alone.

    `basis_a` (d_in, k) and `basis_b` (d_out, k) live in `shared`; `coeff_a` (k, p) and `coeff_b` (k, p) are the slot.
    A side with fewer than k directions is padded with zero columns, which change nothing.

    No optimizer step moves the bases, not in the first task either: it would leave them neither orthonormal nor padded.
    They are random here, or come from adapters (`subspace.initialize`), and evolve where a task that was learnt
    with `ShareAdapt` is merged into them (`subspace.merge`).

    Attributes:
        num_basis: k, columns of each basis.
        pseudo_rank: p, columns of a task's coefficients.
        init_std: standard deviation of coeff_a's entries; coeff_b starts at zero, so the update does too.

    Raises:
        InputError: if num_basis or pseudo_rank is below 1.

    Example:
        >>> method = Share(num_basis=8, pseudo_rank=2)
        >>> {name: (leaf.owner, leaf.shape) for name, leaf in method.leaves(768, 3072).items() if leaf.owner == "task"}
        {'coeff_a': ('task', (8, 2)), 'coeff_b': ('task', (8, 2))}
    """

    num_basis: int = 32
    pseudo_rank: int = 4
    init_std: float = 0.02

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_basis", whole_number("num_basis", self.num_basis, 1))
        object.__setattr__(self, "pseudo_rank", whole_number("pseudo_rank", self.pseudo_rank, 1))
        object.__setattr__(self, "init_std", positive_number("init_std", self.init_std))

    @property
    def name(self) -> str:
        return "share"

    @property
    def scale(self) -> float:
        return 1.0

    @property
    def rank(self) -> int:
        return self.pseudo_rank

    @property
    def pair(self) -> None:
        return None

    def leaves(self, d_in: int, d_out: int) -> dict[str, LeafSpec]:
        coefficients = LeafSpec((self.num_basis, self.pseudo_rank), (None, None))
        return {
            "basis_a": LeafSpec((d_in, self.num_basis), ("d_in", None), owner="shared", trains="never"),
            "basis_b": LeafSpec((d_out, self.num_basis), ("d_out", None), owner="shared", trains="never"),
            "coeff_a": coefficients,
            "coeff_b": coefficients,
        }

    def init_shared(self, key: PRNGKey, d_in: int, d_out: int) -> Leaves:
        key_a, key_b = jax.random.split(key)
        return {"basis_a": self._basis(key_a, d_in), "basis_b": self._basis(key_b, d_out)}

    def _basis(self, key: PRNGKey, d: int) -> Float[Array, "d k"]:
        """Random orthonormal columns, min(d, k) of them, padded with zeros to k."""
        columns = min(d, self.num_basis)
        basis, _ = jnp.linalg.qr(jax.random.normal(key, (d, columns), jnp.float32))
        return jnp.pad(basis, ((0, 0), (0, self.num_basis - columns)))

    def init_task(self, key: PRNGKey, d_in: int, d_out: int) -> Leaves:
        shape = (self.num_basis, self.pseudo_rank)
        return {
            "coeff_a": self.init_std * jax.random.normal(key, shape, jnp.float32),
            "coeff_b": jnp.zeros(shape, jnp.float32),
        }

    def down(self, shared: Leaves, slot: Leaves) -> Float[Array, "d_in k"]:
        return shared["basis_a"]

    def up(self, shared: Leaves, slot: Leaves, h: Float[Array, "batch n k"]) -> Float[Array, "batch n d_out"]:
        core = slot["coeff_a"] @ jnp.swapaxes(slot["coeff_b"], -1, -2)
        return up_product(up_product(h, core), shared["basis_b"].T)

    def factors(self, shared: Leaves, slot: Leaves) -> tuple[Float[AnyArray, "d_in p"], Float[AnyArray, "p d_out"]]:
        return shared["basis_a"] @ slot["coeff_a"], (shared["basis_b"] @ slot["coeff_b"]).T


@dataclass(frozen=True)
class ShareAdapt:
    """A task while it is learnt: phi temporary directions per side, which are gone after the merge.

    All leaves are the slot's: `basis_a` (d_in, phi), `basis_b` (d_out, phi), copies of the top directions of the main
    bases or fresh ones, and `coeff_a`, `coeff_b` (phi, p). The main bases are not touched.

    Attributes:
        phi: temporary directions per side.
        pseudo_rank: p, columns of the coefficients.
        alpha: numerator of the update's scale alpha / p, folded into the factors at the merge.
        init_std: standard deviation of coeff_a's entries; coeff_b starts at zero.

    Raises:
        InputError: if phi or pseudo_rank is below 1.

    Example:
        >>> method = ShareAdapt(phi=3, pseudo_rank=2)
        >>> {name: leaf.shape for name, leaf in method.leaves(768, 3072).items()}
        {'basis_a': (768, 3), 'basis_b': (3072, 3), 'coeff_a': (3, 2), 'coeff_b': (3, 2)}
    """

    phi: int = 4
    pseudo_rank: int = 4
    alpha: float = 8.0
    init_std: float = 0.25

    def __post_init__(self) -> None:
        object.__setattr__(self, "phi", whole_number("phi", self.phi, 1))
        object.__setattr__(self, "pseudo_rank", whole_number("pseudo_rank", self.pseudo_rank, 1))
        object.__setattr__(self, "alpha", positive_number("alpha", self.alpha))
        object.__setattr__(self, "init_std", positive_number("init_std", self.init_std))

    @property
    def name(self) -> str:
        return "share_adapt"

    @property
    def scale(self) -> float:
        return self.alpha / self.pseudo_rank

    @property
    def rank(self) -> int:
        return self.pseudo_rank

    @property
    def pair(self) -> None:
        return None

    def leaves(self, d_in: int, d_out: int) -> dict[str, LeafSpec]:
        coefficients = LeafSpec((self.phi, self.pseudo_rank), (None, None))
        return {
            "basis_a": LeafSpec((d_in, self.phi), ("d_in", None)),
            "basis_b": LeafSpec((d_out, self.phi), ("d_out", None)),
            "coeff_a": coefficients,
            "coeff_b": coefficients,
        }

    def init_shared(self, key: PRNGKey, d_in: int, d_out: int) -> Leaves:
        return {}

    def init_task(self, key: PRNGKey, d_in: int, d_out: int) -> Leaves:
        whole = Share(self.phi, self.pseudo_rank, self.init_std)
        key_bases, key_coefficients = jax.random.split(key)
        return {**whole.init_shared(key_bases, d_in, d_out), **whole.init_task(key_coefficients, d_in, d_out)}

    def down(self, shared: Leaves, slot: Leaves) -> Float[Array, "*batch d_in phi"]:
        return slot["basis_a"]

    def up(self, shared: Leaves, slot: Leaves, h: Float[Array, "batch n phi"]) -> Float[Array, "batch n d_out"]:
        core = self.scale * slot["coeff_a"] @ jnp.swapaxes(slot["coeff_b"], -1, -2)
        return up_product(up_product(h, core), jnp.swapaxes(slot["basis_b"], -1, -2))

    def factors(self, shared: Leaves, slot: Leaves) -> tuple[Float[AnyArray, "d_in p"], Float[AnyArray, "p d_out"]]:
        return self.scale * slot["basis_a"] @ slot["coeff_a"], (slot["basis_b"] @ slot["coeff_b"]).T
