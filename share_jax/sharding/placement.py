"""Arrays onto a mesh, on one process or many: who reads which examples, and who puts what where."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from share_jax.errors import InputError, message
from share_jax.sharding.layout import Layout
from share_jax.sharding.microbatches import batch_size, check_divides
from share_jax.typing import Array


def put(tree: Any, shardings: Any) -> Any:
    """Arrays that every process has whole, where `shardings` say; no process sends anything.

    Args:
        tree: numpy or jax arrays, equal on every process, or already on a mesh of all processes.
        shardings: a tree of `NamedSharding` of the same structure, as a `Layout` makes it.
    """
    return jax.tree.map(_put, tree, shardings)


def _put(leaf: Any, sharding: NamedSharding) -> Array:
    on_mesh = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
    if jax.process_count() == 1 or on_mesh:
        return jax.device_put(leaf, sharding)
    if is_key(leaf):
        data = _put(np.asarray(jax.random.key_data(leaf)), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def is_key(leaf: Any) -> bool:
    """Whether a leaf is a typed key, which neither NumPy nor a file takes as it is.

    >>> is_key(jax.random.key(0)), is_key(jnp.zeros(2))
    (True, False)
    """
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def local_rows(layout: Layout, size: int) -> np.ndarray:
    """Which examples of a global batch this process has to feed, in order: int64 (rows,).

    With weights split over processes (`tensor`) several processes feed the same ones.

    Args:
        layout: the mesh and rules.
        size: examples in the global batch.

    Raises:
        InputError: if the batch does not divide.
    """
    check_divides("examples in a batch", size, layout.batch_parts, "change the batch size or the mesh")
    where = layout.named(layout.rules["batch"]).addressable_devices_indices_map((size,))
    rows = [np.arange(size)[index] for index in where.values() if index is not None]
    return np.unique(np.concatenate(rows))


def local_part(layout: Layout, batch: Any) -> Any:
    """The examples that this process feeds, of a batch that it has whole; scalars as they are."""
    rows = local_rows(layout, batch_size(batch))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[rows] if leaf.ndim else leaf, batch)


def feed(layout: Layout, local: Any, size: int) -> Any:
    """A global batch out of the examples that each process has read.

    Args:
        layout: the mesh and rules.
        local: this process's examples, those of `local_rows`; scalars are equal on every process.
        size: examples in the global batch.

    Raises:
        InputError: if these are not as many examples as this process has to feed.
    """
    rows = len(local_rows(layout, size))
    if (got := batch_size(local)) != rows:
        fix = "read the rows that share_jax.sharding.placement.local_rows returns"
        raise InputError(message("examples of this process", got=got, expected=f"{rows} of {size}", fix=fix))
    split, whole = layout.named(layout.rules["batch"]), layout.named()

    def leaf(array: Any) -> Array:
        array = np.asarray(array)
        if not array.ndim:
            return _put(array, whole)
        return jax.make_array_from_process_local_data(split, array, (size, *array.shape[1:]))

    return jax.tree.map(leaf, local)


def put_batch(layout: Layout, batch: Any) -> Any:
    """A batch that every process has whole, each feeding its own examples of it.

    Args:
        layout: where arrays lie.
        batch: a tree of arrays (batch, ...) and scalars.

    Example:
        >>> from share_jax.sharding import MeshShape, layout_of, make_mesh
        >>> layout = layout_of(make_mesh(MeshShape(data=jax.device_count())), {"kernel": np.ones((8, 16))})
        >>> batch = put_batch(layout, {"inputs": np.ones((jax.device_count(), 8)), "classes": np.int32(3)})
        >>> tuple(batch["inputs"].sharding.spec), tuple(batch["classes"].sharding.spec)
        ((('data', 'fsdp'),), ())
    """
    return feed(layout, local_part(layout, batch), batch_size(batch))


def put_base(layout: Layout, variables: Any) -> Any:
    """The base variables, sharded.

    Args:
        layout: where arrays lie.
        variables: {"params": ..., ...}, whole on every process.

    Example:
        >>> from share_jax.sharding import MeshShape, layout_of, make_mesh
        >>> params = {"kernel": np.ones((8, 16))}
        >>> layout = layout_of(make_mesh(MeshShape(data=jax.device_count())), params)
        >>> tuple(put_base(layout, {"params": params})["params"]["kernel"].sharding.spec)
        ('fsdp', 'tensor')
    """
    return put(dict(variables), layout.base(variables))


def put_state(layout: Layout, state: Any) -> Any:
    """A `StepState`, sharded.

    Args:
        layout: where arrays lie.
        state: from `init_state`, whole on every process.

    Example:
        >>> import optax
        >>> from share_jax.sharding import MeshShape, layout_of, make_mesh
        >>> from share_jax.train.step import init_state
        >>> layout = layout_of(make_mesh(MeshShape(data=jax.device_count())), {"kernel": np.ones((8, 16))})
        >>> slot = {"lora_b": jnp.ones((4, 16))}
        >>> state = put_state(layout, init_state({}, slot, optax.sgd(0.1), jax.random.key(0)))
        >>> tuple(state.slot["lora_b"].sharding.spec)
        (None, 'tensor')
    """
    return put(state, layout.state(state))
