"""A Linen model as JAX traced it: how its program uses a kernel, and the update at the operations that read the kernel.

`views` follows a kernel through casts, transposes, reshapes and the slices of a scan; `reading` says which operations
read it, and along which axes; `kernels` is what these operations have in common; `updating` runs the program with a
task's update at them; `examples` finds the batch axis of what a model takes and returns, and runs a batch of different
tasks example by example. Modules mark their kernels in the program, so that layers which a vmap hides stand apart.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
