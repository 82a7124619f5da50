"""Linear algebra on arrays: spectra of stacks of columns, their ranks and updates, and balanced factors.

Nothing here knows of adapters or tasks, and all is NumPy: arrays go in, arrays come out. `spectrum` chooses the way to
a stack's leading directions, of which `randomized_svd` is one; `rank_selection` says how many directions to keep;
`incremental` updates a basis in bounded memory; `balance` makes a pair of factors independent of how it was written;
`random_stack` says what the leading directions of a stack of random columns capture, without drawing one; `finite`
looks for NaN and infinities; `padding` brings arrays to one size. Another SVD goes here; products of many tasks at once
go through `basis_products`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
