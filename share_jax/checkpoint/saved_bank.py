"""A `Learner`'s bank on disk: each task saved once, when it is new, and all of them back in one call.

The folder is a checkpoint (see `checkpoint.checkpoint`), so it may also be opened, noted in and repaired as one.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp

from share_jax.adapted import as_adapted
from share_jax.bank.bank import TaskBank
from share_jax.bank.router import Router
from share_jax.bank.slots import read_slot
from share_jax.checkpoint import arrays, before_saving, checkpoint, manifest
from share_jax.checkpoint import router as router_files
from share_jax.checkpoint.checkpoint import Checkpoint, Json
from share_jax.checkpoint.earlier_leaves import as_saved, as_today, earlier_leaves
from share_jax.checkpoint.fingerprints import fingerprint
from share_jax.checkpoint.manifest import Identity, Manifest
from share_jax.checkpoint.state_leaves import holds_state
from share_jax.errors import FormatError, InputError, TaskError, message
from share_jax.runtime.processes import agreed, on_primary
from share_jax.storage.lock import hold
from share_jax.storage.steady import steady
from share_jax.train.learner import Learner
from share_jax.train.share_learner import ShareLearner
from share_jax.trees import flat
from share_jax.typing import Tree


def save_bank(
    folder: str | os.PathLike[str],
    learner: Learner | ShareLearner,
    bank: TaskBank,
    *,
    infos: Mapping[str, Json] | None = None,
    router: Router | None = None,
) -> Checkpoint:
    """Saves the tasks of a bank that the folder does not have yet; those that it has are never written again.

    Call it after every task, or once for all. A kill at any moment leaves whole tasks. The folder is held while it is
    written, as by `lock.hold`. On several processes all call it with arrays of all of them, and one file system under
    the folder.

    The folder is one base model's, known by its variables, and one method's. Of a module of one's own there are its
    class, its layers and their shapes to tell it by: another alpha, which leaves no trace in them, is not noticed.

    Args:
        folder: new, empty, or saved to before.
        learner: what learnt the bank.
        bank: the tasks.
        infos: JSON beside new tasks by name, such as {"first": {"accuracy": 0.5}}; read back by `Checkpoint.info`.
            Those of saved tasks may be given again as they are.
        router: a router that knows some of the bank's tasks; the saved one, if any, is kept when None.

    Returns:
        The checkpoint that the folder now is.

    Raises:
        BusyError: if another process saves into it.
        FormatError: if the folder holds something else, or is another model's.
        TaskError: if it holds other tasks than the bank begins with; if `infos` or the router name a task that the bank
            has not; or if the info of a saved task is changed.
        InputError: if a saved task, or what all share, is not what was saved, or an info cannot be stored as JSON.
        SaveError: if it cannot be written; what was saved stays.

    Example:
        >>> import flax.linen as nn
        >>> import optax
        >>> import share_jax
        >>> model, x = nn.Dense(3), jnp.ones((2, 4))
        >>> base = model.init(jax.random.key(0), x)
        >>> adapted = share_jax.adapt(model, base, x, targets="kernel")
        >>> trees = adapted.init(jax.random.key(1), base["params"], num_tasks=2)
        >>> bank = TaskBank(trees["shared"], trees["tasks"], ("cola", "rte"))
        >>> store = save_bank("bank", Learner(adapted, base, optax.sgd(0.1)), bank, infos={"cola": {"accuracy": 0.8}})
        >>> store.names, store.info("cola")
        (('cola', 'rte'), {'accuracy': 0.8})
    """
    folder, infos = Path(folder), dict(infos or {})
    _check_global(bank)
    with held_checkpoint(folder, learner, bank) as store:
        new = _new_names(store, bank)
        _check_infos(store, infos, new)
        router_files.check_known(router, bank.names)
        _check_unchanged(store, bank)
        for name in new:
            slot = read_slot(bank.tasks, bank.index(name))
            shared = bank.shared if store.manifest.shared is None else None
            last = router if name == new[-1] else None
            store = checkpoint.save_task(store, name, slot, infos.get(name, {}), shared=shared, router=last)
        if router is not None and not new:
            store = checkpoint.save_router(store, router)
    return store


def load_bank(folder: str | os.PathLike[str], learner: Learner | ShareLearner, fresh: TaskBank) -> TaskBank:
    """The tasks that `save_bank` saved, to the bit; learning goes on from it as it would have from the bank itself.

    What the tasks of a `ShareLearner` have lost is not in such a folder: bounds count from here. `save_share_task`
    keeps it.

    Args:
        folder: where they were saved.
        learner: one with the same model and base.
        fresh: its empty bank, from `Learner.start`, whose stack grows if there are more tasks than slots.

    Raises:
        FormatError: if the folder is no checkpoint, is another model's, is damaged, or is one of `save_share_task`.
        InputError: if `fresh` has learnt tasks, or a module of one's own has fewer slots than there are tasks.

    Example:
        >>> import flax.linen as nn
        >>> import optax
        >>> import share_jax
        >>> model, x = nn.Dense(3), jnp.ones((2, 4))
        >>> base = model.init(jax.random.key(0), x)
        >>> adapted = share_jax.adapt(model, base, x, targets="kernel")
        >>> learner = Learner(adapted, base, optax.sgd(0.1))
        >>> trees = adapted.init(jax.random.key(1), base["params"], num_tasks=2)
        >>> store = save_bank("bank", learner, TaskBank(trees["shared"], trees["tasks"], ("cola", "rte")))
        >>> load_bank("bank", learner, learner.start(trees)).names
        ('cola', 'rte')
    """
    if fresh.names:
        got, fix = f"{len(fresh.names)} learnt tasks", "pass Learner.start(...)"
        raise InputError(message("fresh bank", got=got, expected="none", fix=fix))
    return steady(Path(folder, manifest.FILE), lambda: _loaded(opened_for(folder, learner, fresh), learner, fresh))


def _loaded(store: Checkpoint, learner: Learner | ShareLearner, fresh: TaskBank) -> TaskBank:
    if not store.names:
        return fresh
    if holds_state(store):
        fix = "load it with share_jax.load_share_bank and a ShareLearner"
        got, what = "tasks that save_share_task saved", f"checkpoint folder {store.root}"
        raise FormatError(message(what, got=got, expected="tasks of save_bank", fix=fix))
    bank = learner.with_room(fresh, len(store.names))
    like = read_slot(bank.tasks, 0)
    slots = [_read(learner, store, name, like) for name in store.names]
    return TaskBank(_read(learner, store, None, bank.shared), _begun(bank.tasks, slots), store.names)


def opened_for(folder: str | os.PathLike[str], learner: Learner | ShareLearner, bank: TaskBank) -> Checkpoint:
    """The folder's checkpoint, to read from.

    Raises:
        FormatError: if the folder is no checkpoint, or is another model's.
    """
    store = checkpoint.open_checkpoint(folder)
    manifest.check_identity(store.manifest.identity, _identity(learner, bank, store))
    return store


def _read(learner: Learner | ShareLearner, store: Checkpoint, name: str | None, like: Tree) -> Tree:
    """A task's slot, or what all tasks share; of an earlier bank in the shapes that the model's leaves have today."""
    model, record = as_adapted(learner.model), store.manifest.shared if name is None else store.record(name)
    earlier = {}
    if model.method is not None and record is not None:
        earlier = earlier_leaves(model.method, model.targets, learner.base["params"], record["leaves"], like)
    asked = as_saved(earlier, like) if earlier else like
    read = checkpoint.load_shared(store, asked) if name is None else checkpoint.load_task(store, name, asked)
    return as_today(earlier, read) if earlier else read


@contextmanager
def held_checkpoint(folder: Path, learner: Learner | ShareLearner, bank: TaskBank) -> Iterator[Checkpoint]:
    """The folder's checkpoint, new if there is none, held while it is used.

    Raises:
        BusyError: if another process saves into it.
        FormatError: if the folder holds something else, or is another model's.
    """
    with ExitStack() as held:
        on_primary(f"folder {folder}", lambda: _enter(held, folder))
        yield _opened(folder, learner, bank)


def begin_bank(folder: Path, learner: Learner | ShareLearner, bank: TaskBank, *, restart: bool = False) -> Checkpoint:
    """The folder's checkpoint, new if there is none; one that holds nothing yet becomes one of this learner.

    Args:
        folder: new, empty, or saved to before.
        learner: what learns.
        bank: its empty bank.
        restart: whether a training in flight of another learner is given up.

    Raises:
        BusyError: if another process saves into it.
        FormatError: if the folder holds something else, or tasks or a training in flight of another learner.
    """
    with hold(folder):
        if not manifest.exists(folder):
            return checkpoint.create(folder, _identity(learner, bank))
        store = checkpoint.open_checkpoint(folder)
        own = _identity(learner, bank, store)
        if not store.names and (restart or store.manifest.inflight is None) and store.manifest.identity != own:
            return checkpoint.committed(store, Manifest(own))
        return checkpoint.open_checkpoint(folder, own)


def _opened(folder: Path, learner: Learner | ShareLearner, bank: TaskBank) -> Checkpoint:
    """The folder's checkpoint, new if there is none."""
    if not agreed(manifest.exists(folder)):
        return checkpoint.create(folder, _identity(learner, bank))
    found = checkpoint.open_checkpoint(folder)
    return checkpoint.open_checkpoint(folder, _identity(learner, bank, found))


