"""The seam to Flax NNX: modules, and adapting an unmodified one.

`modules` and `share_modules` are NNX's linear layers with a `task_id`, `head` is a head per task, `variables` their
leaves; `own_module` is a model made of them as an `AdaptedModel`. `module_function` makes a pure function of a
module: split once, merged into a copy at every call; `stored_kernels` makes one leaf of what stores a quantised
kernel, and `written_inputs` copies what a call writes into among its inputs. `adapted_model` adapts that function with
`share_jax.traced`, which knows no module class. `lora_trees` takes LoRA pairs of a live model in as tasks, and out
again, by the leaves of `model_leaves`; `chosen_task` makes a module of an adapted one. All that needs `flax.nnx` is
here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
