"""The process around the mathematics: threads, memory, several hosts, preemption, lazy imports."""

from share_jax.runtime.lazy_import import submodules

__getattr__ = submodules(__name__)
