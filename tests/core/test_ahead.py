"""Work on all processors gives what it gives in turn: the order, the errors, and no more begun than is said."""

import threading

import numpy as np
import pytest

from share_jax.core import pack, parallel
from share_jax.core.fold import Factors


@pytest.fixture(params=[1, 2, 16], autouse=True)
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(parallel, "processors", lambda: request.param)
    return request.param


def test_results_come_in_order_and_few_are_begun_before_they_are_used(threads: int) -> None:
    begun: list[int] = []
    lock = threading.Lock()

    def work(piece: int) -> int:
        with lock:
            begun.append(piece)
        return piece * piece

    for used, result in enumerate(parallel.ahead(work, range(20))):
        assert result == used * used
        assert len(begun) <= used + 1 + min(threads, parallel.AHEAD)
    assert sorted(begun) == list(range(20))


def test_an_error_comes_in_its_place_and_nothing_after_it() -> None:
    def work(piece: int) -> int:
        if piece == 3:
            raise ValueError("three")
        return piece

    found = []
    with pytest.raises(ValueError, match="three"):
        found.extend(parallel.ahead(work, range(10)))
    assert found == [0, 1, 2]


def test_who_stops_early_waits_for_no_more_than_was_begun() -> None:
    results = parallel.ahead(lambda piece: piece, iter(range(10**9)))
    assert next(results) == 0
    results.close()


def test_nothing_gives_nothing() -> None:
    assert list(parallel.ahead(lambda piece: piece, [])) == []


@pytest.mark.parametrize("ranks", [(4, 4, 4), (4, 2, None), (1, 3, 3)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("large", [0, 2**40])
def test_packed_factors_are_those_of_each_adapter(ranks, dtype, large, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "LARGE", large)
    draw = np.random.default_rng(0).standard_normal
    scales = (1.7, -2.0, 0.0)
    adapters = [
        {n: Factors(draw((6, r)).astype(dtype), draw((r, 5)).astype(dtype), s) for n in "xy" if r is not None}
        for r, s in zip(ranks, scales, strict=True)
    ]
    packed = pack.pack(adapters, ["x", "y"], columns=3)
    for i, name in enumerate("xy"):
        for j, (adapter, scale) in enumerate(zip(adapters, scales, strict=True)):
            if name not in adapter:
                assert not packed.a[i, j].any()
                assert not packed.b[i, j].any()
                assert packed.ranks[i, j] == 0
                continue
            rank = packed.ranks[i, j]
            half = np.float32(abs(scale) ** 0.5)
            want = adapter[name].lora_a.astype(np.float32) * half
            np.testing.assert_array_equal(packed.a[i, j, :, :rank], want)
            want = adapter[name].lora_b.T.astype(np.float32) * np.copysign(half, np.float32(scale))
            np.testing.assert_array_equal(packed.b[i, j, :, :rank], want)
            assert not packed.a[i, j, :, rank:].any()
            assert not packed.b[i, j, :, rank:].any()
