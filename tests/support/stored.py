"""A small checkpoint, and what it holds, for the tests of everything that can happen to one."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from share_jax.checkpoint import checkpoint as ckpt
from share_jax.checkpoint.manifest import Identity

IDENTITY = Identity("toy", "0" * 64, {"name": "shared_a", "rank": 2}, ("layer/kernel",), ("head/bias",))


def leaves(seed: int) -> dict:
    """A small nested tree with values that a wrong read would not have by chance."""
    draw = np.random.default_rng(seed).standard_normal
    return {
        "layer": {"lora_b": jnp.asarray(draw((2, 5)), jnp.float32)},
        "head": {"bias": jnp.asarray(draw(3), jnp.float32)},
    }


def like(tree: dict) -> dict:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def assert_same(got: dict, want: dict) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def fill(root: Path) -> ckpt.Checkpoint:
    """Two tasks, a shared tree, and training in flight, saved twice."""
    store = ckpt.create(root, IDENTITY)
    store = ckpt.save_inflight(store, leaves(9), {"task": "a", "step": 3})
    store = ckpt.save_task(store, "a", leaves(1), {"row": [0.5, None]}, shared=leaves(0))
    store = ckpt.save_task(store, "b", leaves(2), {"row": [0.25, 1.0]})
    store = ckpt.save_inflight(store, leaves(4), {"task": "c", "step": 6})
    return ckpt.save_inflight(store, leaves(3), {"task": "c", "step": 7})


def files_below(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


DAMAGES = ("truncate", "delete", "flip")


def harm(file: Path, damage: str) -> bytes:
    """Damages a file, and gives its whole content back."""
    whole = file.read_bytes()
    if damage == "truncate":
        file.write_bytes(whole[:-1])
    elif damage == "delete":
        file.unlink()
    else:
        place = int.from_bytes(file.name.encode(), "big") % len(whole)
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    return whole
