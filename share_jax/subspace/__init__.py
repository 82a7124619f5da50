"""The method on host arrays: one orthonormal subspace per target that evolves as adapters arrive.

`state` has the records. `initialization` makes the first subspace of any number of adapters: `prepared_batches` packs
them, `factor_columns` turns them into columns, `accumulate` sums those up in bounded memory. `flat_geometry` does the
same for whole factors as columns. `projection` puts tasks on bases that stay. `merging` lets the bases evolve and
bounds what old tasks lose: `joint_spectra` stacks old bases and new columns, `duplicates` finds adapters that are there
already, `temporary_directions` are what trains before a merge. `removal` takes tasks out. `rank_choice` and
`error_curves` say how many columns to keep; `error_bounds` and `task_drift` measure and prove errors, `coordinates`
makes that cheap, and `baselines` says what random adapters of the same spectra would lose. `quantize` stores in fewer
bytes; `serving` goes to the trees that Flax layers compute with, and back; `share_bank` is the bank that serves a
subspace; `from_bank` and `into_bank` take a bank's tasks out as adapters or a subspace, and in. A change of the method
goes here; the linear algebra below it is `share_jax.linalg`'s.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
