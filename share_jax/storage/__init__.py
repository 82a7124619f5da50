"""Files: atomic writes, locks, caches, safetensors, and paths that are not trusted."""

from share_jax.runtime.lazy_import import submodules

__getattr__ = submodules(__name__)
