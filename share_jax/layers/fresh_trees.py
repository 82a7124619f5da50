"""Fresh `shared` and `tasks` trees for adapted kernels, and the slots that are read from them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from share_jax.bank.accounting import ParameterCounts, count, separate_lora_count
from share_jax.errors import InputError, message
from share_jax.layers.targets import Target
from share_jax.parameterizations.base import Parameterization
from share_jax.trees import flat, keys_of, nested, path_of
from share_jax.typing import Leaves, PRNGKey, Tree


def init_stack(method: Parameterization, key: PRNGKey, d_in: int, d_out: int, num_tasks: int) -> Leaves:
    """Fresh task leaves (T, ...), each task from a key of its own."""
    keys = jax.random.split(key, num_tasks)
    return jax.vmap(lambda one: method.init_task(one, d_in, d_out))(keys)


def fresh_trees(
    method: Parameterization,
    targets: Sequence[Target],
    heads: Sequence[str],
    key: PRNGKey,
    params: Tree,
    num_tasks: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The `shared` tree and the `tasks` tree of leaves (T, ...).

    Args:
        method: the parameterisation of each kernel's update.
        targets: the adapted kernels.
        heads: paths of the parameters that each task owns whole; they start as copies of the base model's.
        key: typed PRNG key.
        params: the base model's parameters.
        num_tasks: slots, T.

    Raises:
        InputError: if `num_tasks` is below 1, or `params` is not the tree that was adapted.
    """
    if num_tasks < 1:
        raise InputError(message("num_tasks", got=num_tasks, expected="at least 1", fix="pass the number of slots"))
    leaves = flat(params)
    missing = [path for path in heads if path not in leaves]
    if "params" in params or missing:  # Flax takes no layer of that name
        got = 'the tree {"params": ...}' if "params" in params else f"a tree without {missing[0]}"
        expected, fix = "the base model's parameters", 'pass variables["params"]'
        raise InputError(message("params", got=got, expected=expected, fix=fix))
    key_shared, key_tasks = jax.random.split(key)
    shared, tasks = {}, {}
    for index, target in enumerate(targets):
        d_in, d_out = target.d_in, target.d_out
        init_shared = partial(method.init_shared, d_in=d_in, d_out=d_out)
        one = _layers(target, jax.random.fold_in(key_shared, index), init_shared)
        shared |= {path_of((*target.leaves_path, name)): leaf for name, leaf in one.items()}
        init_tasks = partial(init_stack, method, d_in=d_in, d_out=d_out, num_tasks=num_tasks)
        stack = _layers(target, jax.random.fold_in(key_tasks, index), init_tasks)
        for name, leaf in stack.items():
            path = path_of((*target.leaves_path, name))
            tasks[path] = leaf if target.stacked is None else jnp.moveaxis(leaf, 0, 1)
    for path in heads:
        tasks[path] = jnp.repeat(jnp.asarray(leaves[path])[None], num_tasks, axis=0)
    return nested(shared), nested(tasks)


def _layers(target: Target, key: PRNGKey, init: Callable[[PRNGKey], Leaves]) -> Leaves:
    return init(key) if target.stacked is None else jax.vmap(init)(jax.random.split(key, target.stacked))


def counts_of(
    targets: Sequence[Target],
    heads: Sequence[str],
    params: Tree,
    trees: tuple[Tree, Tree],
    tasks: int,
    separate_rank: int,
) -> ParameterCounts:
    """Parameters from the real trees, against separate LoRAs on the same kernels.

    Args:
        targets: the adapted kernels.
        heads: paths of the parameters that each task owns whole.
        params: the base model's parameters.
        trees: `shared`, and `tasks` with leaves (T, ...).
        tasks: how many of the slots are counted.
        separate_rank: rank of the separate LoRAs.
    """
    shared, stack = trees[0], flat(trees[1])
    kernels = [(target.d_in, target.d_out) for target in targets for _ in range(target.stacked or 1)]
    return ParameterCounts(
        base=count(params) - sum(flat(params)[path].size for path in heads),
        shared=count(shared),
        per_task=sum(leaf[0].size for path, leaf in stack.items() if path not in heads),
        heads_per_task=sum(stack[path][0].size for path in heads),
        tasks=tasks,
        separate_per_task=separate_lora_count(kernels, separate_rank),
        head_sets=tasks,
    )


def without_leaves(tree: Tree, targets: Sequence[Target]) -> dict[str, Any]:
    """A tree of shared leaves without those of some targets."""
    places = {target.leaves_path for target in targets}
    return nested({path: leaf for path, leaf in flat(tree).items() if keys_of(path)[:-1] not in places})
