"""What the methods with a plain LoRA pair have in common, whoever owns its A: their numbers, and the way up."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from share_jax.annotations import Float
from share_jax.number_checks import positive_number, whole_number
from share_jax.ops.products import up_product
from share_jax.parameterizations.base import LeafSpec
from share_jax.typing import Array, Leaves, PRNGKey


@dataclass(frozen=True)
class LoRAPair:
    """`lora_a` (d_in, r) ~ N(0, init_std^2), and the task's `lora_b` (r, d_out) = 0.

    Attributes:
        rank: r, the rank of each task's update.
        alpha: numerator of the update's scale alpha / r.
        init_std: standard deviation of A's entries.

    Raises:
        InputError: if the rank is below 1, or alpha or init_std is not a positive finite number.
    """

    rank: int = 4
    alpha: float = 8.0
    init_std: float = 0.02

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", whole_number("rank", self.rank, 1))
        object.__setattr__(self, "alpha", positive_number("alpha", self.alpha))
        object.__setattr__(self, "init_std", positive_number("init_std", self.init_std))

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def pair(self) -> tuple[str, str]:
        return "lora_a", "lora_b"

    def up(self, shared: Leaves, slot: Leaves, h: Float[Array, "batch n r"]) -> Float[Array, "batch n d_out"]:
        return up_product(h, self.scale * slot["lora_b"])

    def _b(self, d_out: int) -> LeafSpec:
        return LeafSpec((self.rank, d_out), (None, "d_out"))

    def _fresh_a(self, key: PRNGKey, d_in: int) -> Float[Array, "d_in r"]:
        return self.init_std * jax.random.normal(key, (d_in, self.rank), jnp.float32)

    def _fresh_b(self, d_out: int) -> Float[Array, "r d_out"]:
        return jnp.zeros((self.rank, d_out), jnp.float32)
