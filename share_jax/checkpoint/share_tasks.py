"""Tasks of one evolving subspace on disk: a merge writes the bases, and every task's coefficients, anew.

What every task has lost is saved, too (`state_leaves`), so a stream goes on from here with the bounds that it had.
"""

import os
from pathlib import Path

from share_jax.bank.router import Router
from share_jax.checkpoint import checkpoint
from share_jax.checkpoint.checkpoint import Checkpoint, Json
from share_jax.checkpoint.manifest import FILE
from share_jax.checkpoint.saved_bank import held_checkpoint, opened_for
from share_jax.checkpoint.state_leaves import holds_state, saved_state, shared_tree, slot_tree
from share_jax.errors import FormatError, TaskError, message
from share_jax.storage.steady import steady
from share_jax.subspace.from_bank import bank_heads
from share_jax.subspace.share_bank import ShareBank
from share_jax.train.share_learner import ShareLearner


def save_last_task(
    store: Checkpoint, learner: ShareLearner, bank: ShareBank, info: Json, router: Router | None = None
) -> Checkpoint:
    """Saves the bank's last task, the bases that its merge made, and the other tasks' coefficients on them.

    Args:
        store: with all of the bank's tasks but the last.
        learner: what learnt them.
        bank: the tasks.
        info: JSON beside the new task.
        router: the router that knows the new task too; the saved one, if any, is kept when None.

    Raises:
        TaskError: if the store holds other tasks.
        InputError: if the info is no JSON.
        SaveError: if it cannot be written; the last state stays.
    """
    if store.names != bank.names[:-1]:
        got, fix = f"tasks {list(store.names)}", "save after every task"
        what, expected = f"checkpoint folder {store.root}", f"{list(bank.names[:-1])}"
        raise TaskError(message(what, got=got, expected=expected, fix=fix))
    slots = {
        name: slot_tree(bank.state, t, heads) for t, (name, heads) in enumerate(bank_heads(bank, learner.model).items())
    }
    *old, new = bank.names
    shared = shared_tree(bank.state)
    changed = {name: slots[name] for name in old}
    return checkpoint.save_task(store, new, slots[new], info, shared=shared, changed=changed, router=router)


def saved_tasks(store: Checkpoint, learner: ShareLearner, fresh: ShareBank) -> ShareBank:
    """The saved tasks as a bank; `fresh`, an empty bank, if there are none.

    Raises:
        FormatError: if one is damaged, or not of this form.
    """
    if not store.names:
        return fresh
    if not holds_state(store):
        got, fix = "tasks that save_bank saved", "load it with share_jax.load_bank"
        what = f"checkpoint folder {store.root}"
        raise FormatError(message(what, got=got, expected="tasks of save_share_task", fix=fix))
    return learner.restore(fresh, *saved_state(store))


def save_share_task(
    folder: str | os.PathLike[str],
    learner: ShareLearner,
    bank: ShareBank,
    *,
    info: Json | None = None,
    router: Router | None = None,
) -> Checkpoint:
    """Saves the last task of a bank, after it was learnt, in a folder of its own; see `save_last_task`.

    Nothing is in flight any more. `save_bank` saves a bank as it serves, once for all; this one can be learnt on.

    Args:
        folder: new, empty, or with the tasks before the last one.
        learner: what learnt them.
        bank: the tasks.
        info: JSON beside the new task.
        router: a router that knows the new task too; the saved one, if any, is kept when None.

    Raises:
        BusyError: if another process saves into it.
        FormatError: if the folder holds something else, or is another model's.
        TaskError, InputError, SaveError: as `save_last_task`.

    Example:
        >>> import flax.linen as nn
        >>> import jax
        >>> import numpy as np
        >>> import optax
        >>> import share_jax
        >>> from share_jax.subspace import initialize
        >>> model, x = nn.Dense(3), np.ones((2, 4), np.float32)
        >>> base = model.init(jax.random.key(0), x)
        >>> adapted = share_jax.adapt(model, base, x, targets="kernel", method=share_jax.Share(2, 1))
        >>> learner = ShareLearner(adapted, base, optax.sgd(0.1))
        >>> fresh = learner.start(adapted.init(jax.random.key(1), base["params"], num_tasks=2))
        >>> state = initialize({"cola": {"kernel": share_jax.adapters.Factors(np.ones((4, 1)), np.ones((1, 3)))}})
        >>> bank = learner.restore(fresh, state, heads=[{}])  # or of learner.learn
        >>> save_share_task("bank", learner, bank, info={"accuracy": 0.8}).info("cola")
        {'accuracy': 0.8}
    """
    with held_checkpoint(Path(folder), learner, bank) as store:
        return save_last_task(store, learner, bank, info or {}, router)


def load_share_bank(folder: str | os.PathLike[str], learner: ShareLearner, fresh: ShareBank) -> ShareBank:
    """The tasks that `save_share_task` saved, with the bounds on their errors; `fresh` if the checkpoint has none yet.

    Args:
        folder: where the tasks were saved.
        learner: one with the same model and base.
        fresh: its empty bank, from `ShareLearner.start`.

    Raises:
        FormatError: if the folder is no checkpoint, is another model's, holds tasks of `save_bank`, or is damaged.

    Example:
        >>> import flax.linen as nn
        >>> import jax
        >>> import numpy as np
        >>> import optax
        >>> import share_jax
        >>> from share_jax.subspace import initialize
        >>> model, x = nn.Dense(3), np.ones((2, 4), np.float32)
        >>> base = model.init(jax.random.key(0), x)
        >>> adapted = share_jax.adapt(model, base, x, targets="kernel", method=share_jax.Share(2, 1))
        >>> learner = ShareLearner(adapted, base, optax.sgd(0.1))
        >>> fresh = learner.start(adapted.init(jax.random.key(1), base["params"], num_tasks=2))
        >>> state = initialize({"cola": {"kernel": share_jax.adapters.Factors(np.ones((4, 1)), np.ones((1, 3)))}})
        >>> store = save_share_task("bank", learner, learner.restore(fresh, state, heads=[{}]))
        >>> bank = load_share_bank("bank", learner, fresh)
        >>> bank.names, bank.report()["cola"].error_bound < 1e-5
        (('cola',), True)
    """
    return steady(Path(folder, FILE), lambda: saved_tasks(opened_for(folder, learner, fresh), learner, fresh))
