"""Files of adapters that other tools write and read: PEFT, lorashare, vlora.

`adapter_file` is one task as every reader hands it over, with factors on demand; `forms` has the pairs that are no two
matrices: convolutions, embeddings, experts. `format` lists the known formats: how each is recognised, opened and
written; a new one is a file and an entry there. `peft` reads and writes PEFT folders, with `peft_config`, whose
patterns `expressions` matches in bounded time, and, for the tensors' names, `peft_keys`; `lorashare` and `vlora` read
theirs; `tensor_files` opens the files. `export` writes PEFT folders, and `peft_modules` says which modules PEFT creates
for one. `open` opens folders of any, `base_model` compares the base models that they name. `bank_tasks` takes a bank's
tasks out as PEFT folders and adapters in, `flax_names` translates their names. Every shape, name and number is checked.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
