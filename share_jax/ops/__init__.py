"""Products that XLA and Pallas run: low-rank updates, merged kernels, batches of several tasks.

`products` has the products of an adapter, formulated so that XLA does not recompute or reorder them; `mixed_batch`
decides whether a batch of different tasks goes through the Pallas kernel of `mixed_batch_pallas`. Another kernel for
such batches goes beside it. `token_scores` scores a language model's tokens block by block; `remat_policy` says what a
backward pass keeps. Arrays alone: no module, no task name.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
