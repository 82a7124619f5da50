"""The record that every room takes adapters as: what it takes, and what it refuses at the door."""

import jax.numpy as jnp
import numpy as np
import pytest

from share_jax.adapters.factors import Factors
from share_jax.adapters.similarity import cosine
from share_jax.errors import InputError
from share_jax.subspace.initialization import initialize
from share_jax.subspace.rank_choice import Choice

A, B = np.ones((4, 2), np.float32), np.ones((2, 3), np.float32)


@pytest.mark.parametrize("scale", [2, 0.5, np.float32(0.5), np.int64(2), jnp.float32(0.5)])
def test_a_scale_is_any_number(scale):
    assert Factors(A, B, scale).shape == (4, 3)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ((A.tolist(), B), "lora_a: got list, expected an array of floats"),
        ((A, B.astype(complex)), "lora_b: got dtype complex128"),
        ((A, B, "2"), "scale: got str '2', expected a number"),
        ((A, B, float("inf")), "scale: got a NaN or an infinity"),
        ((A[:0], B), r"factors: got shapes \(0, 2\)"),
        ((A, B.T), "factors: got shapes"),
    ],
)
def test_what_is_no_pair_of_matrices_is_refused_in_one_line(given, line):
    with pytest.raises(InputError, match=line) as told:
        Factors(*given)
    assert "\n" not in str(told.value)


def test_an_adapter_without_targets_or_of_rank_zero_is_one_of_zeros():
    assert initialize({"none": {}}, Choice(max_error=0.1)).tasks == ("none",)
    none = {"q": Factors(A[:, :0], B[:0])}
    np.testing.assert_array_equal(cosine([none, none]), np.zeros((2, 2)))
