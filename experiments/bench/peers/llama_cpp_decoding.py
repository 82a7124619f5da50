"""Greedy decoding by llama.cpp, with one LoRA for all rows of a batch.

Through the C functions that `llama-cpp-python` binds: its class `Llama` decodes one text at a time. Rows are sequences
of one context; each step hands over one token of every row. Keys and values are kept in float32, as ours are, and
attention is the plain one: llama.cpp's flash attention rounds to half precision.
"""
# pyright: reportMissingImports=false

import ctypes
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np


class LlamaCppGeneration:
    """The model with its LoRA, and a context for each number of rows."""

    def __init__(self, files: dict[str, str], rows: Sequence[int], length: int, probe: Sequence[int]) -> None:
        """Loads both files.

        Args:
            files: "weights" and "lora", paths of GGUF files.
            rows: of the batches that are decoded.
            length: tokens of a row at most, the prompt's among them.
            probe: token ids; the logits behind the last of them, without the LoRA, are among the facts.
        """
        import llama_cpp

        self.api, self.silent = llama_cpp, llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self.silent, ctypes.c_void_p())
        llama_cpp.llama_backend_init()
        asked = llama_cpp.llama_model_default_params()
        asked.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(files["weights"].encode(), asked)
        self.lora = llama_cpp.llama_adapter_lora_init(self.model, files["lora"].encode()) if self.model else None
        if not self.model or not self.lora:
            raise ValueError(f"llama.cpp does not load {files}")
        self.words = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.contexts = {count: self._context(count, length) for count in sorted({1, *rows})}
        logits = self._decoded(self.contexts[1], [list(probe)], 0)
        self.facts: dict[str, Any] = {"logits": logits[0, :256].tolist()}
        adapters, scales = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(self.lora), (ctypes.c_float * 1)(1.0)
        for context in self.contexts.values():
            if llama_cpp.llama_set_adapters_lora(context, adapters, 1, scales):
                raise ValueError("llama.cpp does not take the LoRA")

    def _context(self, rows: int, length: int) -> Any:
        asked = self.api.llama_context_default_params()
        asked.n_seq_max, asked.n_ctx = rows, rows * (-(-length // 256) * 256)
        asked.flash_attn_type = self.api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        asked.type_k = asked.type_v = self.api.GGML_TYPE_F32
        asked.n_threads = asked.n_threads_batch = len(os.sched_getaffinity(0))
        context = self.api.llama_init_from_model(self.model, asked)
        if not context:
            raise ValueError(f"llama.cpp makes no context for {rows} rows")
        return context

    def _decoded(self, context: Any, tokens: Sequence[Sequence[int]], place: int) -> np.ndarray:
        """(rows, words) logits behind the last of each row's next tokens; `place` is that of the first of them."""
        api, each = self.api, len(tokens[0])
        if place == 0:
            api.llama_memory_clear(api.llama_get_memory(context), True)
        batch = api.llama_batch_init(len(tokens) * each, 0, 1)
        try:
            batch.n_tokens = len(tokens) * each
            for row, own in enumerate(tokens):
                for column, token in enumerate(own):
                    at = row * each + column
                    batch.token[at], batch.pos[at], batch.n_seq_id[at] = token, place + column, 1
                    batch.seq_id[at][0], batch.logits[at] = row, column == each - 1
            if status := api.llama_decode(context, batch):
                raise ValueError(f"llama.cpp decodes with status {status}")
        finally:
            api.llama_batch_free(batch)
        lasts = [api.llama_get_logits_ith(context, (row + 1) * each - 1) for row in range(len(tokens))]
        return np.stack([np.ctypeslib.as_array(last, (self.words,)) for last in lasts])

    def run(self, prompts: Sequence[Sequence[int]], tokens: int) -> dict[str, Any]:
        """So many tokens behind each prompt, which are of one length."""
        context, place = self.contexts[len(prompts)], len(prompts[0])
        began = time.perf_counter()
        new = self._decoded(context, prompts, 0).argmax(axis=-1)
        for step in range(tokens - 1):
            new = self._decoded(context, new[:, None].tolist(), place + step).argmax(axis=-1)
        return {"seconds": time.perf_counter() - began}
