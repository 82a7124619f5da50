"""Principal angles against constructions whose angles are known."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from share_jax import linalg

QUICK = settings(deadline=None, max_examples=15, derandomize=True)


@QUICK
@given(
    angles=st.lists(st.floats(0, np.pi / 2), min_size=1, max_size=5),
    extra=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_angles_are_those_the_subspaces_were_made_with(angles, extra, seed):
    rng = np.random.default_rng(seed)
    k = len(angles)
    frame = np.linalg.qr(rng.standard_normal((2 * k + extra + 1, 2 * k + extra)))[0]
    x = frame[:, :k]
    y = x * np.cos(angles) + frame[:, k : 2 * k] * np.sin(angles)
    wide = np.concatenate([x, frame[:, 2 * k :]], axis=1) @ np.linalg.qr(rng.standard_normal((k + extra,) * 2))[0]
    for one, other in ((wide, y), (y, wide)):
        found = linalg.principal_angles(one.astype(np.float32), other.astype(np.float32))
        np.testing.assert_allclose(found, np.sort(angles), atol=2e-5)
        cosines = linalg.principal_cosines(one.astype(np.float32), other.astype(np.float32))
        np.testing.assert_allclose(cosines, np.cos(np.sort(angles)), atol=2e-5)


def test_a_tiny_angle_is_not_lost_in_the_cosine():
    x = np.eye(4, dtype=np.float32)[:, :1]
    y = np.asarray([[1.0], [1e-5], [0.0], [0.0]], np.float32)
    np.testing.assert_allclose(linalg.principal_angles(x, y), [1e-5], rtol=1e-3)
