"""Pretrained Flax models and their weights, strictly loaded. Needs `pip install "share_jax[models]"`.

One file per architecture: `bert`, `roberta`, `vit` (weights in `vit_weights`); `weights` loads a checkpoint's tensors
into params, every one with its shape and nothing else; `tokenizer` turns texts into ids; `split_point` names the place
below which a model is frozen. A new model is a new file, with a table of names that `weights` reads.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
