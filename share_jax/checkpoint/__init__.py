"""A bank on disk: one Orbax folder per task, a checksummed manifest, and repair of what is damaged.

`checkpoint` saves and loads what is shared, tasks, and the training in flight; writing `manifest` is what commits.
`arrays` holds one tree of arrays with checksums of its files, `inflight_steps` the last two states of a training;
`fingerprints` tells base models apart; `before_saving` refuses what cannot be saved; `repair` names damage and goes
back to the last good state; `router` keeps a task router, and `bank_tasks` reads tasks as adapters. `saved_bank` saves
and loads all of a `Learner`'s bank in one call, `share_tasks` that of a `ShareLearner` after each task, whose leaves
`state_leaves` makes; `earlier_leaves` are those of kernels that had one pair for all their indices. The loop over steps
saves the training in flight through `inflight_folder`. What a folder must say about its model is decided in `manifest`.
What a kill may lose is decided in five places: `checkpoint` (commits), `inflight_steps` (two states are kept),
`inflight_folder` (what a state holds), the `save_every` of `train.loop.Hooks`, and the `GRACE` of `runtime.preemption`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
