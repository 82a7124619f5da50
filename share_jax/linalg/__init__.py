"""Linear algebra on arrays: orthonormal bases and spectra of stacks of columns, their ranks and updates.

Nothing here knows of adapters or tasks: arrays go in, arrays come out. `spectrum` chooses the way to a stack's leading
directions; `randomized_svd` and `gram` are two of the ways; `rank_selection` says how many directions to keep;
`incremental` updates a basis in bounded memory. Another SVD goes here, and products that must not lose precision go
through `products`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
