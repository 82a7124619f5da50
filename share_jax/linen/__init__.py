"""The seam to Flax Linen: modules, and adapting an unmodified model."""

from share_jax.runtime.lazy_import import submodules

__getattr__ = submodules(__name__)