def _identity(learner: Learner | ShareLearner, bank: TaskBank, store: Checkpoint | None = None) -> Identity:
    """What the folder is for. Under which name is up to who made it: the fingerprint tells the model."""
    model, base = as_adapted(learner.model), dict(learner.base)
    params = base.pop("params", {})
    name = store.manifest.identity.model if store else model.name
    if model.method is not None:
        identity = manifest.identity_of(name, params, model)
    else:
        layers = sorted({path.rpartition("/")[0] for path in flat(bank.tasks)})
        method, found = {"name": "module", "module": model.name}, fingerprint(params)
        identity = Identity(name, found.whole, method, tuple(layers), (), leaves=found.leaves)
    drawn = {f"state/{path}" for path in getattr(model, "random_state", ())}
    others = {path: leaf for path, leaf in flat(base).items() if path not in drawn}
    if not others:
        return identity
    beside = fingerprint(others)
    whole, leaves = f"{identity.fingerprint} {beside.whole}", {**identity.leaves, **beside.leaves}
    return replace(identity, fingerprint=whole, leaves=leaves)


def _enter(held: ExitStack, folder: Path) -> None:
    """Looks at the folder before anything is written, and holds it."""
    if not manifest.exists(folder):
        manifest.check_free(folder)
    held.enter_context(hold(folder))


