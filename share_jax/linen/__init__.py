"""The seam to Flax Linen: modules, and adapting an unmodified model.

`modules` and `share_modules` are Flax's linear layers with a `task_id`, `variables` their leaves; `own_module` is a
model made of them as an `AdaptedModel`. `adapted_model` adapts an unmodified model: `discover` finds the layer of each
kernel, `layer_spec` describes it to `share_jax.layers`, `choose` says how it is adapted, `intercept` adds the update
while the model runs, `bypass` finds kernels that are read past their layer, `later_calls` those of calls with other
flags, `mixed` is a batch of different tasks, and `model_checks` refuses what is no model. `head` is a head per task;
`remat`, `gathered_layers` and `prefix` wrap a model that knows nothing of them. All that needs `flax.linen` is here or
in `share_jax.models`; the arithmetic is in `share_jax.layers`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
