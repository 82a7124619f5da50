"""The command `share-jax`: one file per command, and what commands share."""

from share_jax.runtime.lazy_import import submodules

__getattr__ = submodules(__name__)
