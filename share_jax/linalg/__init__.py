"""Arrays in, arrays out: bases of stacks of columns, their ranks, updates and angles; batched."""

from share_jax.runtime.lazy_import import submodules

_HOME = {
    "principal_angles": "angles",
    "principal_cosines": "angles",
    "Spectrum": "basis",
    "dense_basis": "basis",
    "numerical_rank": "basis",
    "orthonormal": "basis",
    "rank_tolerance": "basis",
    "k_by_explained_variance": "rank_selection",
    "k_by_relative_error": "rank_selection",
    "tail_energies": "rank_selection",
    "gram_basis": "gram",
    "symmetric_basis": "gram",
    "coefficient_root": "incremental",
    "compressed_stack": "incremental",
    "incremental_basis": "incremental",
    "rotate": "incremental",
    "product": "products",
    "transpose": "products",
    "working": "products",
}

__getattr__ = submodules(__name__, _HOME)
