"""The quick look for NaN and infinity, against numpy's slow one."""

import ml_dtypes
import numpy as np
import pytest

from share_jax.linalg.finite import all_finite


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_value_anywhere_is_seen(dtype, bad: float) -> None:
    for place in ((0, 0), (3, 5), (6, 8)):
        values = np.ones((7, 9), dtype)
        assert all_finite(values)
        values[place] = bad
        for form in (values, values.T, values[::3, ::-1], np.asfortranarray(values)):
            assert all_finite(form) == np.isfinite(form.astype(np.float64)).all()


@pytest.mark.parametrize("values", [np.full(4, 1e38, np.float32), np.full(4, 1e308), np.zeros((0, 3)), np.float32(2)])
def test_large_and_no_values_are_finite(values: np.ndarray) -> None:
    assert all_finite(np.asarray(values))
