"""Files of adapters that other tools write and read: PEFT, lorashare, vlora.

`adapter_file` is one task as every reader hands it over, with factors on demand; `open` finds out what a folder is.
One file per format reads and writes it: `peft` (with `peft_config`), `lorashare`, `vlora`; `export` writes a task of a
set as a PEFT folder. A new format is a new file and an entry in `open`. Folders are not trusted: every shape, name and
number is checked before it is used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
