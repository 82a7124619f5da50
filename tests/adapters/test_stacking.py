"""Packed factors are those of each adapter, packed on all processors or in turn."""

import numpy as np
import pytest

from share_jax.adapters import stacking
from share_jax.adapters.factors import Factors
from share_jax.errors import InputError
from share_jax.runtime import threads


@pytest.fixture(params=[1, 2, 16], autouse=True)
def processors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(threads, "processors", lambda: request.param)
    return request.param


@pytest.mark.parametrize("ranks", [(4, 4, 4), (4, 2, None), (1, 3, 3)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("large", [0, 2**40])
def test_packed_factors_are_those_of_each_adapter(ranks, dtype, large, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacking, "LARGE", large)
    draw = np.random.default_rng(0).standard_normal
    scales = (1.7, -2.0, 0.0)
    adapters = [
        {n: Factors(draw((6, r)).astype(dtype), draw((r, 5)).astype(dtype), s) for n in "xy" if r is not None}
        for r, s in zip(ranks, scales, strict=True)
    ]
    packed = stacking.pack(adapters, ["x", "y"], columns=3)
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


@pytest.mark.parametrize("large", [0, 2**40])
def test_what_is_past_float32_is_named_wherever_it_stands(large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacking, "LARGE", large)
    small, huge = (Factors(np.full((6, 2), 1e30, np.float32), np.ones((2, 5), np.float32), s) for s in (1.0, 1e20))
    adapters = [{"x": small, "y": small}, {"x": small}, {"x": small, "y": huge}]
    with pytest.raises(InputError, match="factors of target y, adapter 3 of 3"):
        stacking.pack(adapters, ["x", "y"])
