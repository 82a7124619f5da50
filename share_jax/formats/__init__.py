"""Files of adapters that other tools write and read: PEFT, lorashare, vlora."""

from share_jax.runtime.lazy_import import submodules

__getattr__ = submodules(__name__)
