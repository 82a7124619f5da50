"""A compressed set on disk: a folder of LoRA adapters in one subspace, with every adapter's error and bound."""

from share_jax.runtime.lazy_import import submodules

__getattr__ = submodules(__name__)
