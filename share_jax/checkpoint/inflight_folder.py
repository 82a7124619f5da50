"""The training in flight on disk: what the loop over steps saves through, and goes on from after a kill."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from share_jax.bank.bank import TaskBank
from share_jax.checkpoint import checkpoint
from share_jax.checkpoint.checkpoint import Checkpoint
from share_jax.checkpoint.saved_bank import held_checkpoint
from share_jax.errors import FormatError, message
from share_jax.sharding.placement import is_key
from share_jax.train.batches import Position
from share_jax.train.learner import Learner
from share_jax.train.share_learner import ShareLearner
from share_jax.train.update import StepState


def as_tree(state: StepState) -> dict[str, Any]:
    """The state as a nested dict of plain arrays, for a checkpoint."""
    leaves = [jax.random.key_data(leaf) if is_key(leaf) else leaf for leaf in jax.tree.leaves(state.opt_state)]
    tree = {
        "slot": state.slot,
        "opt": {f"{index:04d}": leaf for index, leaf in enumerate(leaves)},
        "step": state.step,
        "key": jax.random.key_data(state.key),
    }
    return {**tree, "shared": state.shared} if state.shared else tree


def from_tree(tree: dict[str, Any], like: StepState) -> StepState:
    """The inverse of `as_tree`, for a state of the same structure as `like`."""
    own, structure = jax.tree.flatten(like.opt_state)
    saved = [tree["opt"][number] for number in sorted(tree["opt"], key=int)]
    pairs = zip(saved, own, strict=True)
    leaves = [jax.random.wrap_key_data(x, impl=jax.random.key_impl(y)) if is_key(y) else x for x, y in pairs]
    opt_state = jax.tree.unflatten(structure, leaves)
    key = jax.random.wrap_key_data(tree["key"])
    return StepState(tree.get("shared", {}), tree["slot"], opt_state, tree["step"], key)


@dataclass
class InflightStore:
    """The training in flight of an open checkpoint.

    Attributes:
        store: the checkpoint as it is after the last save.
    """

    store: Checkpoint

    def load(self, task: str, state: StepState) -> tuple[StepState, Position]:
        """The saved state of this task and the position of its batches; `state` and 0 if none is saved.

        Raises:
            FormatError: if what is saved is damaged, or the batches' position is not that of the training.
        """
        record = self.store.manifest.inflight
        if record is None or record["info"]["task"] != task:
            return state, 0
        state = from_tree(checkpoint.load_inflight(self.store, as_tree(state)), state)
        done = int(state.step)
        position = record["info"].get("input", done)  # checkpoints from before it was saved: a batch per step
        taken = position.get("next_index", done) if isinstance(position, Mapping) else done
        if taken != done:
            what, fix = f"batches taken in task {task!r}", "start the task anew"
            raise FormatError(message(what, got=taken, expected=f"{done}, its steps", fix=fix))
        return state, position

    def save(self, task: str, state: StepState, position: Position) -> None:
        """Saves the state, and where its batches go on.

        Raises:
            InputError: if the position is no JSON.
            SaveError: if it cannot be written; the last state stays.
        """
        info = {"task": task, "step": int(state.step), "input": position}
        self.store = checkpoint.save_inflight(self.store, as_tree(state), info)


class InflightFolder:
    """The training in flight of a `Learner`, in the folder that `save_bank` saves its tasks into.

        inflight = share_jax.InflightFolder("bank", learner, bank)
        bank = learner.learn(bank, "weather", batches, inflight=inflight)  # killed, and called again: the same bits
        share_jax.save_bank("bank", learner, bank)  # the task is saved, and nothing is in flight any more

    The folder is held while it is read or written, and not between.

    Example:
        >>> import flax.linen as nn
        >>> import numpy as np
        >>> import optax
        >>> import share_jax
        >>> model, x = nn.Dense(3), np.eye(4, dtype=np.float32)
        >>> base = model.init(jax.random.key(0), x)
        >>> adapted = share_jax.adapt(model, base, x, targets="kernel")
        >>> learner = Learner(adapted, base, optax.adam(0.1))
        >>> bank = learner.start(adapted.init(jax.random.key(1), base["params"], num_tasks=2))
        >>> inflight, batch = InflightFolder("bank", learner, bank), {"inputs": x, "labels": np.array([0, 1, 2, 0])}
        >>> bank = learner.learn(bank, "weather", [batch] * 3, inflight=inflight, save_every=2)
        >>> checkpoint.open_checkpoint("bank").manifest.inflight["info"]["step"]
        2
    """

    def __init__(self, folder: str | os.PathLike[str], learner: Learner | ShareLearner, bank: TaskBank) -> None:
        """Writes nothing yet.

        Args:
            folder: new, empty, or saved to before.
            learner: what learns.
            bank: what it has learnt, or its empty bank.
        """
        self._folder, self._learner, self._bank = Path(folder), learner, bank

    def load(self, task: str, state: StepState) -> tuple[StepState, Position]:
        """The saved state of this task and the position of its batches; `state` and 0 if none is saved.

        Raises:
            BusyError: if another process saves into the folder.
            FormatError: if it holds something else, is another model's, or is damaged.
        """
        with held_checkpoint(self._folder, self._learner, self._bank) as store:
            return InflightStore(store).load(task, state)

    def save(self, task: str, state: StepState, position: Position) -> None:
        """Saves the state, and where its batches go on.

        Raises:
            BusyError: if another process saves into the folder.
            SaveError: if it cannot be written; the last state stays.
        """
        with held_checkpoint(self._folder, self._learner, self._bank) as store:
            InflightStore(store).save(task, state, position)
