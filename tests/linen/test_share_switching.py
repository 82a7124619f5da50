"""Properties 9, 10 and 12 for all three parameterisations on one model: switching tasks, mixing, counting bytes."""

from functools import cache

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapted_models import base_variables, normal, with_adapters

import share_jax
from share_jax.bank.accounting import bytes_on_disk
from share_jax.checkpoint import checkpoint as ckpt
from share_jax.checkpoint.manifest import COPY, FILE, identity_of

METHODS = (share_jax.SharedA(3), share_jax.SeparateLoRA(3), share_jax.Share(num_basis=4, pseudo_rank=2))
TASKS = 3


@cache
def prepared(method):
    """An adapted model with heads, its variables with every task's leaves drawn at random, and an input."""
    model = nn.Sequential([nn.Dense(12), nn.gelu, nn.Dense(12), nn.gelu, nn.Dense(5)])
    x = normal(6, 8)
    params = base_variables(model, x)["params"]
    adapted = share_jax.adapt(
        model, {"params": params}, x, targets="layers_[02]/kernel", heads="layers_4/.*", method=method
    )
    return adapted, with_adapters(adapted, {"params": params}, TASKS), x


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_property_9_there_and_back_gives_bitwise_the_same_logits(method) -> None:
    adapted, variables, x = prepared(method)
    run = jax.jit(lambda v, t: adapted.apply(v, x, task_id=t))
    first, other, again = (np.asarray(run(variables, jnp.int32(t))) for t in (0, 2, 0))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_property_10_a_mixed_batch_gives_each_its_own_and_changing_task_compiles_nothing(method) -> None:
    adapted, variables, x = prepared(method)
    chex.clear_trace_counter()
    apply = chex.assert_max_traces(n=2)(lambda v, t: adapted.apply(v, x, task_id=t))  # one scalar, one vector
    run = jax.jit(apply)
    alone = [np.asarray(run(variables, jnp.int32(t))) for t in range(TASKS)]
    for ids in ([2, 0, 1, 1, 0, 2], [0, 0, 0, 1, 2, 1]):
        mixed = np.asarray(run(variables, jnp.array(ids, jnp.int32)))
        for example, task in enumerate(ids):
            np.testing.assert_allclose(mixed[example], alone[task][example], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_property_12_stored_bytes_are_counted_from_files_and_cover_every_array(method, tmp_path) -> None:
    adapted, variables, _ = prepared(method)
    store = ckpt.create(tmp_path / "run", identity_of("toy", variables["params"], adapted))
    slots = [jax.tree.map(lambda leaf, t=t: leaf[t], variables["tasks"]) for t in range(TASKS)]
    for t, slot in enumerate(slots):
        store = ckpt.save_task(store, f"{t}", slot, {}, shared=variables["shared"] if t == 0 else None)
    whole = sum(file.stat().st_size for file in store.root.rglob("*") if file.is_file())
    parts = [bytes_on_disk(store.root / store.record(name)["path"]) for name in store.names]
    shared = bytes_on_disk(store.root / store.manifest.shared["path"]) if store.manifest.shared else 0
    assert bytes_on_disk(store.root) == whole
    manifests = [bytes_on_disk(store.root / name) for name in (FILE, COPY)]
    assert whole == sum(parts) + shared + sum(manifests)
    assert (shared > 0) == bool(variables["shared"])
