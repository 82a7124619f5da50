"""Small learners and their batches; run as a program, `learning.py FOLDER`, it learns one task until it is killed."""

import sys
import time
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from adapted_models import base_variables

import share_jax
from share_jax.bank.bank import TaskBank
from share_jax.checkpoint.inflight_folder import InflightFolder
from share_jax.train.share_learner import ShareLearner

STEPS, SAVE_EVERY = 60, 4
X = np.random.default_rng(1).standard_normal((24, 8)).astype(np.float32)
MODEL = nn.Sequential([nn.Dense(16), nn.gelu, nn.Dense(2)])
PARAMS = base_variables(MODEL, X)["params"]


def adapted(method: Any = None) -> Any:
    """The model with its first kernel adapted, and its last layer each task's own."""
    base = {"params": PARAMS}
    return share_jax.adapt(MODEL, base, X, targets="layers_0/kernel", heads="layers_2/.*", method=method)


def two_layers(
    x: Any,
    transform: optax.GradientTransformation,
    *,
    hidden: int = 16,
    outputs: int = 2,
    method: Any = None,
    slots: int = 1,
    seed: int = 0,
) -> tuple[share_jax.Learner, TaskBank]:
    """A learner of such a model for inputs like `x`, and an empty bank."""
    model = nn.Sequential([nn.Dense(hidden), nn.gelu, nn.Dense(outputs)])
    base = jax.jit(model.init)(jax.random.key(seed), x)
    made = share_jax.adapt(model, base, x, targets="layers_0/kernel", heads="layers_2/.*", method=method)
    learner = share_jax.Learner(made, base, transform)
    return learner, learner.start(made.init(jax.random.key(2), base["params"], slots))


def learner(**options: Any) -> share_jax.Learner:
    """One of `SharedA`."""
    return share_jax.Learner(adapted(), {"params": PARAMS}, optax.adamw(1e-2), **options)


def share_learner(num_basis: int = 8, pseudo_rank: int = 2, **options: Any) -> ShareLearner:
    """One of `Share`."""
    model = adapted(share_jax.Share(num_basis, pseudo_rank))
    return ShareLearner(model, {"params": PARAMS}, optax.adamw(1e-2), **options)


def started(made: Any, slots: int = 2) -> Any:
    """A learner's empty bank."""
    return made.start(made.model.init(jax.random.key(2), PARAMS, slots))


def labels(column: int) -> np.ndarray:
    """Whether an input is positive."""
    return (X[:, column] > 0).astype(np.int32)


def batches(column: int = 0, steps: int = STEPS) -> list[dict[str, np.ndarray]]:
    """Another order of the examples in every batch, so that each step counts."""
    orders = [np.random.default_rng([column, step]).permutation(len(X)) for step in range(steps)]
    return [{"inputs": X[order], "labels": labels(column)[order]} for order in orders]


def right(made: Any, bank: Any, name: str, column: int) -> float:
    """The share of right answers."""
    return float(np.mean(np.asarray(made.predict(bank, name, X)).argmax(-1) == labels(column)))


def slowly(made: list[Any]) -> Iterator[Any]:
    """Batches that leave time for a kill."""
    for batch in made:
        time.sleep(0.05)
        yield batch


if __name__ == "__main__":
    own = learner()
    empty = started(own)
    own.learn(empty, "a", slowly(batches()), inflight=InflightFolder(sys.argv[1], own, empty), save_every=SAVE_EVERY)
