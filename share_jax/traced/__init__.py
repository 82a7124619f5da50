"""Adapting any function: its kernels are found, and adapted, where its traced program uses them.

`interpreter` runs a program again and follows kernels through it, each as a `kernel_view`; `operations` records how one
is used, by `products` and by `lookups` (and convolutions). `discover` asks for all uses in an abstract evaluation,
`evaluate` adds the update at them, `mixed_batch` maps over examples that have tasks of their own. `adapted_function` is
the adapted model; `pytree_model` makes one of any function of a tree of parameters. No module class is known here:
`share_jax.nnx` hands its modules over as functions.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
