"""Pretrained Flax models and their weights, strictly loaded. Needs `pip install "share_jax[models]"`.

One file per architecture: `bert`, `roberta`, `vit`, and `decoder` for Llama, Mistral, Qwen and Gemma, made of
`decoder_layer`, `decoder_config`, `rotary` and `kv_cache`; `attention` and `gelu` are formulated for XLA's CPU
backend. `weights` loads a checkpoint's tensors into params, every one with its shape and nothing else; `bert_weights`,
`vit_weights` and `decoder_weights` are tables of names for it. `gguf_file` reads llama.cpp's files, with `gguf_header`
and `gguf_tokenizer`; `pretrained_decoder` opens either kind. `tokenizer`, `text_tokenizer` and `chat_template` turn
texts into ids; `split_point` names the place below which a model is frozen, and `text_stems` computes what lies below
it once where texts begin alike. `generation` writes text for mixed tasks by the compiled programs of `decoding`, and
`sampling` chooses tokens. A new model is a new file, with a table of names that `weights` reads.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
