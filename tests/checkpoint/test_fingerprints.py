"""The base model is hashed once for as long as its arrays live, and a mismatch names the parameter."""

import gc
import hashlib
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import share_jax
from share_jax.checkpoint import fingerprints, manifest
from share_jax.checkpoint.fingerprints import fingerprint
from share_jax.errors import FormatError

X = jnp.ones((4, 6))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many leaves every hashing of a tree took."""
    counts, original = [], fingerprints._hashed
    monkeypatch.setattr(fingerprints, "_hashed", lambda leaves: counts.append(len(leaves)) or original(leaves))
    return counts


def test_it_is_the_sha256_of_paths_shapes_types_and_bytes() -> None:
    tree = {"b": jnp.ones((2, 3), jnp.bfloat16), "a": {"k": np.arange(3)}}
    whole = hashlib.sha256()
    for path, leaf in (("a/k", np.arange(3)), ("b", np.asarray(tree["b"]))):
        whole.update(f"{path} {leaf.shape} {leaf.dtype}\n".encode())
        whole.update(leaf.tobytes())
    assert fingerprint(tree).whole == whole.hexdigest()
    assert list(fingerprint(tree).leaves) == ["a/k", "b"]


def test_a_tree_is_hashed_once_while_its_arrays_live_and_forgotten_after(hashed: list[int]) -> None:
    tree = {"a": jnp.arange(5.0), "b": {"c": jnp.ones(3)}}
    first = fingerprint(tree)
    assert fingerprint({"b/c": tree["b"]["c"], "a": tree["a"]}) is first
    assert hashed == [2]
    other = {**tree, "a": tree["a"] + 0}
    assert fingerprint(other) == first
    assert fingerprint({"a": tree["a"]}) != first
    assert hashed == [2, 2, 1]
    del tree, other
    gc.collect()
    last = {"z": jnp.zeros(1)}
    fingerprint(last)
    assert all(ref() is not None for known, _ in fingerprints._KNOWN for _, ref in known)


def test_arrays_that_can_change_are_hashed_at_every_call(hashed: list[int]) -> None:
    tree = {"a": np.ones(3)}
    before = fingerprint(tree)
    tree["a"][0] = 2
    assert fingerprint(tree) != before
    assert hashed == [1, 1]


def test_saving_and_loading_a_bank_again_and_again_hashes_the_base_once(hashed: list[int], tmp_path: Path) -> None:
    model = nn.Sequential([nn.Dense(8), nn.Dense(2)])
    params = model.init(jax.random.key(0), X)["params"]
    made = share_jax.adapt(model, {"params": params}, X, targets="layers_0/kernel", method=share_jax.SharedA(rank=2))
    learner = share_jax.Learner(made, {"params": params}, optax.adamw(1e-2))
    fresh = learner.start(made.init(jax.random.key(2), params, 1))
    for _ in range(3):
        share_jax.save_bank(tmp_path, learner, fresh)
        share_jax.load_bank(tmp_path, learner, fresh)
    assert hashed == [4]
    base = {**params, "layers_1": {**params["layers_1"], "bias": params["layers_1"]["bias"] + 1}}
    with pytest.raises(FormatError, match=r"checkpoint's fingerprint of layers_1/bias: got [0-9a-f]{8}, expected"):
        share_jax.load_bank(tmp_path, share_jax.Learner(made, {"params": base}, optax.adamw(1e-2)), fresh)


def test_manifests_with_the_whole_digest_alone_still_compare() -> None:
    tree = {"a": jnp.arange(4.0)}
    found = fingerprint(tree)
    now = manifest.Identity("m", found.whole, {}, (), (), leaves=found.leaves)
    manifest.check_identity(replace(now, leaves={}), now)
    with pytest.raises(FormatError, match="checkpoint's fingerprint: got 0000, expected "):
        manifest.check_identity(replace(now, fingerprint="0000", leaves={}), now)
    with pytest.raises(FormatError, match=r"fingerprint of a \(and 1 more\): got no such leaf"):
        manifest.check_identity(replace(now, fingerprint="0000", leaves={"b": "1"}), now)
