"""A compressed set on disk: a folder of LoRA adapters in one subspace, with every adapter's error and bound.

A set is a folder with a manifest and safetensors files named after their content. `store` reads, checks and changes a
set; `build` makes its first state from adapters, `contents` the record that `store` writes, `compression_loss` what
each task lost; `encoding` says how arrays lie in the files, and `int8_gauge` chooses the coefficients that take the
fewest bytes; `plan` measures, with nothing written, what many sizes would cost and lose, in rows (`plan_rows`), with
`plan_storage` for what rounding adds; `survey` notes what errors are compared with, `comparison` does so for a new set,
`advice` says what to do. `manifest` is the schema; `bank_set` takes a bank's tasks out as a set and a set's tasks in. A
new storage type goes into `subspace.quantize` and `encoding`, another recorded figure into `manifest`. The algebra is
`share_jax.subspace`'s; files of single adapters are `share_jax.formats`'.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
