"""Form 1, `shared_a`: delta_t = (alpha / r) A @ B[t], with one A per kernel for all tasks and one B per task."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from share_jax.annotations import Float
from share_jax.parameterizations.base import LeafSpec
from share_jax.parameterizations.from_factors import HostLeaves, Pair, common_columns, on_columns
from share_jax.parameterizations.lora_pair import LoRAPair
from share_jax.typing import AnyArray, Array, Leaves, PRNGKey


@dataclass(frozen=True)
class SharedA(LoRAPair):
    """One frozen-after-the-first-task A per kernel, one B per task.

    `lora_a` (d_in, r) ~ N(0, init_std^2) lives in `shared`; `lora_b` (r, d_out) = 0 is the task's slot.

    Attributes:
        rank: r, columns of A.
        alpha: numerator of the update's scale alpha / r.
        init_std: standard deviation of A's entries.

    Raises:
        InputError: if the rank is below 1, or alpha or init_std is not a positive finite number.

    Example:
        >>> method = SharedA(rank=2, alpha=4.0)
        >>> method.scale, {name: (leaf.owner, leaf.shape) for name, leaf in method.leaves(768, 3072).items()}
        (2.0, {'lora_a': ('shared', (768, 2)), 'lora_b': ('task', (2, 3072))})
    """

    @property
    def name(self) -> str:
        return "shared_a"

    def leaves(self, d_in: int, d_out: int) -> dict[str, LeafSpec]:
        return {
            "lora_a": LeafSpec((d_in, self.rank), ("d_in", None), owner="shared", trains="first"),
            "lora_b": self._b(d_out),
        }

    def init_shared(self, key: PRNGKey, d_in: int, d_out: int) -> Leaves:
        return {"lora_a": self._fresh_a(key, d_in)}

    def init_task(self, key: PRNGKey, d_in: int, d_out: int) -> Leaves:
        return {"lora_b": self._fresh_b(d_out)}

    def down(self, shared: Leaves, slot: Leaves) -> Float[Array, "d_in r"]:
        return shared["lora_a"]

    def factors(self, shared: Leaves, slot: Leaves) -> tuple[Float[AnyArray, "d_in r"], Float[AnyArray, "r d_out"]]:
        return shared["lora_a"], self.scale * slot["lora_b"]

    def shared_from(self, pairs: Sequence[Pair], fresh: HostLeaves, what: str) -> HostLeaves:
        return {"lora_a": common_columns(pairs, np.asarray(fresh["lora_a"]), what)}

    def slot_from(
        self,
        shared: HostLeaves,
        lora_a: Float[np.ndarray, "d_in q"],
        lora_b: Float[np.ndarray, "q d_out"],
        scale: float,
        what: str,
    ) -> HostLeaves:
        own = on_columns(np.asarray(shared["lora_a"]), lora_a, lora_b, what)
        return {"lora_b": own * np.float32(scale / self.scale)}
