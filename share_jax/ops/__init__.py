"""Products that XLA and Pallas run: low-rank updates, merged kernels, batches of several tasks."""

from share_jax.runtime.lazy_import import submodules

__getattr__ = submodules(__name__)
