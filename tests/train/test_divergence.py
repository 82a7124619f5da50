"""The first loss that is not finite is found, with its own step, without waiting for the device at every step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from share_jax.train.divergence import LossWatch, not_finite


@pytest.mark.parametrize("bad", [1, 2, 7, 8, 9, 16, 23, 24, 25])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_bad_loss_is_found_with_its_step_and_note(bad: int, value: float) -> None:
    watch = LossWatch(behind=4)
    found = None
    for step in range(1, 26):
        loss = jnp.float32(value if step >= bad else 1.0)
        found = watch.add(step, loss, f"note {step}")
        if found is not None:
            assert step - bad < 2 * 4
            break
    found = watch.drain() if found is None else found
    assert found is not None
    assert (found.step, found.note) == (bad, f"note {bad}")
    assert not np.isfinite(found.loss)


def test_good_losses_are_passed_over() -> None:
    watch = LossWatch(behind=4)
    assert all(watch.add(step, jnp.float32(step)) is None for step in range(1, 30))
    assert watch.drain() is None
    assert watch.drain() is None


def test_losses_are_read_in_groups_and_never_the_last_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was just dispatched is never waited for: whatever is read lies at least `behind` steps back."""
    read: list[list[float]] = []
    get = jax.device_get

    def counted(losses: list) -> list:
        read.append([float(loss) for loss in losses])
        return get(losses)

    monkeypatch.setattr(jax, "device_get", counted)
    watch = LossWatch(behind=4)
    for step in range(1, 21):
        before = len(read)
        watch.add(step, jnp.float32(step))
        for group in read[before:]:
            assert len(group) == 4
            assert max(group) <= step - 4
    assert len(read) == 4


def test_a_leaf_that_is_not_finite_is_named() -> None:
    tree = {"a": {"kernel": jnp.ones(3)}, "b": {"bias": jnp.zeros(2), "count": jnp.int32(3)}}
    assert not_finite(tree) is None
    assert not_finite({}) is None
    tree["b"]["bias"] = jnp.array([0.0, np.inf], jnp.bfloat16)
    assert not_finite(tree) == "b/bias"
