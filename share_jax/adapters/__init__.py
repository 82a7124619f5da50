"""LoRA adapters as data: factors by target, their stacks, arithmetic and similarity. NumPy alone.

`factors` has the record of one task's factors; `stacking` puts targets of one shape side by side, so that one call
computes all their layers; `arithmetic` balances adapters and makes new ones of them (linear, TIES, DARE); `similarity`
compares them, `shared_starts` tells which were trained from one initialisation. Another way to merge tasks into one
adapter is a function in `arithmetic`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
