"""Floor 0: arrays in, arrays out. Bases of stacks of columns, their ranks, updates and angles; batched."""

from share_jax.linalg.angles import principal_angles, principal_cosines
from share_jax.linalg.basis import (
    Spectrum,
    dense_basis,
    numerical_rank,
    orthonormal,
    rank_tolerance,
)
from share_jax.linalg.choice import k_by_explained_variance, k_by_relative_error, tail_energies
from share_jax.linalg.gram import gram_basis, symmetric_basis
from share_jax.linalg.incremental import coefficient_root, compressed_stack, incremental_basis, rotate
from share_jax.linalg.products import product, transpose, working

__all__ = [
    "Spectrum",
    "coefficient_root",
    "compressed_stack",
    "dense_basis",
    "gram_basis",
    "incremental_basis",
    "k_by_explained_variance",
    "k_by_relative_error",
    "numerical_rank",
    "orthonormal",
    "principal_angles",
    "principal_cosines",
    "product",
    "rank_tolerance",
    "rotate",
    "symmetric_basis",
    "tail_energies",
    "transpose",
    "working",
]
