"""Numbers of a caller: what is taken as one, and what is refused in one line that names it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from share_jax.errors import InputError
from share_jax.number_checks import finite_number, positive_number, whole_number
from share_jax.parameterizations.share import Share, ShareAdapt
from share_jax.parameterizations.shared_a import SharedA


@pytest.mark.parametrize("four", [4, np.int64(4), np.array(4), jnp.asarray(4)])
def test_a_whole_number_is_taken_in_every_form_as_a_plain_one(four: object) -> None:
    assert type(whole_number("rank", four, 1)) is int
    assert whole_number("rank", four, 1) == 4


@pytest.mark.parametrize("half", [0.5, np.float32(0.5), np.array(0.5), jnp.float32(0.5)])
def test_a_finite_number_is_taken_in_every_form_as_a_plain_one(half: object) -> None:
    assert type(finite_number("alpha", half)) is float
    assert finite_number("alpha", half) == positive_number("alpha", half) == 0.5


@pytest.mark.parametrize("wrong", [0, -1, 1.0, True, "1", None, np.array([1]), float("nan")])
def test_what_is_no_whole_number_from_one_on_is_named(wrong: object) -> None:
    with pytest.raises(InputError, match=r"rank: got .*, expected a whole number of at least 1; correct rank"):
        whole_number("rank", wrong, 1)


@pytest.mark.parametrize("wrong", [0, True, "1", None, np.array([1.0]), float("nan"), float("inf"), 10**400, 1j])
def test_what_is_no_positive_finite_number_is_named(wrong: object) -> None:
    with pytest.raises(InputError, match=r"alpha: got .*, expected a finite number above 0; correct alpha"):
        positive_number("alpha", wrong)


def test_a_number_that_is_not_known_yet_is_named_too() -> None:
    for check in (lambda x: whole_number("rank", x, 1), lambda x: positive_number("alpha", x)):
        with pytest.raises(InputError, match=r"(rank|alpha): got "):
            jax.jit(check)(3)


def test_a_method_holds_plain_numbers_and_equals_one_that_was_given_them() -> None:
    four, eight = np.array(4), jnp.float32(8)
    for made, plain in (
        (SharedA(four, eight), SharedA(4, 8.0)),  # type: ignore[arg-type]
        (Share(four, four), Share(4, 4)),  # type: ignore[arg-type]
        (ShareAdapt(four, four, eight), ShareAdapt(4, 4, 8.0)),  # type: ignore[arg-type]
    ):
        assert made == plain
        assert hash(made) == hash(plain)
        assert repr(made) == repr(plain)
