"""Flax: modules, target patterns, and adapting an unmodified model."""

from share_jax.lazy import submodules

__getattr__ = submodules(__name__)
