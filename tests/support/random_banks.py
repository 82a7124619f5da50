"""Banks of random tasks on small models: what a stream would leave, without training it."""

import jax
import jax.numpy as jnp
import numpy as np
from adapted_models import SEQUENCE, Mlp, Scanned, base_variables, filled

import share_jax
from share_jax.bank.bank import TaskBank
from share_jax.linen.adapted_model import Adapted
from share_jax.parameterizations.base import Parameterization

TASKS = ("first", "second", "third")
SHARE = share_jax.Share(num_basis=5, pseudo_rank=2)
METHODS = (share_jax.SharedA(rank=3, alpha=7), share_jax.SeparateLoRA(rank=3, alpha=7), SHARE)
MODELS = {"plain": (Mlp(), ["Dense_0/kernel", "Dense_1/kernel"], []), "scanned": (Scanned(), ["layers/.*kernel"], [])}
HEADED = (Mlp(), ["Dense_0/kernel"], ["Dense_1/.*"])


def adapted_with(method: Parameterization, model=MODELS["plain"]) -> tuple[Adapted, dict]:
    """An adapted model and its base variables."""
    module, targets, heads = model
    base = base_variables(module, SEQUENCE)
    return share_jax.adapt(
        module, {"params": base["params"]}, SEQUENCE, targets=targets, heads=heads, method=method
    ), base


def empty_bank(adapted: Adapted, base: dict, slots: int = 1) -> TaskBank:
    """A bank on fresh trees."""
    trees = adapted.init(jax.random.key(0), base["params"], slots)
    return TaskBank(trees["shared"], trees["tasks"])


def random_bank(adapted: Adapted, base: dict, tasks: tuple[str, ...] = TASKS, seed: int = 1) -> TaskBank:
    """A bank whose every task leaf is drawn at random; bases of `Share` stay orthonormal."""
    bank = empty_bank(adapted, base, len(tasks) + 1)
    shared = bank.shared if isinstance(adapted.method, share_jax.Share) else filled(bank.shared, seed)
    return TaskBank(shared, filled(bank.tasks, seed), tasks)


def logits(adapted: Adapted, base: dict, bank: TaskBank, name: str) -> np.ndarray:
    """The model's output for a task."""
    variables = {"params": base["params"], "shared": bank.shared, "tasks": bank.tasks}
    return np.asarray(adapted.apply(variables, jnp.asarray(SEQUENCE), task_id=bank.index(name)))
