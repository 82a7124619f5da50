"""Type aliases, and the table of dimension names that every shape annotation uses.

| name | meaning |
|---|---|
| d_in, d_out | flattened input and output sides of a kernel, `y = x @ kernel` |
| r | rank of a LoRA pair: `lora_a` (d_in, r), `lora_b` (r, d_out) |
| k, kp | columns of `basis_a` (d_in, k) and of `basis_b` (d_out, kp) |
| p | pseudo rank: columns of a task's coefficients `coeff_a` (k, p), `coeff_b` (kp, p) |
| phi | temporary directions while one task is learnt |
| T | tasks along the leading axis of every leaf of the `tasks` tree |
| batch, n | examples, and positions (tokens, pixels) within one example |
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

Array = jax.Array
AnyArray = jax.Array | np.ndarray
"""Of NumPy where what it is computed from is."""

PRNGKey = jax.Array
"""A new-style typed key, `jax.random.key(seed)`; never used twice."""

Leaves = dict[str, Array]
"""The arrays of one target, by the field's own names (`lora_a`, `basis_b`, ...)."""

Tree = Mapping[str, Any]
"""A nested mapping of arrays, keyed as Flax keys its collections."""

Path = tuple[str, ...]
"""The keys from a tree's root to a leaf."""

TaskId = int | np.integer | Sequence[int] | np.ndarray | jax.Array
"""A whole number, or one per example; concrete or traced."""
