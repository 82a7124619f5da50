"""What tasks own while they are learnt and served: names and slots, the router, and what it all costs."""

from share_jax.runtime.lazy_import import submodules

__getattr__ = submodules(__name__)
