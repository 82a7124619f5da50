"""The arithmetic of an adapted layer, whatever module system it is written in.

`targets` chooses kernels by their paths; `spec` is a layer as a module system hands it over; `fresh_trees` makes the
leaves of adapted kernels; `stored_kernel` takes a quantised one apart; `kernel_trees` names those leaves as adapters
do; `kernel_matrix` sees a kernel as a matrix; `deltas` is the update of each kind of layer beside its input;
`adapted_layer` is the layer's whole output, with the update beside the layer or summed into its kernel; `mixed_layer`
is the same for a batch of different tasks; `effective_params` adds the update to the kernels; `projected` takes the
first adapted layer's two products ahead of training. A new kind of layer goes into `deltas`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
