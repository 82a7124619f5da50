"""How a target's update is parameterised: `SharedA`, `SeparateLoRA`, `Share`."""

from share_jax.runtime.lazy_import import submodules

__getattr__ = submodules(__name__)
