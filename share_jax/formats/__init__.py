"""Files of adapters that other tools write and read: PEFT, lorashare, vlora.

`adapter_file` is one task as every reader hands it over, with factors on demand. `format` lists the known formats: how
each is recognised, opened and written; a new one is a file and an entry there. `peft` (with `peft_config`), `lorashare`
and `vlora` read them, `export` writes PEFT folders, `open` opens folders of any. `bank_tasks` takes a bank's tasks out
as PEFT folders and adapters in, `flax_names` translates their names. Every shape, name and number is checked.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
