"""What a frozen prefix answers is kept to the bit, within its bound on memory, and found again on disk."""

import errno
import gc
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from share_jax import adapt
from share_jax.errors import InputError, LimitError, SaveError
from share_jax.linen.prefix import linen_prefix
from share_jax.train.learner import Learner
from share_jax.train.prefix_cache import PrefixCache

WIDTH, TOKENS = 48, 6


class Cut(nn.Module):
    """Three attention layers; `hidden` enters before the last one."""

    def setup(self):
        self.attend = [nn.MultiHeadDotProductAttention(4) for _ in range(2)]
        self.last, self.head = nn.Dense(WIDTH), nn.Dense(3)

    def prefix(self, x):
        for layer in self.attend:
            x = x + nn.gelu(layer(x))
        return x

    def __call__(self, x=None, hidden=None):
        hidden = self.prefix(x) if hidden is None else hidden
        return self.head((hidden + self.last(nn.gelu(hidden))).mean(axis=1))


def examples(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, TOKENS, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def variables():
    return Cut().init(jax.random.key(0), x=examples(1))


def cache(variables, **options):
    return PrefixCache(linen_prefix(Cut()), variables, rows=8, **options)


def test_kept_rows_are_those_of_the_prefix(variables):
    x = examples(21)
    kept = cache(variables).of({"x": x})
    assert kept.shape == x.shape
    np.testing.assert_allclose(kept, Cut().apply(variables, x, method="prefix"), rtol=1e-5, atol=1e-5)


def test_a_row_has_the_same_bits_in_any_batch(variables):
    """Rows computed anew for another choice of examples, at other places of the batch and with other neighbours."""
    x, own = examples(40), cache(variables)
    kept = own.of({"x": x})
    for seed in range(3):
        chosen = np.random.default_rng(seed).permutation(40)[:13]
        np.testing.assert_array_equal(kept[chosen], own.compute({"x": x[chosen]}))


def test_training_on_kept_rows_is_training_on_rows_computed_each_time_to_the_bit(variables):
    x, labels, own = examples(32), np.arange(32) % 3, cache(variables)
    kept = own.of({"x": x})
    adapted = adapt(Cut(), variables, hidden=kept[:4], targets="last/kernel", heads="head/.*")
    learner = Learner(adapted, variables, optax.adamw(1e-2))
    trees = adapted.init(jax.random.key(1), variables["params"], 1)
    order = np.random.default_rng(0).integers(32, size=(5, 4))

    def learn(hidden_of):
        batches = [{"inputs": {"hidden": hidden_of(chosen)}, "labels": labels[chosen]} for chosen in order]
        return learner.learn(learner.start(trees), "only", batches)

    one, other = learn(lambda chosen: kept[chosen]), learn(lambda chosen: own.compute({"x": x[chosen]}))
    jax.tree.map(np.testing.assert_array_equal, (one.shared, one.tasks), (other.shared, other.tasks))
    with pytest.raises(AssertionError):  # it did learn
        jax.tree.map(np.testing.assert_array_equal, one.tasks, learner.start(trees).tasks)


def test_files_hold_the_same_bits_and_are_found_again(variables, tmp_path):
    x = examples(21)
    want = cache(variables).of({"x": x})
    first = cache(variables, max_bytes=0, folder=tmp_path)
    kept = first.of({"x": x})
    assert isinstance(kept, np.memmap)
    assert first.held_bytes == 0
    np.testing.assert_array_equal(kept, want)
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 0
    again = cache(variables, max_bytes=0, folder=tmp_path)
    object.__setattr__(again, "_fill", None)  # whoever computes it anew fails
    np.testing.assert_array_equal(again.of({"x": x}), want)


@pytest.mark.parametrize("change", ["inputs", "variables", "rows", "function"])
def test_another_computation_is_another_file(variables, tmp_path, change):
    x = examples(9)
    cache(variables, max_bytes=0, folder=tmp_path).of({"x": x})
    prefix, rows = linen_prefix(Cut()), 8
    if change == "inputs":
        x = examples(9, seed=1)
    if change == "variables":
        variables = jax.tree.map(lambda leaf: leaf * 1.5, variables)
    if change == "rows":
        rows = 7
    if change == "function":
        prefix = lambda variables, inputs: 2 * linen_prefix(Cut())(variables, inputs)  # noqa: E731
    other = PrefixCache(prefix, variables, rows=rows, max_bytes=0, folder=tmp_path)
    np.testing.assert_array_equal(other.of({"x": x}), other.compute({"x": x}))
    assert len(list(tmp_path.glob("*.json"))) == 2


@pytest.mark.parametrize("damage", ["flip", "truncate", "no note", "empty note"])
def test_a_damaged_file_is_computed_again(variables, tmp_path, damage):
    x = examples(9)
    want = np.array(cache(variables, max_bytes=0, folder=tmp_path).of({"x": x}))
    (data,), (note,) = tmp_path.glob("*.bin"), tmp_path.glob("*.json")
    if damage == "flip":
        content = bytearray(data.read_bytes())
        content[100] ^= 1
        data.write_bytes(content)
    if damage == "truncate":
        data.write_bytes(data.read_bytes()[:-4])
    if damage == "no note":
        note.unlink()
    if damage == "empty note":
        note.write_text("")
    np.testing.assert_array_equal(cache(variables, max_bytes=0, folder=tmp_path).of({"x": x}), want)


def test_a_kill_while_a_file_is_written_leaves_nothing_that_counts(variables, tmp_path):
    x, failing = examples(9), cache(variables, max_bytes=0, folder=tmp_path)

    def stop(inputs, out):
        raise KeyboardInterrupt

    object.__setattr__(failing, "_fill", stop)
    with pytest.raises(KeyboardInterrupt):
        failing.of({"x": x})
    assert not list(tmp_path.iterdir())
    resumed = cache(variables, max_bytes=0, folder=tmp_path)
    np.testing.assert_array_equal(resumed.of({"x": x}), resumed.compute({"x": x}))


def test_memory_is_bounded_and_given_back(variables, tmp_path):
    size = examples(9).nbytes
    own = cache(variables, max_bytes=2 * size, folder=tmp_path)
    kept = [own.of({"x": examples(9, seed)}) for seed in range(3)]
    assert [isinstance(one, np.memmap) for one in kept] == [False, False, True]
    assert own.held_bytes == 2 * size
    part = kept[0][:1]  # a view keeps the whole
    del kept[0]
    gc.collect()
    assert own.held_bytes == 2 * size
    del part
    gc.collect()
    assert own.held_bytes == size
    assert not isinstance(own.of({"x": examples(9, 5)}), np.memmap)


def test_trees_in_and_out_and_bfloat16(tmp_path):
    def prefix(variables, inputs):
        x = inputs["x"] * variables
        return {"low": x.astype(jnp.bfloat16), "sum": x.sum(axis=(1, 2))}

    x = examples(5)
    own = PrefixCache(prefix, jnp.float32(3), rows=2, max_bytes=0, folder=tmp_path)
    kept = own.of({"x": x})
    assert kept["low"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(kept["low"], np.asarray(jnp.asarray(x * np.float32(3), jnp.bfloat16)))
    np.testing.assert_allclose(kept["sum"], 3 * x.sum(axis=(1, 2)), rtol=1e-5, atol=1e-4)


def test_refusals(variables):
    with pytest.raises(InputError, match="rows: got 0"):
        PrefixCache(linen_prefix(Cut()), variables, rows=0)
    with pytest.raises(InputError, match="max_bytes: got -1"):
        cache(variables, max_bytes=-1)
    with pytest.raises(InputError, match="inputs to cache: got leading sizes \\[0\\]"):
        cache(variables).of({"x": examples(0)})
    with pytest.raises(LimitError, match="raise max_bytes, or pass a folder"):
        cache(variables, max_bytes=10).of({"x": examples(9)})


def test_a_full_disk_is_one_line_and_leaves_nothing(variables, tmp_path, monkeypatch):
    def full(descriptor: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    kept = cache(variables, max_bytes=0, folder=tmp_path / "kept")
    with pytest.raises(SaveError, match=r"frozen prefix in .*: got No space left on device, expected room"):
        kept.of({"x": examples(5)})
    assert not list((tmp_path / "kept").iterdir())


def test_what_a_kill_left_long_ago_is_removed(variables, tmp_path):
    old, young = (tmp_path / f".{name}.tmp" for name in ("old", "young"))
    for path in (old, young):
        path.touch()
    os.utime(old, (0, 0))
    cache(variables, max_bytes=0, folder=tmp_path).of({"x": examples(5)})
    assert not old.exists()
    assert young.exists()
