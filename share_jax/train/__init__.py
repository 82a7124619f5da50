"""Learning tasks: steps, optimizers, losses, batches, and the `Learner`.

`learner` is the public face: a bank goes in, a bank with one more task comes out. `update` is one update as a pure
function, `step` compiles it, `pmap` runs it under `jax.pmap`. `optimizer` says which leaves train; `losses` and
`batches` are what a step is given. `batch_checks` refuses bad batches and labels; `divergence` finds the first loss
that is not finite; `prefix_cache` keeps the output of frozen layers. A new loss goes into `losses`, a new check into
`batch_checks`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
