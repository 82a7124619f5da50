"""Files of adapters that other tools write and read: of PEFT, MLX-LM, diffusers, kohya, ComfyUI, lorashare, vlora.

`adapter_file` is one task as every reader hands it over; `pair_layouts` has the pairs that are no two matrices.
`format` lists the known formats; a new one is a file and an entry there. `open` opens folders and files of any,
`base_model` compares their base models; `tensor_files` opens the files. `task_names` names tasks, `same_modules` finds
modules under two names, `foreign_folders` says what else a folder is. `peft` reads and writes PEFT folders, with
`peft_config`, whose patterns `expressions` matches in bounded time, and, for the tensors' names, `peft_keys`;
`peft_modules` says which modules PEFT creates. `peft_parts` reads a folder with one for each component of an image
model, which `components` names. `mlx`, `diffusers`, `kohya` (with `kohya_names`) and `comfy` read and write theirs (the
last two by `pair_files`), by the grammar of `lora_names` and the names of `unet_names`. `lorashare`, `vlora`,
`gguf_lora` (with `gguf_tensors`) and `jax_trees` read theirs; `live_trees` writes trees in memory, `lora_leaves` pairs
their leaves. `pairs` makes a task of what a file holds, `module_lists` reads a model's names. `other_kinds` names other
methods, `peft_tokens` checks trained rows. `export` writes a set's tasks as PEFT folders, `peft_saving` a task of any
format, with `renamed` modules; `saving` has what writers share, and `conversion` goes from one format to another.
`bank_tasks` takes a bank's tasks out as PEFT folders and adapters in, `flax_names` translates their names. All is
checked.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
