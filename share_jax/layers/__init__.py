"""The arithmetic of an adapted layer, whatever module system it is written in."""

from share_jax.runtime.lazy_import import submodules

__getattr__ = submodules(__name__)
