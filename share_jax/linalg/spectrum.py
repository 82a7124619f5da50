"""Which path takes the spectrum of a group of stacks; the answers do not depend on it beyond rounding."""

from collections.abc import Sequence
from typing import NamedTuple, TypeGuard

import numpy as np
from jaxtyping import Float, Int

from share_jax.adapters.stacking import bucket, pad
from share_jax.linalg.randomized_svd import OVERSAMPLE, TOGETHER, energy_of, leading_bases, leading_eigenvectors
from share_jax.runtime.threads import each

DENSE_UP_TO = 128
"""Up to this many columns or rows one SVD costs no more than its detours."""


class Spectra(NamedTuple):
    """Per layer: an orthonormal basis, its singular values, the stack's energy and its numerical rank."""

    basis: Float[np.ndarray, "L d m"]
    singular_values: Float[np.ndarray, "L m"]
    energy: Float[np.ndarray, " L"]
    rank: Int[np.ndarray, " L"]


def spectra_of_stacks(stack: Float[np.ndarray, "L d n"], *, k: int | None = None, seed: int = 0) -> Spectra:
    """Spectra of stacks of columns: all of it, or the leading part if only `k` columns will be kept.

    Small stacks go through the dense SVD, a few columns of a large one through the randomised path, the whole of a
    large one through its Gram matrix. Zero columns are padding and count for nothing.
    """
    _, d, n = stack.shape
    smaller = min(d, n)
    if few(k, smaller):
        parts = leading_spectra([[x] for x in stack], k=k, seed=seed)
        return Spectra(*(np.concatenate(x) for x in zip(*parts, strict=True)))
    energy = np.einsum("ldn,ldn->l", stack, stack, dtype=np.float64, optimize=False)
    if smaller <= DENSE_UP_TO:
        found = each(lambda x: np.linalg.svd(x, full_matrices=False)[:2], list(stack))
        return _ranked(np.stack([u for u, _ in found]), np.stack([s for _, s in found]), energy, smaller)
    from share_jax.linalg.gram import gram_basis

    whole = gram_basis(pad(stack, 2, bucket(n)))
    return _ranked(np.asarray(whole.basis), np.asarray(whole.singular_values), energy, smaller)


def leading_spectra(
    stacks: Sequence[Sequence[Float[np.ndarray, "d _"]]],
    *,
    k: int,
    seed: int = 0,
    energies: Sequence[float] | None = None,
) -> list[Spectra]:
    """The leading parts of the spectra of stacks of one shape and dtype, whose columns come in parts.

    A few stacks at a time are taken together; a stack's result does not depend on which. Each has a layer axis of 1.

    Args:
        stacks: the parts of each.
        k: columns that will be kept.
        seed: of the range finder.
        energies: the stacks' squared norms, where they are known.
    """
    blocks = [slice(start, start + TOGETHER) for start in range(0, len(stacks), TOGETHER)]
    some = each(lambda of: _leading(stacks[of], None if energies is None else energies[of], k, seed), blocks)
    return [found for block in some for found in block]


def _leading(
    block: Sequence[Sequence[np.ndarray]], energies: Sequence[float] | None, k: int, seed: int
) -> list[Spectra]:
    whole = [parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1) for parts in block]
    energies = [energy_of(x) for x in whole] if energies is None else energies
    found = leading_bases(whole, k=k, seed=seed, energies=energies)
    smaller = min(whole[0].shape)
    return [
        _ranked(basis[None], values[None], np.array([energy]), smaller)
        for (basis, values), energy in zip(found, energies, strict=True)
    ]


def spectra_of_grams(
    grams: Float[np.ndarray, "L d d"] | Sequence[Float[np.ndarray, "d d"]], *, k: int | None = None, seed: int = 0
) -> Spectra:
    """The same from the (d, d) Gram matrices X @ X.T of stacks too wide to keep, in float64 throughout."""
    d = grams[0].shape[-1]
    energy = np.array([np.trace(x) for x in grams])
    if few(k, d):
        found = each(lambda x: leading_eigenvectors(x, k=k, seed=seed), list(grams))
        basis, squares = (np.stack(x) for x in zip(*found, strict=True))
        values = np.sqrt(squares)
    else:
        import jax

        from share_jax.linalg.gram import symmetric_basis

        with jax.enable_x64(True):
            basis, values = (np.asarray(x) for x in symmetric_basis(np.asarray(grams)))
    return _ranked(basis.astype(np.float32), values.astype(np.float32), energy, d)


def few(k: int | None, of: int) -> TypeGuard[int]:
    """Whether k columns are so few of all that the range finder pays."""
    return k is not None and of > DENSE_UP_TO and 3 * (k + OVERSAMPLE) <= of


def _ranked(basis: np.ndarray, values: np.ndarray, energy: np.ndarray, smaller: int) -> Spectra:
    basis, values = basis[:, :, :smaller], values[:, :smaller]
    # the width of a stack grows with its tasks, its rounding does not: the rows alone set the tolerance
    d = basis.shape[1]
    floor = values.max(axis=1, keepdims=True, initial=0.0) * (d * np.finfo(np.float32).eps)
    return Spectra(basis, values, energy, np.sum(values > floor, axis=1))
