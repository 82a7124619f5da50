"""Adapting any function: its kernels are found, and adapted, where its traced program uses them.

`interpreter` runs or reads a program and follows kernels through it, each as a `kernel_view`, and tells a `visitor`;
`kernel_flow` has the operations that leave it one, `joined` those that put several into one array, and `dequantizing`
the codes of a quantised one. `operations` records how one is used, by `dense_product` and by `lookups` (and
convolutions). `discover` notes all uses without computing, `program_output` adds the update at them. `per_example` maps
over examples that have tasks of their own; `batch_axis` finds their axis first. `example_axes` follows it through a
program, by the `axis_rules` of operations, and says which `places` examples have in a value. `agreement` is what all
uses of a kernel of a Linen model have in common; `example_flags` keeps the flags of the example call.
`adapted_function` is the adapted model of all other functions; `pytree_model` makes one of any function of a tree of
parameters. No module class is known here: `share_jax.nnx` and `share_jax.linen` hand theirs over as functions.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
