"""Groups of adapters that began with one random A, told from A alone."""

import numpy as np
import pytest

from share_jax.adapters.factors import Factors
from share_jax.adapters.shared_starts import find_starts, sample_of

D_IN, D_OUT = 64, 8
TARGETS = ("q", "k", "v", "o")


def started(seed, drift=0.3, own=0, rank=4, targets=TARGETS, scale=1.0, dtype=np.float32):
    """An adapter whose A is the random start `seed` and a drift of its own, relative to the start's length."""
    rng, moved = np.random.default_rng((1, seed)), np.random.default_rng((2, seed, own))
    out = {}
    for name in TARGETS:
        a = rng.normal(size=(D_IN, rank)) + drift * moved.normal(size=(D_IN, rank))
        if name in targets:
            out[name] = Factors((scale * a).astype(dtype), moved.normal(size=(rank, D_OUT)).astype(dtype))
    return out


def groups(*adapters):
    return find_starts([sample_of(adapter) for adapter in adapters])


def test_adapters_of_one_start_are_a_group_and_others_stand_alone():
    found = groups(started(0), started(1), started(0, own=1), started(2), started(1, own=1), started(0, own=2))
    assert found.groups == ((0, 2, 5), (1, 4))
    assert found.alone == (3,)
    assert found.divided
    # |A_0|^2 / |A|^2 with a drift of 0.3
    assert found.cosines == pytest.approx([1 / 1.09] * 2, abs=0.03)


def test_all_of_one_start_are_one_group_and_independent_ones_none():
    found = groups(*(started(0, own=i) for i in range(5)))
    assert (found.groups, found.alone, found.divided) == (((0, 1, 2, 3, 4),), (), False)
    found = groups(*(started(i) for i in range(40)))
    assert (found.groups, found.divided) == ((), False)
    assert found.alone == tuple(range(40))


def test_a_drift_as_long_as_the_start_still_shows():
    found = groups(started(0, drift=1.0), started(0, drift=1.0, own=1), started(1, drift=1.0))
    assert found.groups == ((0, 1),)


@pytest.mark.parametrize("width", [4, 6, 12])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_a_shared_subspace_is_no_shared_start(width, rank):
    """Each adapter spans part of the same few directions in a gauge of its own."""
    spans = {name: np.random.default_rng(i).normal(size=(D_IN, width)) for i, name in enumerate(TARGETS)}
    adapters = []
    for t in range(20):
        rng = np.random.default_rng((3, t))
        pairs = {n: (x @ rng.normal(size=(width, rank)), rng.normal(size=(rank, D_OUT))) for n, x in spans.items()}
        adapters.append({name: Factors(a, b) for name, (a, b) in pairs.items()})
    assert groups(*adapters).groups == ()


def test_scale_dtype_and_missing_targets_do_not_matter():
    found = groups(
        started(0), started(0, own=1, scale=1e-4), started(0, own=2, dtype=np.float16),
        started(0, own=3, targets=TARGETS[:2]), started(1, targets=TARGETS[2:]),
    )  # fmt: skip
    assert found.groups == ((0, 1, 2, 3),)
    assert found.alone == (4,)


def test_another_rank_or_no_common_target_is_another_start():
    found = groups(started(0), started(0, own=1, rank=6), started(0, own=2, targets=("q",)))
    assert found.groups == ((0, 2),)
    found = groups(started(0, targets=("q",)), started(0, own=1, targets=("k",)))
    assert found.groups == ()


def test_an_a_of_zeros_tells_nothing():
    zero = {"q": Factors(np.zeros((D_IN, 4)), np.ones((4, D_OUT)))}
    assert groups(zero, zero).groups == ()
    assert groups().groups == ()


def test_copies_of_tiny_adapters_are_found():
    tiny = {"q": Factors(np.array([[1.0, -2.0]]), np.ones((2, 3)))}
    assert groups(tiny, tiny).groups == ((0, 1),)
