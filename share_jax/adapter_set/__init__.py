"""A compressed set on disk: a folder of LoRA adapters in one subspace, with every adapter's error and bound.

A set is a folder with a manifest and safetensors files named after their content. `store` reads, checks and changes a
set; `build` makes its first state from adapters, `contents` the record that `store` writes, `errors` what each task
lost; `encoding` and `int8_gauge` say how arrays lie in the
files; `manifest` is the schema. A new storage type goes into `encoding`, another recorded figure into `manifest`.
The algebra is `share_jax.subspace`'s; files of single adapters are `share_jax.formats`'.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
