"""Learning tasks: steps, optimizers, losses, batches, the `Learner` and the `ShareLearner`.

`learner` is the public face: a bank goes in, a bank with one more task comes out; `share_learner` is that of one
evolving subspace; `task_learner` is what both have in common. `loop` is the one loop
over a task's steps, with hooks for whatever is done beside them; a `phase` is what it trains. `update` is one update as
a pure function, `step` compiles it, `placed_step` runs it on one device or a mesh, `pmap` under `jax.pmap`. `optimizer`
says which leaves train, `starting_slot` where those of a new task start, by the names of `start_from`, `model_call` how
the model is called; `losses` and `batches` are what a step is given, `token_losses`, `token_rows` and `token_batches`
for language models. `batch_checks` refuses bad batches and labels, for a whole task `task_checks`; `divergence` finds
the first loss that is not finite; `prefix_cache` keeps the output of frozen layers, `hidden_rows` that of texts of
unlike lengths. A new loss goes into `losses`, a new check into `batch_checks`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
