"""Meshes of devices, where arrays lie on them, and batches in parts."""

from share_jax.runtime.lazy_import import submodules

__getattr__ = submodules(__name__)
