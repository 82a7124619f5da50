"""Plain LoRA, one pair per task and nothing shared: delta_t = (alpha / r) A[t] @ B[t] (Hu et al. 2021, eq. 3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from share_jax.annotations import Float
from share_jax.parameterizations.base import LeafSpec
from share_jax.parameterizations.from_factors import HostLeaves, Pair, padded_pair
from share_jax.parameterizations.lora_pair import LoRAPair
from share_jax.typing import AnyArray, Array, Leaves, PRNGKey


@dataclass(frozen=True)
class SeparateLoRA(LoRAPair):
    """One ordinary LoRA pair per task: the upper bound that sharing is compared with.

    `lora_a` (d_in, r) ~ N(0, init_std^2) and `lora_b` (r, d_out) = 0 are both the task's slot; `shared` is empty.

    Attributes:
        rank: r, the rank of each task's update.
        alpha: numerator of the update's scale alpha / r.
        init_std: standard deviation of A's entries.

    Raises:
        InputError: if the rank is below 1, or alpha or init_std is not a positive finite number.

    Example:
        >>> method = SeparateLoRA(rank=2, alpha=4.0)
        >>> method.scale, {name: leaf.shape for name, leaf in method.leaves(768, 3072).items()}
        (2.0, {'lora_a': (768, 2), 'lora_b': (2, 3072)})
    """

    @property
    def name(self) -> str:
        return "separate"

    def leaves(self, d_in: int, d_out: int) -> dict[str, LeafSpec]:
        return {"lora_a": LeafSpec((d_in, self.rank), ("d_in", None)), "lora_b": self._b(d_out)}

    def init_shared(self, key: PRNGKey, d_in: int, d_out: int) -> Leaves:
        return {}

    def init_task(self, key: PRNGKey, d_in: int, d_out: int) -> Leaves:
        return {"lora_a": self._fresh_a(key, d_in), "lora_b": self._fresh_b(d_out)}

    def down(self, shared: Leaves, slot: Leaves) -> Float[Array, "*batch d_in r"]:
        return slot["lora_a"]

    def factors(self, shared: Leaves, slot: Leaves) -> tuple[Float[AnyArray, "d_in r"], Float[AnyArray, "r d_out"]]:
        return slot["lora_a"], self.scale * slot["lora_b"]

    def shared_from(self, pairs: Sequence[Pair], fresh: HostLeaves, what: str) -> HostLeaves:
        return {}

    def slot_from(
        self,
        shared: HostLeaves,
        lora_a: Float[np.ndarray, "d_in q"],
        lora_b: Float[np.ndarray, "q d_out"],
        scale: float,
        what: str,
    ) -> HostLeaves:
        a, b = padded_pair(lora_a, lora_b, self.rank, what)
        return {"lora_a": a, "lora_b": b * np.float32(scale / self.scale)}
