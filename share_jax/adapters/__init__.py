"""LoRA adapters as data: factors by target, their stacks, arithmetic and similarity. NumPy alone."""

from share_jax.runtime.lazy_import import submodules

__getattr__ = submodules(__name__)
