"""Pretrained Flax models and their weights, strictly loaded."""

from share_jax.runtime.lazy_import import submodules

__getattr__ = submodules(__name__)
