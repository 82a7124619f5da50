"""The method on host arrays: one orthonormal subspace per target that evolves as adapters arrive."""

from share_jax.runtime.lazy_import import submodules

__getattr__ = submodules(__name__)
