"""Two forms must give the same numbers before either is timed."""

from typing import Any

import jax
import numpy as np

from share_jax.errors import ShareError, message

CLOSE = 1e-4
"""How far apart, of the largest number in each array: sums of some thousand float32 products in another order."""


def hold_equal(what: str, got: Any, want: Any, limit: float = CLOSE) -> None:
    """Compares two trees of one structure, leaf by leaf.

    Args:
        what: the form that is compared, for the error.
        got: what it gives.
        want: what the library's form gives.
        limit: largest difference, of the largest number of the leaf that is wanted.

    Raises:
        ShareError: they differ in structure or shape, or by more than the limit.
    """
    if jax.tree.structure(got) != jax.tree.structure(want):
        fix = "compare two forms of one function"
        raise ShareError(message(what, got=jax.tree.structure(got), expected=jax.tree.structure(want), fix=fix))
    for (path, mine), theirs in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True):
        left, right = (np.asarray(leaf, np.float64) for leaf in (mine, theirs))
        apart = np.abs(left - right).max() / max(np.abs(right).max(), 1e-30) if left.shape == right.shape else np.inf
        if not apart <= limit:
            where = f"{what}{jax.tree_util.keystr(path)}"
            fix = "fix the form: it is not the same function"
            raise ShareError(message(where, got=f"{apart:.2g} apart", expected=f"{limit:.0e} at most", fix=fix))
