"""A language model's tasks in a folder: learnt from JSONL, scored, written with, and handed on as PEFT folders.

`settings` is what the folder's `language_model.json` holds, which model and how its kernels are adapted; `folder` tells
such a folder from others, and where its model lies. `language_bank` opens it with its model; `learning` adds a task, in
the way that `training` says; `token_marks` knows a bank's tokenizer again; `changing` holds the folder for one process
meanwhile; `routing` chooses a prompt's task by what it says, `scoring` scores examples, by `option_scoring` also which
of some answers is the likeliest, `adapters` reads and writes PEFT folders, as `decoder_sources` names them. The
commands `share-jax learn`, `generate`, `evaluate`, `tasks`, `export` and `import` are these.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
