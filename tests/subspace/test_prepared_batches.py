"""Adapters that are held between two passes give the bits of adapters that are read twice."""

import numpy as np
import pytest

from share_jax.adapters.factors import Adapter, Factors
from share_jax.subspace import initialization as module
from share_jax.subspace.accumulate import sketch_of
from share_jax.subspace.factor_columns import Columns
from share_jax.subspace.initialization import chunks, initialize_stream
from share_jax.subspace.prepared_batches import PreparedBlocks, prepared
from share_jax.subspace.projection import project_columns
from share_jax.subspace.rank_choice import Choice


def adapters(count: int = 7) -> list[tuple[str, Adapter]]:
    """Ranks 1 to 3, and one target that not every task has."""
    rng = np.random.default_rng(0)

    def pair(rank: int) -> Factors:
        a, b = rng.normal(size=(10, rank)), rng.normal(size=(rank, 6))
        return Factors(a.astype(np.float32), b.astype(np.float32), 0.5)

    made: list[tuple[str, Adapter]] = []
    for number in range(count):
        targets = ("q", "v") if number % 2 else ("q",)
        made.append((f"t{number}", {name: pair(1 + number % 3) for name in targets}))
    return made


@pytest.mark.parametrize("choice", [Choice(k=4), Choice(max_error=0.3)], ids=["k", "max_error"])
def test_held_and_read_anew_are_the_same(monkeypatch: pytest.MonkeyPatch, choice: Choice) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 0)
    found, passes = [], []
    for limit in (2**20, 0, 700):  # all, none, and what no longer fits after some blocks
        reads = []

        def read(reads: list = reads) -> list[tuple[str, Adapter]]:
            reads.append(1)
            return adapters()

        monkeypatch.setattr(module, "PreparedBlocks", lambda limit=limit: PreparedBlocks(limit))
        found.append(initialize_stream(read, choice, chunk=2))
        passes.append(len(reads))
    assert passes[0] == 1
    assert passes[1] == passes[2] > 1
    for other in found[1:]:
        assert other.tasks == found[0].tasks
        for name, layer in found[0].layers.items():
            for field in ("basis_a", "basis_b", "coeff_a", "coeff_b", "ranks", "norm", "change", "bound"):
                np.testing.assert_array_equal(getattr(other.layers[name], field), getattr(layer, field), err_msg=field)


def test_a_held_block_is_balanced_once() -> None:
    held, block = PreparedBlocks(), (["x"], [dict(adapters(3)[2][1])])
    assert list(held.first([block])) == [block]
    first = held.prepare(block[1], ["q"], 1)
    assert held.prepare(block[1], ["q"], 3) is first
    wider = held.prepare(block[1], ["q"], 5)
    assert wider[0].a.shape[-1] == 5
    np.testing.assert_array_equal(wider[1].a, prepared(block[1], ["q"], 5)[1].a)
    assert held.again(lambda: pytest.fail("read again")) == [block]


@pytest.mark.parametrize(("block_bytes", "sizes"), [(0, [2, 2, 2, 1]), (2**20, [7]), (500, [2, 3, 2])])
def test_blocks_are_of_so_many_adapters_or_of_more_that_are_small(
    monkeypatch: pytest.MonkeyPatch, block_bytes: int, sizes: list[int]
) -> None:
    """Of ranks 1, 2, 3 in turn, of 64 bytes a column and target; every other adapter has two targets."""
    monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)
    blocks = list(chunks(adapters(), 2))
    assert [len(names) for names, _ in blocks] == sizes
    assert [name for names, _ in blocks for name in names] == [name for name, _ in adapters()]
    assert all(len(names) == len(some) for names, some in blocks)


def test_what_balancing_found_out_stands_for_what_projecting_would_compute_anew() -> None:
    ((names, some),) = chunks(adapters(), 7)
    state = initialize_stream(lambda: zip(names, some, strict=True), Choice(k=3))
    packed, columns = prepared(some, ["q"], 1)
    assert columns.known is not None
    layer = state.layers["q"]
    (short,), (whole,) = (project_columns([layer], packed, x) for x in (columns, Columns(columns.a, columns.b)))
    for field in ("coeff_a", "coeff_b", "ranks", "norm", "change", "bound"):
        np.testing.assert_array_equal(getattr(short, field), getattr(whole, field), err_msg=field)
    for field in ("energy_a", "energy_b"):
        np.testing.assert_allclose(getattr(short, field), getattr(whole, field), rtol=2e-7, err_msg=field)


def test_a_sketch_knows_the_energy_of_the_columns_that_it_keeps() -> None:
    ((_, some),) = chunks(adapters(), 7)
    sketch = sketch_of([some[:3], some[3:]])
    for side in sketch.sides.values():
        assert side.gram is None or not side.columns or side.energy < np.trace(side.finished().gram)
        kept = sum(float(np.sum(x.astype(np.float64) ** 2)) for x in side.columns)
        np.testing.assert_allclose(side.energy, kept, rtol=2e-7)
