"""Pretrained Flax models and their weights, strictly loaded. Needs `pip install "share_jax[models]"`.

One file per architecture: `bert`, `roberta`, `vit`, and `decoder` for Llama, Mistral, Qwen and Gemma; `weights` loads a
checkpoint's tensors into params, every one with its shape and nothing else; `gguf_file` reads llama.cpp's files;
`tokenizer` and `text_tokenizer` turn texts into ids; `split_point` names the place below which a model is frozen;
`generation` writes text for mixed tasks. A new model is a new file, with a table of names that `weights` reads.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
