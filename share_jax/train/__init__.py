"""Learning tasks: steps, optimizers, losses, batches, and the `Learner`."""

from share_jax.runtime.lazy_import import submodules

__getattr__ = submodules(__name__)
