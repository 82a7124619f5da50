"""A bank on disk: one Orbax folder per task, a checksummed manifest, and repair of what is damaged."""

from share_jax.runtime.lazy_import import submodules

__getattr__ = submodules(__name__)