def _check_global(bank: TaskBank) -> None:
    """Refuses arrays of one process alone, of which Orbax knows not which process has the right ones.

    Raises:
        InputError: naming one.
    """
    if jax.process_count() == 1:
        return
    for path, leaf in flat({"shared": bank.shared, "tasks": bank.tasks}).items():
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            expected = "an array of all processes"
            fix = "place the bank on a mesh of all devices with share_jax.sharding.placement.put"
            raise InputError(message(f"{path} of the bank", got="one of a process alone", expected=expected, fix=fix))


def _new_names(store: Checkpoint, bank: TaskBank) -> tuple[str, ...]:
    """The tasks that are not saved yet.

    Raises:
        TaskError: if the saved ones are not those that the bank begins with.
    """
    count = len(store.names)
    if store.names != bank.names[:count]:
        got, fix = f"tasks {list(store.names)}", "save this bank into another folder"
        where = f"checkpoint folder {store.root}"
        raise TaskError(message(where, got=got, expected=f"the first of {list(bank.names)}", fix=fix))
    return bank.names[count:]


def _check_infos(store: Checkpoint, infos: Mapping[str, Json], new: Sequence[str]) -> None:
    """Refuses an info of an unknown task, and a changed info of a saved one.

    Raises:
        TaskError: naming the task.
        InputError: if an info is no JSON.
    """
    for name, info in infos.items():
        own = before_saving.as_json(info, f"task {name!r}")
        if name in new or (name in store.names and json.loads(json.dumps(own)) == store.info(name)):
            continue
        got = f"a changed info of saved task {name!r}" if name in store.names else f"an info of unknown task {name!r}"
        fix = "share_jax.checkpoint.checkpoint.note replaces what is noted beside a saved task"
        raise TaskError(message("info of a task", got=got, expected=f"one of new tasks {list(new)}", fix=fix))


def _check_unchanged(store: Checkpoint, bank: TaskBank) -> None:
    """Refuses a bank in which a saved task, or what all share, has other values.

    Raises:
        InputError: naming the first leaf that is not as it was saved.
    """
    parts = {f"task {name!r}": (store.record(name), read_slot(bank.tasks, i)) for i, name in enumerate(store.names)}
    if store.manifest.shared is not None:
        parts["the shared tree"] = (store.manifest.shared, bank.shared)
    for what, (record, tree) in parts.items():
        for path, own in arrays.digests(tree).items():
            if record["leaves"].get(path, {}).get("sha256") != own:
                got, fix = "other values than were saved", "save this bank into another folder"
                expected = "those saved: a learnt task does not change"
                raise InputError(message(f"leaf {path} of {what}", got=got, expected=expected, fix=fix))


def _begun(tasks: Tree, slots: Sequence[Tree]) -> Tree:
    """The stack with its first slots replaced."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *slots)
    return jax.tree.map(lambda own, stack: jnp.concatenate([own, stack[len(slots) :]]), stacked, tasks)
